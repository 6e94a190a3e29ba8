/* Winograd's algorithm. */
#include "reference_winograd.h"

/* u = the transformed weights, rounded once. */
static void fill_transformed(struct tensor *u, const struct tensor *w, int flip)
{
    const size_t n = (size_t)elements(u);
    double *exact = malloc(n * sizeof *exact), *size = malloc(n * sizeof *size);
    transform_weights(exact, size, w, flip);
    for (size_t i = 0; i < n; i++) ((float *)u->data)[i] = (float)exact[i];
    free(exact);
    free(size);
}

/* The shape of the transformed weights, in letters p m k q: points, panels, KD * C, 32. */
static void set_transformed(struct sizes *z, int64_t channels, int64_t filters)
{
    z->p = z->axes > 1 && z->kernel[1] > 1 ? 36 : 6;
    z->m = panels_of(filters);
    z->k = (z->axes == 3 ? z->kernel[0] : 1) * channels;
    z->groups = 32;
}

static struct tensor tensor_with(const float *data, struct tensor shape)
{
    shape.data = (void *)(uintptr_t)data;
    return shape;
}

/* Gives a step the weights w; with flip those which become w, flipped: turned round along the kernel, C and F exchanged. */
static void give_plain(struct step *s, const struct tensor *w, const int64_t *kernel, int flip)
{
    const int64_t f = last_size(w), c = w->size[w->rank - 2], taps = elements(w) / (c * f);
    const float *from = w->data;
    float *to = s->in[1].data;
    s->attr.flip = flip;
    for (int a = 0; a < MAX_SPACE; a++) s->attr.kernel[a] = kernel[a] ? kernel[a] : 1;
    for (int64_t i = 0; i < elements(w); i++) {
        const int64_t tap = i / (c * f), channel = i / f % c, filter = i % f;
        to[flip ? ((taps - 1 - tap) * f + filter) * c + channel : i] = from[i];
    }
}

/* The same with the weights themselves. */
static void check_plain(struct sizes z, const struct tensor *w, int number, int pooled)
{
    struct step s;
    const int flip = number % 2;
    if (pooled) {
        s = make("winograd_conv_pool", flip ? "nof=nsc,wfc,f" : "nof=nsc,wcf", z);
        give_plain(&s, w, z.kernel, flip);
        s.attr.activation = number % 3 ? ACT_relu : ACT_linear;
        check(&s, "winograd_conv_pool", ref_winograd_conv_pool, ROW_BY_ROW);
        return;
    }
    s = make("winograd_conv", flip ? "nof=nsc,wfc" : "nof=nsc,wcf,f", z);
    give_plain(&s, w, z.kernel, flip);
    s.attr.activation = number % ACT_COUNT;
    check(&s, "winograd_conv", ref_winograd_conv, ROW_BY_ROW);
    s = make("winograd_conv_dx", flip ? "nof=nsc,wcf,nof" : "nof=nsc,wfc,nof", z);
    give_plain(&s, w, z.kernel, !flip);
    s.attr.activation = (number + 1) % ACT_COUNT;
    fill(&s.in[2], s.attr.activation == ACT_softplus ? 0 : -1, 1);
    check(&s, "winograd_conv_dx", ref_winograd_conv, ROW_BY_ROW);
}

static void check_winograd(const struct sizes *given, int number)
{
    struct sizes z = *given;
    for (int flip = 0; flip < 2; flip++) {
        set_transformed(&z, flip ? z.f : z.c, flip ? z.c : z.f);
        struct step s = make("winograd_weights", "pmkq=wcf", z);
        s.attr.flip = flip;
        check(&s, "winograd_weights", ref_winograd_weights, 0);
    }
    set_transformed(&z, z.c, z.f);

    struct step s = make("winograd_conv_dw", "wcf=nsc,nof", z);
    const struct tensor shape = s.out[0];
    float *w = malloc((size_t)elements(&shape) * sizeof *w);
    for (int64_t i = 0; i < elements(&shape); i++) w[i] = uniform(-0.3, 0.3);
    const struct tensor weights = tensor_with(w, shape);
    plain_weights = &weights;
    give_workspace(&s, winograd_dw_workspace(&s.in[0], &s.out[0]));
    check(&s, "winograd_conv_dw", ref_winograd_conv_dw, 0);

    s = make("winograd_conv", number % 4 == 3 ? "nof=nsc,pmkq" : "nof=nsc,pmkq,f", z);
    fill_transformed(&s.in[1], &weights, 0);
    s.attr.activation = number % ACT_COUNT;
    check(&s, "winograd_conv", ref_winograd_conv, ROW_BY_ROW);

    const int flat = z.axes == 1 || z.kernel[1] == 1;
    z.out[2] /= 2;
    if (!flat) z.out[1] /= 2;
    if (z.out[2] && (z.axes == 1 || z.out[1])) {
        s = make("winograd_conv_pool", number % 4 == 3 ? "nof=nsc,pmkq" : "nof=nsc,pmkq,f", z);
        fill_transformed(&s.in[1], &weights, 0);
        s.attr.activation = number % 2 ? ACT_relu : ACT_linear;
        check(&s, "winograd_conv_pool", ref_winograd_conv_pool, ROW_BY_ROW);
        check_plain(z, &weights, number, 1);
    }
    memcpy(z.out, given->out, sizeof z.out);
    check_plain(z, &weights, number, 0);

    s = make("winograd_conv_dx", "nof=nsc,pmkq,nof", z);
    fill_transformed(&s.in[1], &weights, 0);
    s.attr.activation = (number + 1) % ACT_COUNT;
    fill(&s.in[2], s.attr.activation == ACT_softplus ? 0 : -1, 1);
    check(&s, "winograd_conv_dx", ref_winograd_conv, ROW_BY_ROW);
    free(w);
}

/* Multiplications of the tiles. */
static double tile_products(const struct sizes *z)
{
    double product = (double)(z->n * z->c * z->f) * (z->axes == 3 ? (double)z->kernel[0] : 1);
    for (int a = MAX_SPACE - z->axes; a < MAX_SPACE; a++) {
        const int64_t m = 7 - z->kernel[a];
        product *= (double)(a == 0 || z->kernel[a] == 1 ? z->out[a] : (z->out[a] + m - 1) / m * 6);
    }
    return product;
}

static struct sizes random_tiles(int number, double most)
{
    static const int64_t widths[] = {1, 2, 3, 4, 5, 7, 8, 9, 15, 16, 17, 31, 32, 33, 40, 63, 65, 70};
    for (;;) {
        struct sizes z = {.n = pick(1, 3), .axes = 1 + number % 3};
        const int64_t taps = number % 4 == 3 ? 5 : 3, longest = z.axes == 1 ? 80 : z.axes == 2 ? 20 : 9;
        for (int a = MAX_SPACE - z.axes; a < MAX_SPACE; a++) {
            z.kernel[a] = a == 0 ? pick(1, 4) : taps;
            z.space[a] = random_bits() % 8 ? pick(1, longest) : 1;
            z.before[a] = pick(0, z.kernel[a] - 1);
            z.after[a] = random_bits() % 2 ? z.before[a] : pick(0, z.kernel[a] - 1);
            const int64_t missing = z.kernel[a] - z.space[a] - z.before[a] - z.after[a];
            if (missing > 0) z.after[a] += missing;
        }
        if (z.axes > 1 && number % 7 == 6) { /* only W is transformed */
            z.kernel[1] = 1;
            z.before[1] = z.after[1] = 0;
        }
        CHECK(fit_windows(&z), "a window");
        z.c = widths[pick(0, COUNT_OF(widths) - 1)];
        z.f = widths[pick(0, COUNT_OF(widths) - 1)];
        if (tile_products(&z) <= most) return z;
    }
}

static void convolutions_of_random_tiles_are_right(void)
{
    for (int i = 0; i < 120; i += share) {
        const struct sizes z = random_tiles(i / share, 1e6);
        check_winograd(&z, i / share);
    }
}

/* More channels, filters and tiles than one block has. */
static void convolutions_of_many_blocks_are_right(void)
{
    static const struct sizes large[] = {
        {.n = 3, .c = 3, .f = 9, IMAGE(61, 62), .kernel = {0, 3, 3}, .before = {0, 1, 1}, .after = {0, 1, 1}},
        {.n = 2, .c = 33, .f = 16, IMAGE(31, 45), .kernel = {0, 3, 3}, .before = {0, 1, 1}, .after = {0, 1, 1}},
        {.n = 1, .c = 530, .f = 33, IMAGE(9, 10), .kernel = {0, 3, 3}, .before = {0, 1, 1}, .after = {0, 1, 1}},
        {.n = 1, .c = 17, .f = 300, IMAGE(8, 9), .kernel = {0, 3, 3}, .before = {0, 1, 1}, .after = {0, 1, 1}},
        {.n = 1, .c = 200, .f = 130, IMAGE(5, 6), .kernel = {0, 5, 5}, .before = {0, 2, 2}, .after = {0, 2, 2}},
        {.n = 2, .c = 40, .f = 65, SIGNAL(1500), .kernel = {0, 0, 3}},
        {.n = 1, .c = 700, .f = 40, SIGNAL(61), .kernel = {0, 0, 5}, .before = {0, 0, 2}, .after = {0, 0, 2}},
        {.n = 1, .c = 180, .f = 20, VOLUME(5, 6, 7), .kernel = {3, 3, 3}, .before = {1, 1, 1}, .after = {1, 1, 1}},
    };
    for (int i = 0; i < COUNT_OF(large); i++) {
        struct sizes z = large[i];
        CHECK(fit_windows(&z), "a window");
        check_winograd(&z, i + 1);
    }
}

/* Weights that fill the caches, and as many tiles as a product can have rows. */
static void convolutions_of_few_tiles_and_many_weights_are_right(void)
{
    for (int64_t tiles = 1; tiles <= 14; tiles += share)
        for (int64_t f = 16; f <= 20; f += 4) {
            const struct sizes z = {.n = 1, .c = 180, .f = f, IMAGE(4, 4 * tiles + 1), .kernel = {0, 3, 3},
                                    .before = {0, 1, 1}, .after = {0, 1, 0}, .out = {0, 4, 4 * tiles}};
            check_winograd(&z, (int)tiles);
        }
}

void test_winograd(void)
{
    convolutions_of_random_tiles_are_right();
    convolutions_of_many_blocks_are_right();
    convolutions_of_few_tiles_and_many_weights_are_right();
}
