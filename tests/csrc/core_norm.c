/* Normalization. */
#include "reference_norm.h"

/* Channels around vectors; places around what is summed at a time, and around chunks. */
static const struct sizes shapes[] = {
    {.n = 5, .c = 1}, {.n = 7, .c = 3}, {.n = 9, .c = 4}, {.n = 4, .c = 7}, {.n = 17, .c = 8}, {.n = 8, .c = 9},
    {.n = 3, .c = 15}, {.n = 33, .c = 16}, {.n = 6, .c = 17}, {.n = 1, .c = 6}, {.n = 70, .c = 5}, {.n = 12, .c = 33},
    {.n = 3, .c = 2, SIGNAL(5)}, {.n = 4, .c = 15, SIGNAL(9)},
    {.n = 3, .c = 8, IMAGE(4, 5)}, {.n = 3, .c = 24, SIGNAL(31)},
    {.n = 4, .c = 3, IMAGE(9, 7)}, {.n = 3, .c = 6, VOLUME(2, 3, 4)},
    {.n = 130, .c = 64}, {.n = 5, .c = 1040}, {.n = 3, .c = 4, IMAGE(20, 20)},
    {.n = 3, .c = 160, IMAGE(11, 13)}, {.n = 2, .c = 1100, SIGNAL(37)},
    {.n = 2, .c = 1030, SIGNAL(70)}, {.n = 1, .c = 3, IMAGE(160, 170)},
    {.n = 1, .c = 500, SIGNAL(520)}, {.n = 2, .c = 2100, SIGNAL(3)},
    {.n = 1, .c = 1}, {.n = 2, .c = 3, SIGNAL(1200)},
};

static const double epsilons[] = {1e-3, 1e-5};

/* Of each channel, numbers around one of its own; some channels of one number only. */
static void fill_channels(struct tensor *x, double mean)
{
    const int64_t c = last_size(x);
    for (int64_t j = 0; j < c; j++) {
        const double middle = mean * uniform(0.5, 1.5), width = j % 7 == 6 ? 0 : uniform(0.2, 2);
        for (int64_t i = j; i < elements(x); i += c) ((float *)x->data)[i] = (float)middle + uniform(-width, width);
    }
}

/* m = the moments of x, rounded: (2, C) of a batch, (N, 2, G) of groups. */
static void fill_moments(float *m, const struct tensor *x, const struct items *z)
{
    const size_t n = (size_t)(z->n * 2 * z->groups);
    double *exact = malloc(n * sizeof *exact);
    find_moments(exact, x->data, z);
    for (size_t i = 0; i < n; i++) m[i] = (float)exact[i];
    free(exact);
}

/* The step's attributes and inputs: x and its moments, gamma from -2 to 2, sums as large as places make them. */
static void fill_normalized(struct step *s, int number, int x, int m, int gamma, int sums, const struct items *z)
{
    s->attr.epsilon = epsilons[number % 2];
    if (x >= 0) fill_channels(&s->in[x], number % 3 ? 1 : 30);
    if (x >= 0 && m >= 0) fill_moments(s->in[m].data, &s->in[x], z);
    if (gamma >= 0) fill(&s->in[gamma], -2, 2);
    if (sums >= 0) fill(&s->in[sums], -sqrt((double)z->s), sqrt((double)z->s));
}

/* g = 0 where the sign of what relu sees may be that of a rounding error. */
static void clear_gradients(struct step *s)
{
    const struct items z = batch_of(&s->in[1]);
    for (int64_t i = 0; i < elements(&s->in[1]); i++) {
        const struct deviation v = deviation_of(s, &z, (const float *)s->in[1].data, (const float *)s->in[2].data,
                                                (const float *)s->in[2].data + z.c, i);
        const double y = ((const float *)s->in[3].data)[i % z.c] * v.d * v.inv, shift = ((const float *)s->in[4].data)[i % z.c];
        if (fabs(y + shift) <= 8 * EPS * (fabs(y) + fabs(shift))) ((float *)s->in[0].data)[i] = 0;
    }
}

static void batches_are_normalized(void)
{
    for (int i = 0; i < COUNT_OF(shapes); i++) {
        struct step s = make("moments", "2c=nsc", shapes[i]);
        const struct items z = batch_of(&s.in[0]);
        const int64_t memory = norm_workspace(&z);
        for (int mean = 0; mean < 2; mean++) {
            if (mean) s = make("moments", "2c=nsc", shapes[i]);
            fill_channels(&s.in[0], mean ? 1000 : 1);
            give_workspace(&s, memory);
            check(&s, "moments", ref_moments, 0);
        }
        s = make("batch_norm", "nsc=nsc,2c,c,c", shapes[i]);
        fill_normalized(&s, i, 0, 1, 2, -1, &z);
        check(&s, "batch_norm", ref_batch_norm, ROW_BY_ROW | IN_PLACE);
        s = make("batch_norm_sums", "2c=nsc,nsc,2c", shapes[i]);
        fill_normalized(&s, i, 1, 2, -1, -1, &z);
        give_workspace(&s, memory);
        check(&s, "batch_norm_sums", ref_batch_norm_sums, 0);
        s = make("batch_norm_dx", "nsc=nsc,nsc,2c,c,2c", shapes[i]);
        fill_normalized(&s, i, 1, 2, 3, 4, &z);
        check(&s, "batch_norm_dx", ref_batch_norm_dx, IN_PLACE);

        s = make("fused_batch_norm", "nsc=nsc,2c,c,c", shapes[i]);
        fill_normalized(&s, i, 0, 1, 2, -1, &z);
        s.attr.activation = i % ACT_COUNT;
        check(&s, "fused_batch_norm", ref_batch_norm, ROW_BY_ROW | IN_PLACE);
        s = make("fused_batch_norm_sums", "2c=nsc,nsc,2c,c,c", shapes[i]);
        fill_normalized(&s, i, 1, 2, 3, -1, &z);
        s.attr.activation = ACT_relu;
        clear_gradients(&s);
        give_workspace(&s, memory);
        check(&s, "fused_batch_norm_sums", ref_batch_norm_sums, 0);
        s = make("fused_batch_norm_dx", "nsc=nsc,nsc,2c,c,c,2c", shapes[i]);
        fill_normalized(&s, i, 1, 2, 3, 5, &z);
        s.attr.activation = ACT_relu;
        clear_gradients(&s);
        check(&s, "fused_batch_norm_dx", ref_fused_batch_norm_dx, IN_PLACE);
    }
}

static void given_moments_normalize(void)
{
    for (int i = 0; i < COUNT_OF(shapes); i++)
        for (int fused = 0; fused < 2; fused++) {
            struct step s = make(fused ? "fused_normalize" : "normalize", "nsc=nsc,c,c,c,c", shapes[i]);
            const struct items z = batch_of(&s.in[0]);
            fill_normalized(&s, i, 0, -1, 3, -1, &z);
            fill(&s.in[2], 0, 3);
            if (fused) s.attr.activation = (i + 5) % ACT_COUNT;
            check(&s, "normalize", ref_normalize, ROW_BY_ROW | IN_PLACE);
            s = make("normalize_dx", "nsc=nsc,c,c", shapes[i]);
            fill_normalized(&s, i, -1, -1, 2, -1, &z);
            fill(&s.in[1], 0, 3);
            check(&s, "normalize_dx", ref_normalize_dx, ROW_BY_ROW | IN_PLACE);
        }
}

static void check_groups(struct sizes z, int number)
{
    struct step s = make("group_moments", "n2q=nsc", z);
    const struct items items = groups_of(&s.in[0], z.groups);
    const int64_t memory = norm_workspace(&items);
    fill_channels(&s.in[0], number % 2 ? 1000 : 1);
    give_workspace(&s, memory);
    check(&s, "group_moments", ref_group_moments, ROW_BY_ROW);
    s = make("group_norm", "nsc=nsc,n2q,c,c", z);
    fill_normalized(&s, number, 0, 1, 2, -1, &items);
    check(&s, "group_norm", ref_group_norm, ROW_BY_ROW | IN_PLACE);
    s = make("group_norm_sums", "n2c=nsc,nsc,n2q", z);
    fill_normalized(&s, number, 1, 2, -1, -1, &items);
    give_workspace(&s, memory);
    check(&s, "group_norm_sums", ref_group_norm_sums, ROW_BY_ROW);
    s = make("group_norm_dx", "nsc=nsc,nsc,n2q,c,n2c", z);
    fill_normalized(&s, number, 1, 2, 3, 4, &items);
    check(&s, "group_norm_dx", ref_group_norm_dx, ROW_BY_ROW | IN_PLACE);
}

/* One group, as many as there are channels, and something between. */
static void groups_are_normalized(void)
{
    for (int i = 0; i < COUNT_OF(shapes); i++)
        for (int64_t size = 1; size <= shapes[i].c; size++) {
            struct sizes z = shapes[i];
            const int some = size == 1 || size == 2 || size == 3 || size == 5 || size == 11 || size == 55 || size == z.c;
            if (z.c % size || !some) continue;
            z.groups = z.c / size;
            check_groups(z, i);
        }
}

static void rows_are_normalized(void)
{
    for (int i = 0; i < COUNT_OF(shapes); i++) {
        struct step s = make("layer_norm", "nsc=nsc,c,c", shapes[i]);
        if (elements(&s.in[0]) > 200000) { /* the chunks of a batch have these */
            release_arrays("layer_norm");
            continue;
        }
        const struct items z = batch_of(&s.in[0]);
        fill_normalized(&s, i, 0, -1, 1, -1, &z);
        check(&s, "layer_norm", ref_layer_norm, ROW_BY_ROW);
        s = make("layer_norm_sums", "2c=nsc,nsc", shapes[i]);
        fill_normalized(&s, i, 1, -1, -1, -1, &z);
        give_workspace(&s, norm_workspace(&z));
        check(&s, "layer_norm_sums", ref_layer_norm_sums, 0);
        s = make("layer_norm_dx", "nsc=nsc,nsc,c", shapes[i]);
        fill_normalized(&s, i, 1, -1, 2, -1, &z);
        check(&s, "layer_norm_dx", ref_layer_norm_dx, ROW_BY_ROW);
    }
}

void test_norm(void)
{
    batches_are_normalized();
    given_moments_normalize();
    groups_are_normalized();
    rows_are_normalized();
}
