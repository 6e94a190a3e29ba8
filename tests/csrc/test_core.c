/* Tests of the C core: every kernel of every instruction set of this machine against reference.h, on one to four lanes,
 * and the running of programs. Arrays end where memory ends, so that a number read or written behind them is a crash. */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

#include "dispatch.h"
#include "program.h"
#include "reference.h"

#define CHECK(condition, ...)                                                                             \
    do {                                                                                                  \
        if (!(condition)) {                                                                               \
            fprintf(stderr, "%s:%d: %s: failed: %s: ", __FILE__, __LINE__, dispatch_table()->isa, #condition); \
            fprintf(stderr, __VA_ARGS__);                                                                 \
            fprintf(stderr, "\n");                                                                        \
            exit(1);                                                                                      \
        }                                                                                                 \
    } while (0)

enum { LANES = 4 };
static const double SHARED = 1e9; /* a step's work, so that all lanes take part */

/* ---------------------------------------------------------------------------------------------------------- arrays */

struct array {
    char *pages;
    size_t length, before; /* bytes mapped; unused bytes before the array, zero */
};
static struct array arrays[64];
static int n_arrays;

/* So many bytes, with a page behind them that cannot be touched. */
static void *array(size_t bytes)
{
    size_t page = (size_t)sysconf(_SC_PAGESIZE), length = (bytes + page - 1) / page * page + page;
    char *pages = mmap(NULL, length, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    CHECK(pages != MAP_FAILED && n_arrays < 64, "memory");
    CHECK(mprotect(pages + length - page, page, PROT_NONE) == 0, "guard");
    arrays[n_arrays++] = (struct array){pages, length, length - page - bytes};
    return pages + length - page - bytes;
}

/* Checks what lies before the arrays, and gives them back. */
static void release_arrays(const char *what)
{
    while (n_arrays) {
        const struct array *a = &arrays[--n_arrays];
        for (size_t i = 0; i < a->before; i++) CHECK(a->pages[i] == 0, "%s wrote before an array", what);
        munmap(a->pages, a->length);
    }
}

static uint64_t random_state;

static uint64_t random_bits(void)
{
    random_state ^= random_state << 13;
    random_state ^= random_state >> 7;
    random_state ^= random_state << 17;
    return random_state;
}

/* Uniform in [low, high). */
static float uniform(double low, double high)
{
    return (float)(low + (high - low) * (double)(random_bits() >> 11) / 9007199254740992.0);
}

static void fill(struct tensor *t, double low, double high)
{
    for (int64_t i = 0; i < elements(t); i++) ((float *)t->data)[i] = uniform(low, high);
}

/* ----------------------------------------------------------------------------------------------------------- steps */

/* Sizes by their letters. */
struct sizes {
    int64_t n, k, f, c, m, p;
};

static int covered[256]; /* kernels that were made a step of */
static const char *const names[] = {
#define KERNEL(name) #name,
#include "kernels.inc"
#undef KERNEL
};
enum { N_NAMES = sizeof names / sizeof *names };

/* How many bytes an element of each array has: outputs first. */
static size_t item[MAX_OUTPUTS + MAX_INPUTS];

static int64_t size_named(char letter, const struct sizes *z)
{
    switch (letter) {
    case 'n': return z->n;
    case 'k': return z->k;
    case 'f': return z->f;
    case 'c': return z->c;
    case 'm': return z->m;
    case 'p': return z->p;
    default: return letter - '0';
    }
}

/* A step of the kernel with arrays of these shapes: "nf=nk,kf" has an output (N,F) and inputs (N,K) and (K,F); a digit is
 * a size, @ stands before int64 and # before double. Outputs are NaN, inputs random in [-1, 1). */
static struct step make(const char *op, const char *shapes, struct sizes z)
{
    struct step s;
    memset(&s, 0, sizeof s);
    for (int i = 0; i < N_NAMES; i++) covered[i] |= !strcmp(op, names[i]);
    CHECK((s.run = dispatch_kernel(op)) != NULL, "%s", op);
    s.work = SHARED;
    int inputs = 0;
    for (const char *at = shapes; *at; at += *at == ',') {
        struct tensor *t = inputs ? &s.in[s.inputs] : &s.out[s.outputs];
        size_t bytes = *at == '@' || *at == '#' ? 8 : 4;
        at += bytes == 8;
        item[s.outputs + s.inputs] = bytes;
        t->batch = *at == 'n';
        for (; *at && *at != ',' && *at != '='; at++) t->size[t->rank++] = size_named(*at, &z);
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
    return s;
}

static struct tensor *tensor_of(struct step *s, int number)
{
    return number < s->outputs ? &s->out[number] : &s->in[number - s->outputs];
}

static void run(struct step *s, int lanes)
{
    struct program p = {.steps = s, .n_steps = 1, .batch = 1};
    CHECK(team_set_size(lanes) == 0, "%d", lanes);
    CHECK(program_run(&p, NULL, 0, 1, 1, 1, 0) == 1, "one run");
}

/* Row i alone, for some rows, gives the bits of `all`, the first output of all rows. */
static void check_rows(struct step *s, const char *what, const char *all)
{
    const int64_t n = s->out[0].size[0];
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
        one.out[0].data = malloc(bytes + 1);
        run(&one, 1);
        CHECK(!memcmp(one.out[0].data, all + (size_t)row * bytes, bytes), "%s: row %d alone", what, (int)row);
        free(one.out[0].data);
    }
}

/* Runs the step on one to four lanes. One lane must give what the reference says, the others the same bits. */
static void check(struct step *s, const char *what, reference *expected, int rows_are_independent)
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
    expected(s, &answer);
    for (int lanes = 1; lanes <= LANES; lanes++) {
        for (int o = 0; o < s->outputs; o++) memcpy(s->out[o].data, before[o], bytes[o]);
        run(s, lanes);
        for (int o = 0; o < s->outputs; o++) {
            const char *data = s->out[o].data;
            if (lanes > 1) {
                CHECK(!memcmp(data, first[o], bytes[o]), "%s: output %d on %d lanes", what, o, lanes);
                continue;
            }
            memcpy(first[o], data, bytes[o]);
            for (int64_t i = 0; i < elements(&s->out[o]); i++) {
                double got = item[o] == 8 ? ((const double *)data)[i] : (double)((const float *)data)[i];
                double want = answer.want[o][i], slack = answer.slack[o][i];
                CHECK(got != got ? want != want : fabs(got - want) <= slack || got == want,
                      "%s of sizes %d %d and %d %d: element %d of output %d is %.9g instead of %.9g, allowed %.2g", what,
                      (int)s->in[0].size[0], (int)s->in[0].size[1], (int)s->in[1].size[0], (int)s->in[1].size[1], (int)i, o,
                      got, want, slack);
            }
        }
    }
    if (rows_are_independent) check_rows(s, what, first[0]);
    for (int o = 0; o < s->outputs; o++) {
        free(before[o]);
        free(first[o]);
        free(answer.want[o]);
        free(answer.slack[o]);
    }
    release_arrays(what);
}

/* -------------------------------------------------------------------------------------------------------- products */

static void check_products(int64_t n, int64_t k, int64_t f)
{
    static int turn;
    const struct sizes z = {.n = n, .k = k, .f = f};
    struct step s = make("matmul", "nf=nk,kf", z);
    check(&s, "matmul", ref_dense, 1);
    s = make("matmul_nt", "nk=nf,kf", z);
    check(&s, "matmul_nt", ref_dense_dx, 1);
    s = make("matmul_tn", "kf=nk,nf", z);
    check(&s, "matmul_tn", ref_matmul_tn, 0);
    const int32_t activation = turn++ % ACT_COUNT;
    s = make("dense", turn % 3 ? "nf=nk,kf,f" : "nf=nk,kf", z);
    s.attr.activation = activation;
    fill(&s.in[1], -2 / sqrt((double)k), 2 / sqrt((double)k));
    check(&s, functions[activation].name, ref_dense, 1);
    s = make("dense_dx", "nk=nf,kf,nk", z);
    s.attr.activation = activation;
    fill(&s.in[2], activation == ACT_softplus ? 0 : -1, 1);
    check(&s, functions[activation].name, ref_dense_dx, 1);
}

static void products_are_right_at_every_edge_of_tiles_and_blocks(void)
{
    static const int64_t rows[] = {1, 2, 3, 4, 5, 6, 7, 8, 9, 13, 14, 15, 17, 28, 29, 39, 40, 41, 57};
    static const int64_t columns[] = {1, 2, 3, 4, 5, 7, 8, 9, 11, 12, 13, 15, 16, 17, 24, 31, 32, 33, 48, 49, 63, 64, 65, 97, 129};
    static const int64_t sums[] = {1, 2, 7, 16, 19, 33};
    int turn = 0;
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++)
        for (size_t j = 0; j < sizeof columns / sizeof *columns; j++, turn++)
            check_products(rows[i], sums[turn % 6], columns[j]);
    static const int64_t blocks[][3] = {{3, 257, 40}, {45, 300, 70}, {5, 520, 3}, {4, 9, 520}, {41, 11, 530}, {258, 9, 20},
                                        {270, 260, 1}, {1, 600, 10}, {2, 1, 700}, {9, 513, 130}, {6, 256, 33}, {15, 512, 20}};
    for (size_t i = 0; i < sizeof blocks / sizeof *blocks; i++) check_products(blocks[i][0], blocks[i][1], blocks[i][2]);
}

static void biases_are_added_and_summed(void)
{
    static const int64_t sizes[][2] = {{1, 1}, {3, 7}, {16, 8}, {9, 17}, {5, 64}, {33, 67}, {300, 130}};
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        const struct sizes z = {.n = sizes[i][0], .f = sizes[i][1]};
        struct step s = make("add_bias", "nf=nf,f", z);
        check(&s, "add_bias", ref_add_bias, 1);
        s = make("sum_rows", "f=nf", z);
        check(&s, "sum_rows", ref_sum_rows, 0);
    }
}

/* ------------------------------------------------------------------------------------------------ element by element */

static const int64_t lengths[] = {1, 3, 7, 8, 9, 15, 16, 17, 31, 33, 4096, 3 * 4096 + 5};
enum { N_LENGTHS = sizeof lengths / sizeof *lengths };

static void activations_and_their_gradients_are_right(void)
{
    static const float special[] = {0.0f, -0.0f, NAN, 1e-20f, -1e-20f, 1e-3f, -1e-3f, 5, -5, 20, -20, 60, -60, 80, -80,
                                    87.5f, -87.5f, 100, -100, -1e30f, 1e30f};
    for (int i = 0; i < N_FUNCTIONS; i++) {
        current = &functions[i];
        char gradient[40];
        snprintf(gradient, sizeof gradient, "%s_dx", current->name);
        if (!strcmp(current->name, "linear")) continue; /* of dense only */
        for (int l = 0; l < N_LENGTHS; l++) {
            const struct sizes z = {.p = lengths[l]};
            struct step s = make(current->name, "p=p", z);
            s.attr.negative_slope = 0.2;
            s.attr.alpha = 1.3;
            fill(&s.in[0], -8, 8);
            float *x = s.in[0].data;
            const int64_t most = strcmp(current->name, "exponential") ? 21 : 16; /* larger ones overflow */
            for (int64_t j = 0; j < z.p && j < most; j++) x[j] = lengths[l] < 31 && j ? x[j] : special[j];
            check(&s, current->name, ref_activation, 0);

            s = make(gradient, "p=p,p", z);
            s.attr.negative_slope = 0.2;
            s.attr.alpha = 1.3;
            float *v = s.in[1].data;
            const int of_input = !strcmp(current->name, "gelu") || !strcmp(current->name, "silu") ||
                                 !strcmp(current->name, "mish") || !strcmp(current->name, "hard_silu");
            for (int64_t j = 0; j < z.p; j++) {
                v[j] = uniform(-8, 8);
                if (!of_input) v[j] = (float)current->f(v[j], &s.attr);
            }
            check(&s, gradient, ref_activation_dx, 0);
        }
    }
}

static void arithmetic_is_right(void)
{
    for (int l = 0; l < N_LENGTHS; l++) {
        const struct sizes z = {.p = lengths[l], .n = lengths[l]};
        struct step s = make("add", "p=p,p", z);
        check(&s, "add", ref_add, 0);
        s = make("multiply", "p=p,p", z);
        check(&s, "multiply", ref_multiply, 0);
        s = make("clip", "p=p", z);
        s.attr.limit = 0.4;
        check(&s, "clip", ref_clip, 0);
        s = make("reshape", "p=p", z);
        check(&s, "reshape", ref_reshape, 0);
        s = make("reshape_weight", "p=p", z);
        check(&s, "reshape_weight", ref_reshape, 0);
        for (int large = 0; large < 2; large++) {
            s = make("clip_norm", "p=p", z);
            s.attr.limit = large ? 1e3 : 0.3;
            check(&s, "clip_norm", ref_clip_norm, 0);
        }
        s = make("penalty", "1=p", z);
        s.attr.l1 = 0.01;
        s.attr.l2 = 0.02;
        check(&s, "penalty", ref_penalty, 0);
        s = make("penalty_dx", "p=1,p", z);
        s.attr.l1 = 0.01;
        s.attr.l2 = 0.02;
        ((float *)s.in[1].data)[0] = 0;
        check(&s, "penalty_dx", ref_penalty_dx, 0);
        s = make("add_rows", "n=n,1", z);
        check(&s, "add_rows", ref_add_rows, 1);
        s = make("sum_all", "1=n", z);
        check(&s, "sum_all", ref_sum_all, 0);
        s = make("mean_seed", "n=n", z);
        check(&s, "mean_seed", ref_mean_seed, 0);
        s = make("accumulate", "#1=n", z);
        *(double *)s.out[0].data = 1.25;
        check(&s, "accumulate", ref_accumulate, 0);
    }
}

/* --------------------------------------------------------------------------------------- softmax, losses and metrics */

static const int64_t row_sizes[][2] = {{1, 2}, {3, 3}, {7, 8}, {8, 9}, {9, 15}, {17, 16}, {64, 17}, {65, 10}, {200, 33}, {300, 4}};
enum { N_ROW_SIZES = sizeof row_sizes / sizeof *row_sizes };

static void one_hot(struct tensor *y, int64_t classes)
{
    float *row = y->data;
    const int label = y->size[1] == 1;
    for (int64_t i = 0; i < y->size[0]; i++, row += y->size[1]) {
        const int64_t right = (int64_t)(random_bits() % (uint64_t)classes);
        for (int64_t j = 0; j < y->size[1]; j++) row[j] = label ? (float)right : (float)(j == right);
    }
}

static void softmax_is_right(void)
{
    for (int i = 0; i < N_ROW_SIZES; i++) {
        const struct sizes z = {.n = row_sizes[i][0], .c = row_sizes[i][1]};
        struct step s = make("softmax", "nc=nc", z);
        fill(&s.in[0], -10, 10);
        ((float *)s.in[0].data)[0] = i % 3 ? 1e30f : 90;
        check(&s, "softmax", ref_softmax, 1);
        s = make("softmax_dx", "nc=nc,nc", z);
        fill(&s.in[1], 0, 1);
        check(&s, "softmax_dx", ref_softmax_dx, 1);
    }
}

/* Losses that are means along the row. */
static void mean_losses_are_right(void)
{
    static const struct {
        const char *name, *gradient;
        reference *value, *slope;
        int probability;
    } losses[] = {
        {"mean_squared_error", "mean_squared_error_dx", ref_mean_squared_error, ref_mean_squared_error_dx, 0},
        {"mean_absolute_error", "mean_absolute_error_dx", ref_mean_absolute_error, ref_mean_absolute_error_dx, 0},
        {"binary_crossentropy", "binary_crossentropy_dx", ref_binary_crossentropy, ref_binary_crossentropy_dx, 1},
        {"sigmoid_crossentropy", "sigmoid_crossentropy_dx", ref_sigmoid_crossentropy, ref_sigmoid_crossentropy_dx, 0},
    };
    for (int which = 0; which < 4; which++)
        for (int i = 0; i < 2 * N_ROW_SIZES; i++) {
            const struct sizes z = {.n = row_sizes[i / 2][0], .c = i % 2 ? 1 : row_sizes[i / 2][1]};
            struct step value = make(losses[which].name, "n=nc,nc", z);
            struct tensor *p = &value.in[0], *y = &value.in[1];
            for (int pass = 0; pass < 2; pass++) {
                fill(p, losses[which].probability ? 0 : -5, losses[which].probability ? 1 : 5);
                if (which >= 2)
                    for (int64_t j = 0; j < elements(y); j++) ((float *)y->data)[j] = (float)(random_bits() & 1);
                if (losses[which].probability && z.n > 2) {
                    ((float *)p->data)[0] = 0; /* as far off as can be, or sure */
                    ((float *)p->data)[1] = 1;
                }
                if (pass) {
                    check(&value, losses[which].gradient, losses[which].slope, 1);
                } else {
                    check(&value, losses[which].name, losses[which].value, 1);
                    value = make(losses[which].gradient, "nc=n,nc,nc", z);
                    p = &value.in[1];
                    y = &value.in[2];
                }
            }
        }
}

/* Losses over the classes, for rows of targets and for labels. */
static void class_losses_are_right(void)
{
    static const struct {
        const char *name, *gradient;
        reference *value, *slope;
        int label, probability;
    } losses[] = {
        {"categorical_crossentropy", "categorical_crossentropy_dx", ref_categorical, ref_categorical_dx, 0, 1},
        {"sparse_categorical_crossentropy", "sparse_categorical_crossentropy_dx", ref_categorical, ref_categorical_dx, 1, 1},
        {"softmax_crossentropy", "softmax_crossentropy_dx", ref_softmax_loss, ref_softmax_loss_dx, 0, 0},
        {"sparse_softmax_crossentropy", "sparse_softmax_crossentropy_dx", ref_softmax_loss, ref_softmax_loss_dx, 1, 0},
    };
    for (int which = 0; which < 4; which++)
        for (int i = 0; i < N_ROW_SIZES; i++) {
            const struct sizes z = {.n = row_sizes[i][0], .c = row_sizes[i][1]};
            const double low = losses[which].probability ? 0.01 : -10, high = losses[which].probability ? 1 : 10;
            struct step s = make(losses[which].name, losses[which].label ? "n=nc,n1" : "n=nc,nc", z);
            fill(&s.in[0], low, high);
            one_hot(&s.in[1], z.c);
            check(&s, losses[which].name, losses[which].value, 1);
            s = make(losses[which].gradient, losses[which].label ? "nc=n,nc,n1" : "nc=n,nc,nc", z);
            fill(&s.in[1], low, high);
            one_hot(&s.in[2], z.c);
            check(&s, losses[which].gradient, losses[which].slope, 1);
        }
}

static void metrics_are_right(void)
{
    for (int i = 0; i < N_ROW_SIZES; i++) {
        struct sizes z = {.n = row_sizes[i][0], .c = row_sizes[i][1]};
        for (int one = 0; one < 2; one++) {
            const struct sizes narrow = {.n = z.n, .c = one ? 1 : z.c};
            struct step s = make("binary_accuracy", "n=nc,nc", narrow);
            s.attr.threshold = 0.3;
            fill(&s.in[0], 0, 1);
            for (int64_t j = 0; j < elements(&s.in[1]); j++) ((float *)s.in[1].data)[j] = (float)(random_bits() & 1);
            check(&s, "binary_accuracy", ref_binary_accuracy, 1);
        }
        for (int label = 0; label < 2; label++) {
            const char *name = label ? "sparse_categorical_accuracy" : "categorical_accuracy";
            struct step s = make(name, label ? "n=nc,n1" : "n=nc,nc", z);
            for (int64_t j = 0; j < elements(&s.in[0]); j++) /* with equals */
                ((float *)s.in[0].data)[j] = (float)(random_bits() % 4);
            one_hot(&s.in[1], z.c);
            check(&s, name, ref_categorical_accuracy, 1);
        }
    }
}

/* ------------------------------------------------------------------------------------------------ data and dropout */

static void rows_are_gathered_and_scattered(void)
{
    static const int64_t sizes[][2] = {{1, 1}, {3, 7}, {9, 1}, {20, 8}, {17, 16}, {50, 33}, {700, 30}, {40000, 1}};
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        const struct sizes z = {.n = sizes[i][0], .f = sizes[i][1], .m = sizes[i][0] + 2};
        struct step s = make("gather", "nf=mf,@n", z);
        for (int64_t j = 0; j < z.n; j++) ((int64_t *)s.in[1].data)[j] = (int64_t)(random_bits() % (uint64_t)z.m);
        check(&s, "gather", ref_gather, 1);
        s = make("scatter", "mf=nf,@n", z);
        fill(&s.out[0], -1, 1);
        for (int64_t j = 0; j < z.n; j++) ((int64_t *)s.in[1].data)[j] = (int64_t)(random_bits() % (uint64_t)z.m);
        check(&s, "scatter", ref_scatter, 0);
    }
}

static void philox_gives_the_published_words(void)
{
    static const uint32_t known[][10] = {
        {0, 0, 0, 0, 0, 0, 0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8},
        {~0u, ~0u, ~0u, ~0u, ~0u, ~0u, 0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd},
        {0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344, 0xa4093822, 0x299f31d0, 0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1},
    };
    for (int i = 0; i < 3; i++) {
        uint32_t words[4];
        philox_reference(known[i], known[i] + 4, words);
        CHECK(!memcmp(words, known[i] + 6, sizeof words), "vector %d", i);
    }
    /* The kernel: element 16 w of the first block has word w of the counter (0, 0, 0, 0). A rate equal to its number keeps
     * it, the next larger one drops it. */
    for (int w = 0; w < 4; w++)
        for (int more = 0; more < 2; more++) {
            const struct sizes z = {.p = 64};
            struct step s = make("dropout", "p=p,@1", z);
            s.attr.rate = (double)((known[0][6 + w] >> 8) + (uint32_t)more) / 16777216;
            fill(&s.in[0], 1, 2);
            *(int64_t *)s.in[1].data = 0;
            run(&s, 1);
            CHECK((((float *)s.out[0].data)[16 * w] == 0) == more, "word %d", w);
            release_arrays("dropout");
        }
}

static void dropout_drops_the_elements_that_its_key_says(void)
{
    static const double rates[] = {0, 0.3, 0.5, 0.9};
    for (int l = 0; l < N_LENGTHS; l++)
        for (int i = 0; i < 4; i++) {
            const struct sizes z = {.p = lengths[l]};
            struct step s = make("dropout", "p=p,@1", z);
            *(int64_t *)s.in[1].data = i == 2 ? (INT64_C(1) << 33) + 7 : i;
            s.attr.rate = rates[i];
            s.attr.seed = UINT64_C(0x8000000000003039) + (uint64_t)l;
            s.attr.stream = (uint32_t)i * 77;
            check(&s, "dropout", ref_dropout, 0);
        }
}

/* --------------------------------------------------------------------------------------------------------- updates */

static void updates_are_right(void)
{
    static const struct {
        const char *name, *shapes;
        reference *expected;
        int squares; /* the output that is a mean of squares */
    } updates[] = {
        {"sgd", "p=p,1", ref_momentum, -1},         {"momentum", "p,p=p,1", ref_momentum, -1},
        {"adam", "p,p,p=p,2", ref_adam, 2},         {"adamw", "p,p,p=p,2", ref_adamw, 2},
        {"rmsprop", "p,p=p,1", ref_rmsprop, 1},     {"rmsprop_momentum", "p,p,p=p,1", ref_rmsprop, 1},
    };
    for (int which = 0; which < 6; which++)
        for (int l = 0; l < 2 * N_LENGTHS; l++) {
            const struct sizes z = {.p = lengths[l / 2]};
            struct step s = make(updates[which].name, updates[which].shapes, z);
            s.attr.momentum = which == 0 || which == 4 ? 0 : 0.9;
            s.attr.nesterov = l % 2 && which == 1;
            s.attr.beta_1 = 0.9;
            s.attr.beta_2 = 0.999;
            s.attr.rho = 0.9;
            s.attr.epsilon = 1e-7;
            s.attr.weight_decay = 0.04;
            for (int o = 0; o < s.outputs; o++) fill(&s.out[o], o == updates[which].squares ? 0.1 : -1, 1);
            ((float *)s.in[1].data)[0] = 0.01f;
            if (s.in[1].size[0] > 1) ((float *)s.in[1].data)[1] = 0.02f;
            if (l % 2) { /* a parameter that has never had a gradient */
                ((float *)s.in[0].data)[0] = 0;
                for (int o = 1; o < s.outputs; o++) ((float *)s.out[o].data)[0] = 0;
            }
            check(&s, updates[which].name, updates[which].expected, 0);
        }
}

/* -------------------------------------------------------------------------------------------------------- programs */

enum { ROWS = 200, BATCH = 64, FEATURES = 40, HIDDEN = 128, BATCHES = 4 }; /* the last batch has 8 rows */
enum { ARENA, X, Y, INDEX, PARAMETERS, RATES, LOSS, PREDICTIONS, BUFFERS };
enum { W1 = 0, B1 = W1 + FEATURES * HIDDEN, W2 = B1 + HIDDEN, B2 = W2 + HIDDEN, COUNT = B2 + 1 };

static float x_data[ROWS * FEATURES], y_data[ROWS], start[COUNT], rates[BATCHES];
static int64_t index_data[ROWS];

struct net {
    struct step steps[16];
    struct binding bindings[80];
    struct program program;
    int64_t arena_size;
    float *arena, parameters[COUNT], predictions[ROWS];
    double loss;
    void *bases[BUFFERS];
};

/* An array of a step: `place` a buffer, or ARENA with its own offset. */
struct operand {
    int buffer, stream, bytes;
    int64_t offset; /* elements */
    int rank, batch;
    int64_t rows, columns;
};

static struct operand in_arena(struct net *net, int64_t rows, int64_t columns, int batch)
{
    struct operand o = {ARENA, 0, 4, net->arena_size, columns ? 2 : 1, batch, rows, columns};
    net->arena_size += (rows * (columns ? columns : 1) + 15) / 16 * 16;
    return o;
}

static struct operand parameter(int64_t offset, int64_t rows, int64_t columns)
{
    return (struct operand){PARAMETERS, 0, 4, offset, columns ? 2 : 1, 0, rows, columns};
}

static struct step *add_step(struct net *net, const char *op, double work, int outputs, int inputs, const struct operand *o)
{
    struct program *p = &net->program;
    struct step *s = &net->steps[p->n_steps];
    CHECK((s->run = dispatch_kernel(op)) != NULL, "%s", op);
    s->outputs = outputs;
    s->inputs = inputs;
    s->work = work;
    for (int i = 0; i < outputs + inputs; i++, o++) {
        struct tensor *t = tensor_of(s, i);
        t->rank = o->rank;
        t->batch = o->batch;
        t->size[0] = o->rows;
        t->size[1] = o->columns;
        int64_t advance = o->bytes * (o->rank == 2 ? o->columns : 1) * (o->batch ? 1 : o->rows);
        program_bind(p, (struct binding){p->n_steps, i, o->buffer, o->stream, o->offset * o->bytes, advance});
    }
    p->n_steps++;
    return s;
}
#define STEP(op, work, outputs, inputs, ...) add_step(net, op, work, outputs, inputs, (const struct operand[]){__VA_ARGS__})

/* Builds the program of one batch: of training, or of prediction into a buffer in the order of the rows. */
static void build(struct net *net, int training)
{
    memset(net, 0, sizeof *net);
    net->program = (struct program){.steps = net->steps, .bindings = net->bindings, .batch = BATCH};
    const double work = 2.0 * BATCH * FEATURES * HIDDEN; /* of the wide products: worth sharing in a full batch only */
    const struct operand all_x = {X, 0, 4, 0, 2, 0, ROWS, FEATURES}, all_y = {Y, 0, 4, 0, 2, 0, ROWS, 1};
    const struct operand index = {INDEX, 1, 8, 0, 1, 1, BATCH, 0}, rate = {RATES, 1, 4, 0, 1, 0, 1, 0};
    const struct operand loss = {LOSS, 0, 8, 0, 1, 0, 1, 0}, out = {PREDICTIONS, 1, 4, 0, 2, 1, BATCH, 1};
    const struct operand w1 = parameter(W1, FEATURES, HIDDEN), b1 = parameter(B1, HIDDEN, 0);
    const struct operand w2 = parameter(W2, HIDDEN, 1), b2 = parameter(B2, 1, 0), all = parameter(0, COUNT, 0);
    const struct operand x = in_arena(net, BATCH, FEATURES, 1), h = in_arena(net, BATCH, HIDDEN, 1);
    STEP("gather", 0, 1, 2, x, all_x, index);
    STEP("dense", work, 1, 3, h, x, w1, b1)->attr.activation = ACT_relu;
    if (!training) {
        STEP("dense", 0, 1, 3, out, h, w2, b2);
    } else {
        const struct operand y = in_arena(net, BATCH, 1, 1), z = in_arena(net, BATCH, 1, 1), rows = in_arena(net, BATCH, 0, 1);
        const struct operand seed = in_arena(net, BATCH, 0, 1), dz = in_arena(net, BATCH, 1, 1);
        const struct operand dh = in_arena(net, BATCH, HIDDEN, 1), g = in_arena(net, COUNT, 0, 0);
        struct operand dw1 = g, db1 = g, dw2 = g, db2 = g;
        dw1 = (struct operand){ARENA, 0, 4, g.offset + W1, 2, 0, FEATURES, HIDDEN};
        db1.offset += B1;
        db1.rows = HIDDEN;
        dw2 = (struct operand){ARENA, 0, 4, g.offset + W2, 2, 0, HIDDEN, 1};
        db2.offset += B2;
        db2.rows = 1;
        STEP("gather", 0, 1, 2, y, all_y, index);
        STEP("dense", 0, 1, 3, z, h, w2, b2);
        STEP("sigmoid_crossentropy", 0, 1, 2, rows, z, y);
        STEP("accumulate", SHARED, 1, 1, loss, rows);
        STEP("mean_seed", 0, 1, 1, seed, rows);
        STEP("sigmoid_crossentropy_dx", 0, 1, 3, dz, seed, z, y);
        STEP("matmul_tn", 0, 1, 2, dw2, h, dz);
        STEP("sum_rows", 0, 1, 1, db2, dz);
        STEP("dense_dx", 0, 1, 3, dh, dz, w2, h)->attr.activation = ACT_relu;
        STEP("matmul_tn", work, 1, 2, dw1, x, dh);
        STEP("sum_rows", SHARED, 1, 1, db1, dh);
        STEP("sgd", SHARED, 1, 2, all, g, rate);
    }
    net->arena = malloc((size_t)net->arena_size * 4);
    memset(net->arena, 0xff, (size_t)net->arena_size * 4);
    memcpy(net->parameters, start, sizeof start);
    memset(net->predictions, 0xff, sizeof net->predictions);
    void *bases[BUFFERS] = {net->arena, x_data, y_data, index_data, net->parameters, rates, &net->loss, net->predictions};
    memcpy(net->bases, bases, sizeof bases);
}

static void make_data(void)
{
    for (int i = 0; i < ROWS * FEATURES; i++) x_data[i] = uniform(-1, 1);
    for (int i = 0; i < ROWS; i++) y_data[i] = (float)(x_data[i * FEATURES] > 0);
    for (int i = 0; i < COUNT; i++) start[i] = uniform(-0.2, 0.2);
    for (int i = 0; i < BATCHES; i++) rates[i] = 0.1f / (float)(i + 1);
    for (int i = 0; i < ROWS; i++) index_data[i] = i * 77 % ROWS;
}

/* The same training in double precision. Returns the sum of the losses. */
static double train_reference(double *p)
{
    double loss = 0;
    for (int i = 0; i < COUNT; i++) p[i] = start[i];
    for (int k = 0; k < BATCHES; k++) {
        const int first = k * BATCH, last = first + BATCH < ROWS ? first + BATCH : ROWS;
        static double g[COUNT];
        memset(g, 0, sizeof g);
        for (int i = first; i < last; i++) {
            const float *x = x_data + index_data[i] * FEATURES;
            double h[HIDDEN], y = y_data[index_data[i]], z = p[B2];
            for (int j = 0; j < HIDDEN; j++) {
                h[j] = p[B1 + j];
                for (int f = 0; f < FEATURES; f++) h[j] += x[f] * p[W1 + f * HIDDEN + j];
                h[j] = fmax(h[j], 0);
                z += h[j] * p[W2 + j];
            }
            loss += fmax(z, 0) - z * y + log1p(exp(-fabs(z)));
            const double dz = (logistic(z) - y) / (last - first);
            g[B2] += dz;
            for (int j = 0; j < HIDDEN; j++) {
                const double dh = h[j] > 0 ? dz * p[W2 + j] : 0;
                g[W2 + j] += dz * h[j];
                g[B1 + j] += dh;
                for (int f = 0; f < FEATURES; f++) g[W1 + f * HIDDEN + j] += x[f] * dh;
            }
        }
        for (int i = 0; i < COUNT; i++) p[i] -= (double)rates[k] * g[i];
    }
    return loss;
}

static void training_gives_the_same_bits_on_any_number_of_lanes(void)
{
    static struct net first, other;
    static double expected[COUNT];
    const double loss = train_reference(expected);
    /* A product of up to HIDDEN terms below 1, a few roundings more on the way through the network, every batch. */
    const double slack = BATCHES * (HIDDEN + 16) * EPS;
    for (int lanes = 1; lanes <= LANES; lanes++) {
        struct net *net = lanes == 1 ? &first : &other;
        CHECK(team_set_size(lanes) == 0, "%d", lanes);
        build(net, 1);
        CHECK(program_run(&net->program, net->bases, 0, BATCHES, BATCH, ROWS, 0) == BATCHES, "all batches");
        for (int i = 0; i < COUNT && lanes == 1; i++)
            CHECK(fabs(net->parameters[i] - expected[i]) < slack, "parameter %d", i);
        CHECK(fabs(net->loss - loss) < slack * ROWS, "%.9g instead of %.9g", net->loss, loss);
        CHECK(!memcmp(net->parameters, first.parameters, sizeof first.parameters), "%d lanes", lanes);
        CHECK(net->loss == first.loss, "%d lanes", lanes);
        free(net->arena);

        build(&other, 1); /* one batch at a time */
        for (int64_t k = 0; k < BATCHES; k++)
            CHECK(program_run(&other.program, other.bases, k, k + 1, BATCH, ROWS, 0) == k + 1, "batch %d", (int)k);
        CHECK(!memcmp(other.parameters, first.parameters, sizeof first.parameters), "in pieces, %d lanes", lanes);
        free(other.arena);
    }
}

static void a_time_limit_stops_between_batches(void)
{
    static struct net whole, net;
    for (int lanes = 1; lanes <= 2; lanes++) {
        CHECK(team_set_size(lanes) == 0, "%d", lanes);
        build(&whole, 1);
        CHECK(program_run(&whole.program, whole.bases, 0, BATCHES, BATCH, ROWS, 1e3) == BATCHES, "time enough");
        build(&net, 1);
        int64_t k = 0;
        for (int calls = 1; k < BATCHES; calls++) {
            const int64_t next = program_run(&net.program, net.bases, k, BATCHES, BATCH, ROWS, 1e-9);
            CHECK(next == k + 1, "one batch at least, and no more: %d after %d", (int)next, (int)k);
            k = next;
        }
        CHECK(!memcmp(net.parameters, whole.parameters, sizeof net.parameters), "%d lanes", lanes);
        CHECK(program_run(&net.program, net.bases, BATCHES, BATCHES, BATCH, ROWS, 0) == BATCHES, "nothing to do");
        free(whole.arena);
        free(net.arena);
    }
}

static void predictions_do_not_depend_on_batches_and_lanes(void)
{
    static struct net net, lane_nets[LANES];
    static float first[ROWS];
    static const int64_t batches[] = {BATCH, 1, 7, 50};
    for (int lanes = 1; lanes <= LANES; lanes++) {
        CHECK(team_set_size(lanes) == 0, "%d", lanes);
        for (int i = 0; i < 4; i++) {
            const int64_t batch = batches[i], count = (ROWS + batch - 1) / batch;
            build(&net, 0);
            CHECK(program_run(&net.program, net.bases, 0, count, batch, ROWS, 0) == count, "all batches");
            if (lanes == 1 && i == 0) memcpy(first, net.predictions, sizeof first);
            CHECK(!memcmp(net.predictions, first, sizeof first), "batches of %d on %d lanes", (int)batch, lanes);
            free(net.arena);

            struct program *programs[LANES];
            void *const *bases[LANES];
            for (int l = 0; l < lanes; l++) {
                build(&lane_nets[l], 0);
                lane_nets[l].bases[PREDICTIONS] = lane_nets[0].predictions;
                programs[l] = &lane_nets[l].program;
                bases[l] = lane_nets[l].bases;
            }
            program_run_apart(programs, bases, lanes, count, batch, ROWS);
            CHECK(!memcmp(lane_nets[0].predictions, first, sizeof first), "apart, %d lanes", lanes);
            for (int l = 0; l < lanes; l++) free(lane_nets[l].arena);
        }
    }
}

static void timing_runs_every_step_once(void)
{
    static struct net timed, net;
    for (int lanes = 1; lanes <= LANES; lanes++)
        for (int64_t rows = 8; rows <= BATCH; rows += BATCH - 8) {
            double seconds[16];
            CHECK(team_set_size(lanes) == 0, "%d", lanes);
            build(&timed, 1);
            build(&net, 1);
            program_time(&timed.program, timed.bases, rows, seconds);
            CHECK(program_run(&net.program, net.bases, 0, 1, BATCH, rows, 0) == 1, "one batch");
            CHECK(!memcmp(timed.parameters, net.parameters, sizeof net.parameters), "%d lanes", lanes);
            for (int i = 0; i < timed.program.n_steps; i++) CHECK(seconds[i] >= 0 && seconds[i] < 60, "step %d", i);
            free(timed.arena);
            free(net.arena);
        }
}

/* -------------------------------------------------------------------------------------------------------- dispatch */

static void unknown_names_are_refused(void)
{
    const struct kernel_table *table = dispatch_table();
    static const char *const unknown[] = {"", "nothing", "matmu", "matmul_", "Dense", "linear_dx"};
    for (int i = 0; i < 6; i++) {
        CHECK(dispatch_kernel(unknown[i]) == NULL, "%s", unknown[i]);
        CHECK(dispatch_activation(unknown[i]) == -1, "%s", unknown[i]);
    }
    CHECK(dispatch_choose("mmx") == -1 && !dispatch_has("mmx") && dispatch_choose("AVX2") == -1, "unknown instruction sets");
    CHECK(dispatch_table() == table, "a refused choice changes nothing");
    CHECK(dispatch_choose(NULL) == 0, "the best");
    const struct kernel_table *best = dispatch_table();
    CHECK(dispatch_choose("base") == 0 && !strcmp(dispatch_table()->isa, "base"), "there is always one");
    CHECK(dispatch_choose("") == 0 && dispatch_table() == best, "the best");
}

static void names_and_codes_go_together(void)
{
    for (int i = 0; i < ACT_COUNT; i++) {
        CHECK(dispatch_activation(functions[i].name) == i, "%s", functions[i].name);
        CHECK(i == ACT_linear || dispatch_kernel(functions[i].name) != NULL, "%s", functions[i].name);
    }
    for (int i = 0; i < N_NAMES; i++) CHECK(dispatch_kernel(names[i]) == dispatch_table()->kernels[i], "%s", names[i]);
}

/* test_core [ISA ...]: the instruction sets to test, all that this machine has by default. */
int main(int argc, char **argv)
{
    static const char *const all[] = {"base", "avx2", "avx512", "neon"};
    alarm(1200); /* a hang is a failure */
    unknown_names_are_refused();
    for (int i = 0; i < 4; i++) {
        int wanted = argc == 1;
        for (int j = 1; j < argc; j++) wanted |= !strcmp(argv[j], all[i]);
        if (!wanted || dispatch_choose(all[i])) continue;
        random_state = 88172645463325252u;
        memset(covered, 0, sizeof covered);
        names_and_codes_go_together();
        products_are_right_at_every_edge_of_tiles_and_blocks();
        biases_are_added_and_summed();
        activations_and_their_gradients_are_right();
        arithmetic_is_right();
        softmax_is_right();
        mean_losses_are_right();
        class_losses_are_right();
        metrics_are_right();
        rows_are_gathered_and_scattered();
        philox_gives_the_published_words();
        dropout_drops_the_elements_that_its_key_says();
        updates_are_right();
        for (int k = 0; k < N_NAMES; k++) CHECK(covered[k], "no test of %s", names[k]);
        make_data();
        training_gives_the_same_bits_on_any_number_of_lanes();
        a_time_limit_stops_between_batches();
        predictions_do_not_depend_on_batches_and_lanes();
        timing_runs_every_step_once();
        printf("test_core: %s passed\n", all[i]);
        fflush(stdout);
    }
    return 0;
}
