/* Pooling. */
#include "reference_pool.h"

/* Channels around vectors; windows that overlap, touch and leave gaps. Padding is smaller than the window. */
static struct sizes random_pool(int number)
{
    static const int64_t channels[] = {1, 2, 3, 4, 5, 7, 8, 9, 15, 16, 17, 31, 32, 33, 64, 72, 130};
    for (;;) {
        struct sizes z = {.n = pick(1, 3), .axes = 1 + number % 3, .c = channels[pick(0, COUNT_OF(channels) - 1)]};
        const int64_t longest = z.axes == 1 ? 90 : z.axes == 2 ? 40 : 9;
        const int usual = random_bits() % 3 == 0; /* 2 or 3 along each axis, with stride 2 */
        for (int a = MAX_SPACE - z.axes; a < MAX_SPACE; a++) {
            z.space[a] = random_bits() % 12 ? pick(1, a == 2 ? longest : longest / 2) : 1;
            z.kernel[a] = usual ? 2 + number % 2 : pick(1, 5);
            z.strides[a] = usual ? 2 : pick(1, 4);
            z.before[a] = random_bits() % 2 ? 0 : pick(0, z.kernel[a] - 1);
            z.after[a] = random_bits() % 2 ? 0 : pick(0, z.kernel[a] - 1);
        }
        int64_t numbers = z.n * z.c;
        for (int a = MAX_SPACE - z.axes; a < MAX_SPACE; a++) numbers *= z.space[a];
        if (fit_windows(&z) && numbers < 12000) return z;
    }
}

/* x: of few numbers, so that many are equal; of many; or with NaN and infinity here and there. */
static void fill_pixels(struct tensor *x, int kind)
{
    static const float special[] = {NAN, INFINITY, -INFINITY, NAN};
    if (kind == 0) fill_whole(x, 2);
    else fill(x, -2, 2);
    for (int64_t i = pick(0, 9); kind == 2 && i < elements(x); i += pick(1, 60)) ((float *)x->data)[i] = special[i % 4];
}

/* y of the pooling whose gradient the step is: as its input 2 from its input 1. */
static void fill_largest(struct step *s)
{
    struct step pool = {.out = {s->in[2]}, .in = {s->in[1]}, .attr = s->attr};
    const size_t n = (size_t)elements(&s->in[2]);
    const struct answer largest = {{malloc(n * sizeof(double))}, {malloc(n * sizeof(double))}};
    ref_max_pool(&pool, &largest);
    for (size_t i = 0; i < n; i++) ((float *)s->in[2].data)[i] = (float)largest.want[0][i];
    free(largest.want[0]);
    free(largest.slack[0]);
}

static void check_pools(const struct sizes *z, int kind, const char *prefix, const char *y)
{
    char name[40], shapes[40];
    snprintf(name, sizeof name, "%smax_pool", prefix);
    snprintf(shapes, sizeof shapes, "%s=nsc", y);
    struct step s = make(name, shapes, *z);
    fill_pixels(&s.in[0], kind);
    check(&s, name, ref_max_pool, ROW_BY_ROW);

    snprintf(name, sizeof name, "%saverage_pool", prefix);
    s = make(name, shapes, *z);
    fill_pixels(&s.in[0], kind % 2);
    check(&s, name, ref_average_pool, ROW_BY_ROW);

    snprintf(name, sizeof name, "%saverage_pool_dx", prefix);
    snprintf(shapes, sizeof shapes, "nsc=%s", y);
    s = make(name, shapes, *z);
    check(&s, name, ref_average_pool_dx, ROW_BY_ROW);

    snprintf(name, sizeof name, "%smax_pool_dx", prefix);
    snprintf(shapes, sizeof shapes, "nsc=%s,nsc,%s", y, y);
    s = make(name, shapes, *z);
    fill_pixels(&s.in[1], kind);
    fill_largest(&s);
    check(&s, name, ref_max_pool_dx, ROW_BY_ROW);
}

static void pools_of_random_windows_are_right(void)
{
    for (int i = 0; i < 360; i += share) {
        const struct sizes z = random_pool(i / share);
        check_pools(&z, i / share / 3 % 3, "", "noc");
    }
}

/* Slabs of an image for several lanes, windows too large to be copied, rows longer than what is copied. */
static void pools_of_uncommon_sizes_are_right(void)
{
    static const struct sizes uncommon[] = {
        {.n = 1, .c = 3, IMAGE(300, 301), .kernel = {0, 2, 2}, .strides = {0, 2, 2}},
        {.n = 1, .c = 16, IMAGE(150, 90), .kernel = {0, 3, 3}, .strides = {0, 2, 2}, .after = {0, 1, 1}},
        {.n = 1, .c = 17, IMAGE(120, 70), .kernel = {0, 3, 3}, .before = {0, 1, 1}, .after = {0, 1, 1}},
        {.n = 1, .c = 1, IMAGE(70, 80), .kernel = {0, 40, 45}, .strides = {0, 9, 7}},
        {.n = 2, .c = 2, SIGNAL(9000), .kernel = {0, 0, 3}, .strides = {0, 0, 2}, .before = {0, 0, 1}},
        {.n = 1, .c = 1, SIGNAL(3000), .kernel = {0, 0, 1500}, .strides = {0, 0, 300}},
        {.n = 1, .c = 9, VOLUME(30, 21, 22), .kernel = {2, 2, 2}, .strides = {2, 2, 2}},
        {.n = 1, .c = 4, VOLUME(41, 19, 20), .kernel = {5, 3, 3}, .strides = {1, 2, 3}, .before = {2, 1, 0}},
        {.n = 1, .c = 2, IMAGE(9, 200), .kernel = {0, 2, 3}, .strides = {0, 5, 7}},
    };
    for (int i = 0; i < COUNT_OF(uncommon); i++) {
        struct sizes z = uncommon[i];
        CHECK(fit_windows(&z), "a window");
        check_pools(&z, i % 3, "", "noc");
    }
}

static void whole_images_are_pooled(void)
{
    static const struct sizes images[] = {
        {.n = 2, .c = 1, SIGNAL(9)}, {.n = 3, .c = 17, SIGNAL(5)},
        {.n = 1, .c = 3, SIGNAL(130)}, {.n = 2, .c = 33, IMAGE(7, 6)},
        {.n = 4, .c = 16, IMAGE(8, 9)}, {.n = 1, .c = 2, IMAGE(19, 21)},
        {.n = 2, .c = 7, VOLUME(3, 4, 5)}, {.n = 3, .c = 72, IMAGE(5, 6)},
        {.n = 2, .c = 1, IMAGE(90, 91)}, {.n = 1, .c = 5, IMAGE(70, 71)},
        {.n = 1, .c = 20, VOLUME(9, 20, 21)}, {.n = 3, .c = 4100, SIGNAL(3)},
        {.n = 2, .c = 9, SIGNAL(1)}, {.n = 1, .c = 1, VOLUME(1, 1, 1)},
    };
    for (int i = 0; i < COUNT_OF(images); i++)
        for (int kind = 0; kind < 3; kind++) check_pools(&images[i], kind, "global_", "nc");
}

void test_pool(void)
{
    pools_of_random_windows_are_right();
    pools_of_uncommon_sizes_are_right();
    whole_images_are_pooled();
}
