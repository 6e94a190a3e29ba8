#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include "harness.h"

#include <signal.h>
#include <sys/mman.h>
#include <unistd.h>

const char *isas[4];
int n_isas, share = 1;

/* ---------------------------------------------------------------------------------------------------------- arrays */

/* Pages that cannot be touched lie before and behind. What is left over between them and the array is NaN, so that what is
 * read there shows, and is looked at in the end. */
struct array {
    char *pages, *data;
    size_t length, bytes;
};
static struct array arrays[64];
static int n_arrays;

static size_t page_size(void) { return (size_t)sysconf(_SC_PAGESIZE); }

/* So many bytes, three times out of four at the end of their pages. */
static void *array(size_t bytes)
{
    const size_t page = page_size(), inside = (bytes + page - 1) / page * page, length = inside + 2 * page;
    char *pages = mmap(NULL, length, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    CHECK(pages != MAP_FAILED && n_arrays < COUNT_OF(arrays), "memory");
    CHECK(mprotect(pages, page, PROT_NONE) == 0 && mprotect(pages + page + inside, page, PROT_NONE) == 0, "guards");
    char *data = pages + page + (random_bits() % 4 ? inside - bytes : 0);
    memset(pages + page, 0xff, (size_t)(data - pages) - page);
    memset(data + bytes, 0xff, (size_t)(pages + page + inside - data) - bytes);
    arrays[n_arrays++] = (struct array){pages, data, length, bytes};
    return data;
}

static void release_down_to(int number, const char *what)
{
    while (n_arrays > number) {
        const struct array *a = &arrays[--n_arrays];
        const size_t page = page_size();
        for (char *p = a->pages + page; p < a->data; p++) CHECK(*p == (char)0xff, "%s wrote before an array", what);
        for (char *p = a->data + a->bytes; p < a->pages + a->length - page; p++)
            CHECK(*p == (char)0xff, "%s wrote behind an array", what);
        munmap(a->pages, a->length);
    }
}

void release_arrays(const char *what) { release_down_to(0, what); }

static void protect(const void *data, int protection)
{
    for (int i = 0; i < n_arrays; i++)
        if (arrays[i].data == data && arrays[i].bytes)
            CHECK(mprotect(arrays[i].pages + page_size(), arrays[i].length - 2 * page_size(), protection) == 0, "protection");
}

/* --------------------------------------------------------------------------------------------------------- numbers */

static uint64_t random_state = 88172645463325252u;

uint64_t random_bits(void)
{
    random_state ^= random_state << 13;
    random_state ^= random_state >> 7;
    random_state ^= random_state << 17;
    return random_state;
}

float uniform(double low, double high)
{
    return (float)(low + (high - low) * (double)(random_bits() >> 11) / 9007199254740992.0);
}

int64_t pick(int64_t low, int64_t high) { return low + (int64_t)(random_bits() % (uint64_t)(high - low + 1)); }

void fill(struct tensor *t, double low, double high)
{
    for (int64_t i = 0; i < elements(t); i++) ((float *)t->data)[i] = uniform(low, high);
}

void fill_whole(struct tensor *t, int64_t most)
{
    for (int64_t i = 0; i < elements(t); i++) ((float *)t->data)[i] = (float)pick(-most, most);
}

/* ----------------------------------------------------------------------------------------------------------- steps */

static int covered[256]; /* kernels that were made a step of */
static const char *const names[] = {
#define KERNEL(name) #name,
#include "kernels.inc"
#undef KERNEL
};
_Static_assert(sizeof names / sizeof *names <= 256, "there is room");

void check_that_all_were_tested(void)
{
    for (int i = 0; i < COUNT_OF(names); i++) CHECK(covered[i], "no test of %s", names[i]);
}

/* Of the step that is being tested. */
static const char *made;                     /* its kernel */
static size_t item[MAX_OUTPUTS + MAX_INPUTS]; /* how many bytes an element of each array has */
static int64_t workspace_bytes;

int fit_windows(struct sizes *z)
{
    for (int a = 0; a < MAX_SPACE; a++) {
        if (a < MAX_SPACE - z->axes) continue;
        const int64_t stride = z->strides[a] ? z->strides[a] : 1, dilation = z->dilations[a] ? z->dilations[a] : 1;
        const int64_t room = z->space[a] + z->before[a] + z->after[a] - (z->kernel[a] - 1) * dilation - 1;
        if (room < 0) return 0;
        z->out[a] = room / stride + 1;
    }
    return 1;
}

static int64_t size_named(char letter, const struct sizes *z)
{
    switch (letter) {
    case 'n': return z->n;
    case 'k': return z->k;
    case 'f': return z->f;
    case 'c': return z->c;
    case 'm': return z->m;
    case 'p': return z->p;
    case 'g': return z->c / z->groups;
    case 'q': return z->groups;
    case 'e': return z->c * z->m;
    default: CHECK(letter >= '0' && letter <= '9', "%c", letter); return letter - '0';
    }
}

static void add_sizes(struct tensor *t, char letter, const struct sizes *z)
{
    const int64_t *sizes = letter == 's' ? z->space : letter == 'o' ? z->out : letter == 'w' ? z->kernel : NULL;
    if (!sizes) t->size[t->rank++] = size_named(letter, z);
    for (int a = MAX_SPACE - z->axes; sizes && a < MAX_SPACE; a++) t->size[t->rank++] = sizes[a];
}

static void set_window(struct attributes *attr, const struct sizes *z, int kernel)
{
    for (int a = 0; a < MAX_SPACE; a++) {
        attr->strides[a] = z->strides[a] ? z->strides[a] : 1;
        attr->dilations[a] = z->dilations[a] ? z->dilations[a] : 1;
        attr->kernel[a] = kernel && z->kernel[a] ? z->kernel[a] : 1;
        attr->before[a] = z->before[a];
        attr->after[a] = z->after[a];
    }
}

struct step make(const char *op, const char *shapes, struct sizes z)
{
    struct step s;
    memset(&s, 0, sizeof s);
    for (int i = 0; i < COUNT_OF(names); i++) covered[i] |= !strcmp(op, names[i]);
    CHECK((s.run = dispatch_kernel(op)) != NULL, "%s", op);
    made = op;
    s.work = SHARED;
    s.attr.groups = z.groups ? z.groups : 1;
    set_window(&s.attr, &z, !strchr(strchr(shapes, '='), 'w'));
    int inputs = 0;
    for (const char *at = shapes; *at; at += *at == ',') {
        struct tensor *t = inputs ? &s.in[s.inputs] : &s.out[s.outputs];
        const size_t bytes = *at == '@' || *at == '#' ? 8 : 4;
        at += bytes == 8;
        item[s.outputs + s.inputs] = bytes;
        t->batch = *at == 'n';
        for (; *at && *at != ',' && *at != '='; at++) add_sizes(t, *at, &z);
        t->data = array((size_t)elements(t) * bytes);
        if (!inputs) memset(t->data, 0xff, (size_t)elements(t) * bytes);
        else if (bytes == 4) fill(t, -1, 1);
        if (inputs) s.inputs++;
        else s.outputs++;
        if (*at == '=') {
            inputs = 1;
            at++;
        }
    }
    workspace_bytes = 0;
    return s;
}

/* It begins on a multiple of 64 bytes, so what is behind it may not be a page that cannot be touched; but it is NaN, and
 * looked at in the end. */
void give_workspace(struct step *s, int64_t floats)
{
    const size_t bytes = (size_t)floats * 4, whole = (bytes + 63) / 64 * 64;
    s->workspace = array(whole);
    arrays[n_arrays - 1].bytes = bytes;
    memset((char *)s->workspace + bytes, 0xff, whole - bytes);
    workspace_bytes = (int64_t)bytes;
}

struct tensor *tensor_of(struct step *s, int number)
{
    return number < s->outputs ? &s->out[number] : &s->in[number - s->outputs];
}

/* ------------------------------------------------------------------------------------------------ words about a step */

static void shape_of(const struct tensor *t, char *text, size_t room)
{
    size_t used = 0;
    for (int32_t i = 0; i < t->rank && used < room; i++)
        used += (size_t)snprintf(text + used, room - used, "%s%lld", i ? "," : "(", (long long)t->size[i]);
    if (used < room) snprintf(text + used, room - used, ")");
}

/* The step in words: kernel, instruction set, shapes, the window's attributes. */
static char description[1000];

static void describe(struct step *s)
{
    char shape[100];
    int used = snprintf(description, 100, "%s, %s:", made, dispatch_table()->isa);
    for (int i = 0; i < s->outputs + s->inputs; i++) {
        shape_of(tensor_of(s, i), shape, sizeof shape);
        used += snprintf(description + used, 110, "%s %s", i == s->outputs ? " =" : "", shape);
    }
    const int64_t *lists[] = {s->attr.kernel, s->attr.strides, s->attr.dilations, s->attr.before, s->attr.after};
    static const char *const labels[] = {"kernel", "strides", "dilations", "before", "after"};
    for (int i = 0; i < COUNT_OF(lists); i++) {
        const int64_t *list = lists[i];
        used += snprintf(description + used, 50, ", %s %d %d %d", labels[i], (int)list[0], (int)list[1], (int)list[2]);
    }
    snprintf(description + used, 50, ", groups %d\n", (int)s->attr.groups);
}

/* A number that is read or written where nothing is: says of which step before all ends. */
static void say_what_crashed(int number)
{
    if (write(STDERR_FILENO, description, strlen(description)) < 0) _exit(2);
    signal(number, SIG_DFL);
    raise(number);
}

void describe_crashes(void)
{
    signal(SIGSEGV, say_what_crashed);
    signal(SIGBUS, say_what_crashed);
}

/* ---------------------------------------------------------------------------------------------------------- checks */

enum { SPOILED = 1 << 20 }; /* bytes of the scratch memory */

static void spoil(const struct lane *lane, void *arg)
{
    (void)arg;
    memset(lane->scratch, 0xff, SPOILED);
}

void run(struct step *s, int lanes)
{
    struct program p = {.steps = s, .n_steps = 1, .batch = 1};
    CHECK(team_set_size(lanes) == 0, "%d", lanes);
    if (workspace_bytes) memset(s->workspace, 0xff, (size_t)workspace_bytes);
    CHECK(program_run(&p, NULL, 0, 1, 1, 1, 0) == 1, "one run");
}

/* Row i alone, for some rows, gives the bits of `all`, the first output of all rows. */
static void check_rows(const struct step *s, const char *what, const char *all)
{
    const int64_t n = s->out[0].size[0];
    const int kept = n_arrays;
    for (int64_t row = 0; row < n; row += 1 + n / 3) {
        struct step one = *s;
        one.work = 0;
        for (int i = 0; i < s->outputs + s->inputs; i++) {
            struct tensor *t = tensor_of(&one, i);
            if (!t->batch) continue;
            const size_t bytes = item[i] * (size_t)(elements(t) / n);
            t->data = (char *)t->data + (size_t)row * bytes;
            t->size[0] = 1;
        }
        const size_t bytes = (size_t)elements(&one.out[0]) * 4;
        one.out[0].data = array(bytes);
        run(&one, 1);
        CHECK(!memcmp(one.out[0].data, all + (size_t)row * bytes, bytes), "%s: row %d alone: %s", what, (int)row, description);
        release_down_to(kept, what);
    }
}

/* With the output in the place of an input of its shape, the same bits. */
static void check_in_place(const struct step *s, const char *what, const char *all)
{
    const struct tensor *out = &s->out[0];
    const size_t bytes = (size_t)elements(out) * 4;
    const int kept = n_arrays;
    for (int i = 0; i < s->inputs; i++) {
        struct step over = *s;
        struct tensor *in = &over.in[i];
        if (in->rank != out->rank || memcmp(in->size, out->size, sizeof *in->size * (size_t)in->rank)) continue;
        void *both = array(bytes);
        memcpy(both, in->data, bytes);
        in->data = over.out[0].data = both;
        run(&over, 1);
        CHECK(!memcmp(both, all, bytes), "%s: over its input %d: %s", what, i, description);
        release_down_to(kept, what);
    }
}

static void check_numbers(const struct step *s, const char *what, int o, const char *data, const double *want,
                          const double *slack)
{
    for (int64_t i = 0; i < elements(&s->out[o]); i++) {
        const double got = item[o] == 8 ? ((const double *)data)[i] : (double)((const float *)data)[i];
        CHECK(got != got ? want[i] != want[i] : fabs(got - want[i]) <= slack[i] || got == want[i],
              "%s: element %lld of output %d is %.9g instead of %.9g, allowed %.2g: %s", what, (long long)i, o, got, want[i],
              slack[i], description);
    }
}

void check(struct step *s, const char *what, reference *expected, int also)
{
    struct answer answer;
    char *before[MAX_OUTPUTS], *first[MAX_OUTPUTS];
    size_t bytes[MAX_OUTPUTS];
    for (int o = 0; o < s->outputs; o++) {
        const size_t n = (size_t)elements(&s->out[o]);
        bytes[o] = n * item[o];
        before[o] = malloc(bytes[o] + 1);
        first[o] = malloc(bytes[o] + 1);
        memcpy(before[o], s->out[o].data, bytes[o]);
        answer.want[o] = calloc(n + 1, sizeof(double));
        answer.slack[o] = calloc(n + 1, sizeof(double));
    }
    for (int i = 0; i < s->inputs; i++) protect(s->in[i].data, PROT_READ);
    expected(s, &answer);
    for (int isa = 0; isa < n_isas; isa++) {
        CHECK(dispatch_choose(isas[isa]) == 0 && (s->run = dispatch_kernel(made)) != NULL, "%s", made);
        describe(s);
        team_run(1, spoil, NULL);
        for (int lanes = 1; lanes <= LANES; lanes++) {
            for (int o = 0; o < s->outputs; o++) memcpy(s->out[o].data, before[o], bytes[o]);
            run(s, lanes);
            for (int o = 0; o < s->outputs; o++) {
                if (lanes == 1) {
                    memcpy(first[o], s->out[o].data, bytes[o]);
                    check_numbers(s, what, o, first[o], answer.want[o], answer.slack[o]);
                }
                CHECK(!memcmp(s->out[o].data, first[o], bytes[o]), "%s: output %d on %d lanes: %s", what, o, lanes,
                      description);
            }
        }
        if (also & ROW_BY_ROW) check_rows(s, what, first[0]);
        if (also & IN_PLACE) check_in_place(s, what, first[0]);
    }
    for (int o = 0; o < s->outputs; o++) {
        free(before[o]);
        free(first[o]);
        free(answer.want[o]);
        free(answer.slack[o]);
    }
    release_arrays(what);
}
