/* Convolutions and depthwise convolutions: random windows, and those that take uncommon ways. */
#include "reference_conv.h"

/* Numbers of channels and filters around the widths of vectors and of panels. */
static const int64_t widths[] = {1, 2, 3, 4, 5, 7, 8, 9, 12, 15, 16, 17, 24, 31, 32, 33, 48, 63, 65};

static double multiplications(const struct sizes *z)
{
    double product = (double)(z->n * z->c / z->groups * z->f);
    for (int a = MAX_SPACE - z->axes; a < MAX_SPACE; a++) product *= (double)(z->out[a] * z->kernel[a]);
    return product;
}

/* Some window that fits on a padded input; `most` multiplications at most. Padding may be larger than the window, the window
 * larger than the input, the input one pixel. */
static struct sizes random_window(int number, double most)
{
    for (;;) {
        struct sizes z = {.n = pick(1, 3), .axes = 1 + number % 3, .groups = 1};
        const int64_t longest = z.axes == 1 ? 60 : z.axes == 2 ? 14 : 7, widest = z.axes == 1 ? 9 : z.axes == 2 ? 5 : 3;
        const int pixel = random_bits() % 8 == 0, plain = random_bits() % 4 == 0;
        for (int a = MAX_SPACE - z.axes; a < MAX_SPACE; a++) {
            z.space[a] = pixel ? 1 : pick(1, longest);
            z.kernel[a] = pick(1, widest);
            z.strides[a] = plain ? 1 : pick(1, 3);
            z.dilations[a] = plain || z.kernel[a] == 1 ? 1 : pick(1, 3);
            z.before[a] = random_bits() % 3 ? pick(0, z.kernel[a] / 2) : pick(0, z.kernel[a] + 2);
            z.after[a] = random_bits() % 3 ? z.before[a] : pick(0, z.kernel[a] + 2);
            const int64_t missing = (z.kernel[a] - 1) * z.dilations[a] + 1 - z.space[a] - z.before[a] - z.after[a];
            if (missing > 0) z.after[a] += missing;
        }
        CHECK(fit_windows(&z), "a window");
        z.groups = random_bits() % 4 ? 1 : pick(2, 4);
        z.c = widths[pick(0, COUNT_OF(widths) - 1)] * z.groups;
        z.f = widths[pick(0, COUNT_OF(widths) - 1)] * z.groups;
        if (multiplications(&z) <= most) return z;
    }
}

/* Whole numbers show every product that is missing or twice there; others, the rounding. */
static void fill_inputs(struct step *s, int whole)
{
    for (int i = 0; i < 2; i++) {
        if (whole) fill_whole(&s->in[i], 3);
        else fill(&s->in[i], -1, 1);
    }
}

static void check_fused(struct step *s, const char *what, int number, reference *expected, double terms)
{
    s->attr.activation = number % ACT_COUNT;
    fill(&s->in[1], -2 / sqrt(terms), 2 / sqrt(terms));
    check(s, what, expected, ROW_BY_ROW);
}

static void check_conv(const struct sizes *z, int number)
{
    double terms = (double)(z->c / z->groups), pixels = (double)(z->n * z->f);
    for (int a = MAX_SPACE - z->axes; a < MAX_SPACE; a++) {
        terms *= (double)z->kernel[a];
        pixels *= (double)z->space[a];
    }
    const int whole = number % 4 != 3;
    struct step s = make("conv", "nof=nsc,wgf", *z);
    fill_inputs(&s, whole);
    check(&s, "conv", ref_conv, ROW_BY_ROW);
    s = make("conv_dw", "wgf=nsc,nof", *z);
    fill_inputs(&s, whole);
    give_workspace(&s, conv_dw_workspace(&s.out[0]));
    check(&s, "conv_dw", ref_conv_dw, 0);
    s = make("fused_conv", number % 5 ? "nof=nsc,wgf,f" : "nof=nsc,wgf", *z);
    check_fused(&s, "fused_conv", number, ref_conv, terms);
    if (pixels * terms > 1e7) return; /* each pixel meets each element of the window, be it in a zero: that takes long */
    s = make("conv_dx", "nsc=nof,wgf", *z);
    fill_inputs(&s, whole);
    check(&s, "conv_dx", ref_conv_dx, ROW_BY_ROW);
    s = make("fused_conv_transpose", number % 5 ? "nsc=nof,wgf,c" : "nsc=nof,wgf", *z);
    check_fused(&s, "fused_conv_transpose", number, ref_conv_transpose, terms);
    s = make("fused_conv_dx", "nsc=nof,wgf,nsc", *z);
    fill(&s.in[2], number % ACT_COUNT == ACT_softplus ? 0 : -1, 1);
    check_fused(&s, "fused_conv_dx", number, ref_conv_dx, terms);
}

static void convolutions_of_random_windows_are_right(void)
{
    for (int i = 0; i < 420; i += share) {
        const struct sizes z = random_window(i / share, 2e5);
        check_conv(&z, i / share);
    }
}

/* What makes csrc/conv.c cut rows and columns, take the elements of a window one after the other, sum in several passes, or
 * pack weights again and again. */
static void convolutions_of_uncommon_sizes_are_right(void)
{
    static const struct sizes uncommon[] = {
        {.n = 2, .c = 2, .f = 3, IMAGE(301, 301), .kernel = {0, 300, 301}}, /* huge windows */
        {.n = 1, .c = 2, .f = 5, IMAGE(190, 200), .kernel = {0, 201, 205}, .before = {0, 9, 8}, .after = {0, 3, 1}},
        {.n = 1, .c = 3, .f = 2, SIGNAL(70001), .kernel = {0, 0, 70000}},
        {.n = 2, .c = 1, .f = 9, VOLUME(40, 50, 60), .kernel = {40, 49, 59}},
        {.n = 2, .c = 3, .f = 5, SIGNAL(120100), .kernel = {0, 0, 3}, .dilations = {0, 0, 60000}}, /* far apart */
        {.n = 1, .c = 5, .f = 4, IMAGE(50, 18100), .kernel = {0, 3, 3}, .dilations = {0, 24, 9000},
         .before = {0, 0, 30}},
        {.n = 2, .c = 9, .f = 17, IMAGE(3, 2100), .kernel = {0, 3, 5}, .before = {0, 1, 2}, .after = {0, 1, 2}}, /* wide */
        {.n = 1, .c = 17, .f = 2, IMAGE(4, 2500), .kernel = {0, 3, 3}, .before = {0, 1, 1}, .after = {0, 1, 1}},
        {.n = 1, .c = 1, .f = 9, IMAGE(61, 63), .kernel = {0, 3, 3}, .before = {0, 1, 1}, .after = {0, 1, 1}},
        {.n = 2, .c = 1, .f = 3, SIGNAL(5000), .kernel = {0, 0, 7}, .strides = {0, 0, 2}},
        {.n = 2, .c = 100003, .f = 2, IMAGE(1, 2), .kernel = {0, 1, 1}}, /* channels */
        {.n = 1, .c = 40000, .f = 2, SIGNAL(5), .kernel = {0, 0, 1}},
        {.n = 1, .c = 140001, .f = 1, SIGNAL(2), .kernel = {0, 0, 2}, .after = {0, 0, 1}},
        {.n = 1, .c = 2, .f = 100005, SIGNAL(3), .kernel = {0, 0, 2}},
        {.n = 2, .c = 1000, .f = 2, IMAGE(4, 3), .kernel = {0, 9, 9}, .before = {0, 4, 4}, .after = {0, 4, 4}},
        {.n = 2, .c = 2, .f = 1000, IMAGE(4, 3), .kernel = {0, 9, 9}, .before = {0, 4, 4}, .after = {0, 4, 4}},
        {.n = 3, .c = 66, .f = 4100, IMAGE(2, 2), .kernel = {0, 3, 3}, .before = {0, 1, 1}}, /* weights */
        {.n = 9, .c = 34, .f = 300, IMAGE(3, 3), .kernel = {0, 3, 3}, .before = {0, 1, 1}, .after = {0, 1, 1}},
        {.n = 8, .c = 3, .f = 33, IMAGE(35, 33), .kernel = {0, 3, 3}, .before = {0, 1, 1}, .after = {0, 1, 1}},
        {.n = 2, .c = 12, .f = 36, .groups = 12, IMAGE(20, 21), .kernel = {0, 4, 4}, .strides = {0, 4, 5},
         .dilations = {0, 2, 5}},
        {.n = 1, .c = 3, .f = 4, IMAGE(9, 11), .kernel = {0, 3, 2}, .strides = {0, 7, 20}, .before = {0, 2, 0}},
        {.n = 1, .c = 2, .f = 3, VOLUME(5, 6, 7), .kernel = {2, 3, 4}, .strides = {9, 1, 2}, .after = {40, 30, 20}},
    };
    for (int i = 0; i < COUNT_OF(uncommon); i++) {
        struct sizes z = uncommon[i];
        z.groups += !z.groups;
        CHECK(fit_windows(&z), "a window");
        check_conv(&z, 4 * i); /* of whole numbers */
    }
}

/* Groups of so few channels and filters that several share a vector. */
static void convolutions_of_many_groups_are_right(void)
{
    for (int i = 0; i < 420; i += share) {
        struct sizes z;
        do {
            z = random_window(i / share, INFINITY);
            z.groups = pick(2, 19);
            z.c = pick(1, i % 3 ? 9 : 33) * z.groups;
            z.f = pick(1, i % 3 ? 9 : 18) * z.groups;
        } while (multiplications(&z) > 2e5);
        check_conv(&z, i / share);
    }
}

/* What makes csrc/grouped.c copy channels in several ranges, cut rows and columns, pack weights of a range, or leave groups
 * one after the other. */
static void convolutions_of_groups_of_uncommon_sizes_are_right(void)
{
    static const struct sizes uncommon[] = {
        {.n = 1, .c = 640, .f = 640, .groups = 160, IMAGE(9, 12), .kernel = {0, 3, 3}, .before = {0, 1, 1}, .after = {0, 1, 1}},
        {.n = 2, .c = 1300, .f = 1300, .groups = 1300, SIGNAL(9), .kernel = {0, 0, 3}},
        {.n = 2, .c = 96, .f = 48, .groups = 12, IMAGE(3, 700), .kernel = {0, 3, 3}, .before = {0, 1, 1}, .after = {0, 1, 1}},
        {.n = 3, .c = 10, .f = 10, .groups = 5, SIGNAL(20000), .kernel = {0, 0, 5}, .strides = {0, 0, 2}},
        {.n = 1, .c = 65536, .f = 4096, .groups = 1024, IMAGE(2, 2), .kernel = {0, 3, 3}, .before = {0, 1, 1},
         .after = {0, 1, 1}},
        {.n = 1, .c = 8192, .f = 8, .groups = 2, SIGNAL(9), .kernel = {0, 0, 9}, .before = {0, 0, 4}, .after = {0, 0, 4}},
        {.n = 2, .c = 24, .f = 16, .groups = 8, SIGNAL(900), .kernel = {0, 0, 90}, .dilations = {0, 0, 7}},
        {.n = 2, .c = 6, .f = 9, .groups = 3, SIGNAL(120100), .kernel = {0, 0, 3}, .dilations = {0, 0, 60000}},
        {.n = 2, .c = 18, .f = 27, .groups = 9, VOLUME(6, 7, 33), .kernel = {3, 3, 3}, .before = {1, 1, 1}, .after = {1, 1, 1}},
        {.n = 2, .c = 9, .f = 12, .groups = 3, VOLUME(9, 8, 2), .kernel = {3, 2, 2}, .dilations = {2, 3, 1}, .after = {0, 0, 1}},
        {.n = 9, .c = 21, .f = 14, .groups = 7, IMAGE(14, 15), .kernel = {0, 3, 3}, .strides = {0, 2, 1}, .before = {0, 1, 1}},
    };
    for (int i = 0; i < COUNT_OF(uncommon); i++) {
        struct sizes z = uncommon[i];
        CHECK(fit_windows(&z), "a window");
        check_conv(&z, 4 * i); /* of whole numbers */
    }
}

static void check_depthwise(const struct sizes *z, int number)
{
    double terms = 1;
    for (int a = MAX_SPACE - z->axes; a < MAX_SPACE; a++) terms *= (double)z->kernel[a];
    const int whole = number % 4 != 3;
    struct step s = make("depthwise_conv", "noe=nsc,wcm", *z);
    fill_inputs(&s, whole);
    check(&s, "depthwise_conv", ref_depthwise, ROW_BY_ROW);
    s = make("depthwise_conv_dx", "nsc=noe,wcm", *z);
    fill_inputs(&s, whole);
    check(&s, "depthwise_conv_dx", ref_depthwise_dx, ROW_BY_ROW);
    s = make("depthwise_conv_dw", "wcm=nsc,noe", *z);
    fill_inputs(&s, whole);
    give_workspace(&s, depthwise_dw_workspace(&s.in[1], &s.out[0]));
    check(&s, "depthwise_conv_dw", ref_depthwise_dw, 0);
    s = make("fused_depthwise_conv", number % 5 ? "noe=nsc,wcm,e" : "noe=nsc,wcm", *z);
    check_fused(&s, "fused_depthwise_conv", number, ref_depthwise, terms);
}

static void depthwise_convolutions_of_random_windows_are_right(void)
{
    for (int i = 0; i < 420; i += share) {
        struct sizes z = random_window(i / share, INFINITY);
        if (i / share % 3 && z.axes > 1) z.space[2] = pick(1, 40); /* several outputs side by side */
        if (!fit_windows(&z)) z.after[2] = (z.kernel[2] - 1) * z.dilations[2] + 1;
        CHECK(fit_windows(&z), "a window");
        z.groups = 1;
        z.c = widths[pick(0, COUNT_OF(widths) - 1)];
        z.m = i / share % 2 ? 1 : i / share % 4 ? pick(2, 5) : pick(6, 35);
        if (z.m > 1 && z.c * z.m > 150) z.c = 1 + z.c % 4;
        check_depthwise(&z, i / share);
    }
}

/* Sums over pixels in several parts, many channels, windows far larger than is common. */
static void depthwise_convolutions_of_uncommon_sizes_are_right(void)
{
    static const struct sizes uncommon[] = {
        {.n = 2, .c = 3, .m = 1, IMAGE(40, 41), .kernel = {0, 3, 3}, .before = {0, 1, 1}, .after = {0, 1, 1}},
        {.n = 3, .c = 17, .m = 1, IMAGE(24, 23), .kernel = {0, 3, 3}, .before = {0, 1, 1}, .after = {0, 1, 1}},
        {.n = 2, .c = 16, .m = 1, IMAGE(28, 30), .kernel = {0, 5, 5}, .strides = {0, 1, 1}, .before = {0, 2, 2},
         .after = {0, 2, 2}},
        {.n = 2, .c = 5, .m = 3, IMAGE(33, 35), .kernel = {0, 2, 3}},
        {.n = 1, .c = 1, .m = 1, SIGNAL(40000), .kernel = {0, 0, 3}},
        {.n = 1, .c = 70, .m = 1, SIGNAL(1100), .kernel = {0, 0, 7}, .strides = {0, 0, 2}},
        {.n = 2, .c = 1, .m = 40, SIGNAL(700), .kernel = {0, 0, 3}},
        {.n = 2, .c = 1030, .m = 1, IMAGE(4, 5), .kernel = {0, 3, 3}, .before = {0, 1, 1}, .after = {0, 1, 1}},
        {.n = 1, .c = 3, .m = 1100, SIGNAL(9), .kernel = {0, 0, 3}, .before = {0, 0, 1}, .after = {0, 0, 1}},
        {.n = 1, .c = 2, .m = 70000, SIGNAL(2), .kernel = {0, 0, 2}, .before = {0, 0, 1}},
        {.n = 1, .c = 2, .m = 1, IMAGE(200, 210), .kernel = {0, 200, 201}},
        {.n = 2, .c = 3, .m = 2, SIGNAL(20010), .kernel = {0, 0, 3}, .dilations = {0, 0, 10000}},
        {.n = 1, .c = 8, .m = 1, IMAGE(9, 30), .kernel = {0, 3, 3}, .strides = {0, 5, 4}, .before = {0, 1, 1}},
    };
    for (int i = 0; i < COUNT_OF(uncommon); i++) {
        struct sizes z = uncommon[i];
        CHECK(fit_windows(&z), "a window");
        check_depthwise(&z, 4 * i);
    }
}

void test_conv(void)
{
    convolutions_of_random_windows_are_right();
    convolutions_of_uncommon_sizes_are_right();
    convolutions_of_many_groups_are_right();
    convolutions_of_groups_of_uncommon_sizes_are_right();
    depthwise_convolutions_of_random_windows_are_right();
    depthwise_convolutions_of_uncommon_sizes_are_right();
}
