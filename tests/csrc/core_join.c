/* Joining along an axis, parts. */
#include "reference_join.h"

/* A join of (n, before, sizes[i], behind) along axis 2. */
struct joining {
    int64_t n, before, behind;
    int count;
    int64_t sizes[MAX_INPUTS];
};

static void set_shape(struct tensor *t, const struct joining *j, int64_t size)
{
    const int64_t shape[] = {j->n, j->before, size, j->behind};
    t->rank = 4;
    memcpy(t->size, shape, sizeof shape);
}

static void check_join(const struct joining *j)
{
    static const char *const shapes[] = {"np=nk,nf", "np=nk,nf,nc", "np=nk,nf,nc,nm", "np=nk,nf,nc,nm,nq", "np=nk,nf,nc,nm,nq,ns"};
    const int64_t each = j->before * j->behind, *sizes = j->sizes;
    int64_t whole = 0;
    for (int i = 0; i < j->count; i++) whole += sizes[i];
    const struct sizes z = {.n = j->n, .p = whole * each, .k = sizes[0] * each, .f = sizes[1] * each, .c = sizes[2] * each,
                            .m = sizes[3] * each, .groups = sizes[4] * each, SIGNAL(sizes[5] * each)};
    struct step s = make("concatenate", shapes[j->count - 2], z);
    s.attr.axis = 2;
    set_shape(&s.out[0], j, whole);
    for (int i = 0; i < j->count; i++) set_shape(&s.in[i], j, sizes[i]);
    check(&s, "concatenate", ref_concatenate, ROW_BY_ROW);
    int64_t start = 0;
    for (int i = 0; i < j->count; start += sizes[i++]) {
        const struct sizes one = {.n = j->n, .p = whole * each, .k = sizes[i] * each};
        s = make("part", "nk=np", one);
        s.attr.axis = 2;
        s.attr.start = start;
        set_shape(&s.out[0], j, sizes[i]);
        set_shape(&s.in[0], j, whole);
        check(&s, "part", ref_part, ROW_BY_ROW);
        s = make("embed", "np=nk", one);
        s.attr.axis = 2;
        s.attr.start = start;
        set_shape(&s.out[0], j, whole);
        set_shape(&s.in[0], j, sizes[i]);
        check(&s, "embed", ref_embed, ROW_BY_ROW);
    }
}

static void arrays_are_joined_and_taken_apart(void)
{
    static const int64_t sizes[] = {1, 2, 3, 4, 5, 7, 8, 9, 12, 15, 16, 17, 24, 31, 32, 33, 48, 64, 70};
    enum { N = COUNT_OF(sizes) };
    for (int i = 0; i < N; i++)
        for (int k = i % share; k < N; k += share) {
            const struct joining two = {.n = 3, .before = 7, .behind = 1, .count = 2, .sizes = {sizes[i], sizes[k]}};
            check_join(&two);
        }
    for (int turn = 0; turn < 60 / share; turn++) {
        struct joining j = {.n = pick(1, 4), .before = pick(1, 9), .behind = pick(1, turn % 3 ? 3 : 20), .count = (int)pick(2, 6)};
        for (int i = 0; i < MAX_INPUTS; i++) j.sizes[i] = pick(1, turn % 4 ? 9 : 40);
        check_join(&j);
    }
    static const struct joining large[] = {
        {3, 1, 1, 2, {16384, 7}},     {2, 1, 1, 3, {5, 40000, 20000}}, {1, 1, 700, 2, {30, 47}},
        {2, 1000, 1, 3, {3, 16, 2}},  {2, 9000, 1, 2, {1, 1}},         {1, 3000, 4, 6, {1, 2, 1, 3, 1, 1}},
        {2, 300, 1, 4, {48, 64, 32, 96}},
    };
    for (int i = 0; i < COUNT_OF(large); i++) check_join(&large[i]);
}

/* So large that they are written past the caches. */
static void large_arrays_are_joined(void)
{
    static const struct joining large[] = {
        {2, 5000, 1, 2, {128, 96}}, {1, 1, 1, 2, {1 << 20, (1 << 20) + 48}}, {1, 70000, 1, 3, {16, 1, 15}},
    };
    for (int i = 0; i < COUNT_OF(large); i++) check_join(&large[i]);
}

void test_join(void)
{
    arrays_are_joined_and_taken_apart();
    if (share == 1) large_arrays_are_joined();
}
