/* Products, activations and arithmetic. */
#include "reference_dense.h"

static void check_products(int64_t n, int64_t k, int64_t f)
{
    static int turn;
    const struct sizes z = {.n = n, .k = k, .f = f};
    struct step s = make("matmul", "nf=nk,kf", z);
    check(&s, "matmul", ref_dense, ROW_BY_ROW);
    s = make("matmul_nt", "nk=nf,kf", z);
    check(&s, "matmul_nt", ref_dense_dx, ROW_BY_ROW);
    s = make("matmul_tn", "kf=nk,nf", z);
    check(&s, "matmul_tn", ref_matmul_tn, 0);
    const int32_t activation = turn++ % ACT_COUNT;
    s = make("dense", turn % 3 ? "nf=nk,kf,f" : "nf=nk,kf", z);
    s.attr.activation = activation;
    fill(&s.in[1], -2 / sqrt((double)k), 2 / sqrt((double)k));
    check(&s, functions[activation].name, ref_dense, ROW_BY_ROW);
    s = make("dense_dx", "nk=nf,kf,nk", z);
    s.attr.activation = activation;
    fill(&s.in[2], activation == ACT_softplus ? 0 : -1, 1);
    check(&s, functions[activation].name, ref_dense_dx, ROW_BY_ROW);
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
    for (int64_t n = 40; n <= 70; n += 2) /* B packed by the first tiles: of one vector, too, behind whole panels */
        for (int64_t f = 144; f <= 160; f += 8) check_products(n, 17, f);
    static const int64_t blocks[][3] = {{3, 257, 40}, {45, 300, 70}, {5, 520, 3}, {4, 9, 520}, {41, 11, 530}, {258, 9, 20},
                                        {270, 260, 1}, {1, 600, 10}, {2, 1, 700}, {9, 513, 130}, {6, 256, 33}, {15, 512, 20}};
    for (size_t i = 0; i < sizeof blocks / sizeof *blocks; i++) check_products(blocks[i][0], blocks[i][1], blocks[i][2]);
    static const int64_t far[][3] = {{1, 1030, 512}, {2, 1030, 512}, {3, 821, 640}, {17, 402, 1312}}; /* B comes from memory */
    for (size_t i = 0; i < sizeof far / sizeof *far; i++) check_products(far[i][0], far[i][1], far[i][2]);
}

/* y (n, m, f) = a (n, m, k) b (n, f, k)' */
static void check_batch_dot(int64_t n, int64_t rows, int64_t columns, int64_t k)
{
    struct step s = make("batch_dot", "nmf=nmk,nfk", (struct sizes){.n = n, .m = rows, .f = columns, .k = k});
    check(&s, "batch_dot", ref_batch_dot, ROW_BY_ROW);
}

static void products_of_batches_are_right(void)
{
    static const int64_t sizes[] = {1, 2, 5, 8, 15, 17, 31, 33, 49};
    int turn = 0;
    for (int i = 0; i < COUNT_OF(sizes); i++)
        for (int j = 0; j < COUNT_OF(sizes); j++, turn++) check_batch_dot(3, sizes[i], sizes[j], sizes[turn % 7]);
    static const int64_t large[][4] = {{2, 9, 130, 3},   {5, 1, 1, 500}, {2, 300, 7, 9},    {1, 1100, 3, 5}, {3, 1, 530, 2},
                                       {1, 1030, 1, 33}, {2, 6, 70, 900}, {7, 41, 40, 401}, {1, 5, 9, 1}};
    for (int i = 0; i < COUNT_OF(large); i++) check_batch_dot(large[i][0], large[i][1], large[i][2], large[i][3]);
}

static void rows_may_lie_along_several_axes(void)
{
    static const struct sizes sizes[] = {{.n = 5, .k = 7, .f = 17, SIGNAL(9)},
                                         {.n = 3, .k = 33, .f = 4, IMAGE(2, 8)},
                                         {.n = 2, .k = 9, .f = 20, VOLUME(3, 2, 5)}};
    for (int i = 0; i < COUNT_OF(sizes); i++) {
        struct step s = make("matmul", "nsf=nsk,kf", sizes[i]);
        check(&s, "matmul", ref_dense, ROW_BY_ROW);
        s = make("matmul_nt", "nsk=nsf,kf", sizes[i]);
        check(&s, "matmul_nt", ref_dense_dx, ROW_BY_ROW);
        s = make("matmul_tn", "kf=nsk,nsf", sizes[i]);
        check(&s, "matmul_tn", ref_matmul_tn, 0);
        s = make("dense", "nsf=nsk,kf,f", sizes[i]);
        s.attr.activation = ACT_tanh;
        check(&s, "dense", ref_dense, ROW_BY_ROW);
        s = make("dense_dx", "nsk=nsf,kf,nsk", sizes[i]);
        s.attr.activation = ACT_relu;
        check(&s, "dense_dx", ref_dense_dx, ROW_BY_ROW);
        s = make("add_bias", "nsf=nsf,f", sizes[i]);
        check(&s, "add_bias", ref_add_bias, ROW_BY_ROW | IN_PLACE);
    }
}

static void biases_are_added_and_summed(void)
{
    static const int64_t sizes[][2] = {{1, 1}, {3, 7}, {16, 8}, {9, 17}, {5, 64}, {33, 67}, {300, 130}, {255, 3}, {256, 16},
                                       {257, 33}, {768, 5}, {769, 70}, {1030, 1}, {1500, 15}, {3000, 4}, {5001, 2}};
    for (int i = 0; i < COUNT_OF(sizes); i++) {
        const struct sizes z = {.n = sizes[i][0], .f = sizes[i][1]};
        struct step s = make("add_bias", "nf=nf,f", z);
        check(&s, "add_bias", ref_add_bias, ROW_BY_ROW | IN_PLACE);
        s = make("scale_columns", "nf=nf,f", z);
        check(&s, "scale_columns", ref_scale_columns, ROW_BY_ROW | IN_PLACE);
        s = make("repeat_rows", "nf=nk,f", (struct sizes){.n = sizes[i][0], .f = sizes[i][1], .k = 3});
        check(&s, "repeat_rows", ref_repeat_rows, ROW_BY_ROW);
        for (int whole = 0; whole < 2; whole++) {
            s = make("sum_rows", "f=nf", z);
            give_workspace(&s, sum_rows_workspace(z.n, z.f));
            if (whole) fill_whole(&s.in[0], 9);
            check(&s, "sum_rows", ref_sum_rows, 0);
        }
    }
}

/* ------------------------------------------------------------------------------------------------ element by element */

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
            check(&s, current->name, ref_activation, IN_PLACE);

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
            check(&s, gradient, ref_activation_dx, IN_PLACE);
        }
    }
}

/* Two arrays, from input `first` on, with NaN here and there, and many equal elements or none. */
static void fill_pair(struct step *s, int first, int ties)
{
    for (int i = first; i < first + 2; i++) {
        if (ties) fill_whole(&s->in[i], 2);
        else ((float *)s->in[i].data)[pick(0, elements(&s->in[i]) - 1)] = NAN;
    }
}

static void arithmetic_is_right(void)
{
    for (int l = 0; l < N_LENGTHS; l++) {
        const struct sizes z = {.p = lengths[l], .n = lengths[l]};
        struct step s = make("add", "p=p,p", z);
        check(&s, "add", ref_add, IN_PLACE);
        s = make("multiply", "p=p,p", z);
        check(&s, "multiply", ref_multiply, IN_PLACE);
        for (int product = 0; product < 2; product++) {
            s = make("affine", "p=p", z);
            s.attr.scale = product ? -1.0 / 3 : 0.7;
            s.attr.offset = product ? -0.0 : 0.2;
            check(&s, "affine", ref_affine, IN_PLACE);
        }
        s = make("subtract", "p=p,p", z);
        check(&s, "subtract", ref_subtract, IN_PLACE);
        s = make("add_relu", "p=p,p", z);
        check(&s, "add_relu", ref_add_relu, IN_PLACE);
        s = make("add_relu_dx", "p=p,p,p", z);
        check(&s, "add_relu_dx", ref_add_relu_dx, IN_PLACE);
        s = make("divide", "p=p,p", z);
        fill(&s.in[1], 0.3, 3);
        check(&s, "divide", ref_divide, IN_PLACE);
        s = make("reciprocal", "p=p", z);
        fill(&s.in[0], 0.3, 3);
        check(&s, "reciprocal", ref_reciprocal, IN_PLACE);
        s = make("log", "p=p", z);
        fill(&s.in[0], 1e-6, 7);
        check(&s, "log", ref_log, IN_PLACE);
        s = make("sqrt", "p=p", z);
        fill(&s.in[0], 0, 9);
        check(&s, "sqrt", ref_sqrt, IN_PLACE);
        for (int ties = 0; ties < 2; ties++) {
            s = make("maximum", "p=p,p", z);
            fill_pair(&s, 0, ties);
            check(&s, "maximum", ref_maximum, IN_PLACE);
            s = make("minimum", "p=p,p", z);
            fill_pair(&s, 0, ties);
            check(&s, "minimum", ref_minimum, IN_PLACE);
            s = make("maximum_dx", "p=p,p,p", z);
            fill_pair(&s, 1, ties);
            check(&s, "maximum_dx", ref_maximum_dx, IN_PLACE);
        }
        s = make("clip", "p=p", z);
        s.attr.limit = 0.4;
        check(&s, "clip", ref_clip, IN_PLACE);
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
        check(&s, "penalty_dx", ref_penalty_dx, IN_PLACE);
        s = make("add_rows", "n=n,1", z);
        check(&s, "add_rows", ref_add_rows, ROW_BY_ROW);
    }
}

static void rectifiers_are_right(void)
{
    /* slope, limit, threshold */
    static const double bounds[][3] = {{0, INFINITY, 0}, {0.25, 1.5, 0}, {2, INFINITY, 0.5}, {0, 1.5, 1.25}};
    for (int i = 0; i < 4 * N_LENGTHS; i++) {
        const struct sizes z = {.p = lengths[i / 4]};
        for (int gradient = 0; gradient < 2; gradient++) {
            struct step s = make(gradient ? "bounded_relu_dx" : "bounded_relu", gradient ? "p=p,p" : "p=p", z);
            s.attr.negative_slope = bounds[i % 4][0];
            s.attr.limit = bounds[i % 4][1];
            s.attr.threshold = bounds[i % 4][2];
            fill(&s.in[gradient], -3, 3);
            float *x = s.in[gradient].data;
            x[0] = i % 8 < 4 ? NAN : -INFINITY;
            if (z.p > 2) x[1] = (float)bounds[i % 4][1], x[2] = (float)bounds[i % 4][2];
            check(&s, "bounded_relu", gradient ? ref_bounded_relu_dx : ref_bounded_relu, IN_PLACE);
        }
        struct step s = make("prelu_parts", "p=p,p", z);
        check(&s, "prelu_parts", ref_prelu_parts, IN_PLACE);
    }
    /* The slopes' sizes are the window's, and f. */
    static const struct sizes shared[] = {
        {.n = 7, .c = 3, .f = 3}, {.n = 9, .c = 16, .f = 1}, {.n = 5, .c = 33, .f = 33},
        {.n = 4, .c = 3, .f = 3, .axes = 1, .space = {1, 1, 7}, .kernel = {1, 1, 1}},
        {.n = 3, .c = 20, .f = 1, .axes = 1, .space = {1, 1, 5}, .kernel = {1, 1, 5}},
        {.n = 4, .c = 17, .f = 17, .axes = 2, .space = {1, 6, 5}, .kernel = {1, 1, 1}},
        {.n = 5, .c = 8, .f = 8, .axes = 2, .space = {1, 4, 3}, .kernel = {1, 4, 1}},
        {.n = 4, .c = 2, .f = 2, .axes = 2, .space = {1, 3, 5}, .kernel = {1, 1, 5}},
        {.n = 3, .c = 6, .f = 1, .axes = 2, .space = {1, 4, 5}, .kernel = {1, 1, 1}},
        {.n = 3, .c = 65, .f = 65, .axes = 2, .space = {1, 40, 35}, .kernel = {1, 40, 35}},
        {.n = 4, .c = 9, .f = 9, VOLUME(3, 2, 5), .kernel = {1, 2, 1}},
        {.n = 5, .c = 1, .f = 1, VOLUME(2, 3, 4), .kernel = {2, 3, 4}},
        {.n = 3, .c = 6, .f = 1, VOLUME(2, 3, 4), .kernel = {1, 1, 4}},
        {.n = 2, .c = 7, .f = 7, VOLUME(4, 1, 3), .kernel = {1, 1, 3}},
    };
    for (int i = 0; i < COUNT_OF(shared); i++) {
        struct step s = make("prelu", "nsc=nsc,wf", shared[i]);
        check(&s, "prelu", ref_prelu, ROW_BY_ROW | IN_PLACE);
        s = make("prelu_dx", "nsc=nsc,nsc,wf", shared[i]);
        check(&s, "prelu_dx", ref_prelu_dx, ROW_BY_ROW | IN_PLACE);
    }
}

void test_dense(void)
{
    products_are_right_at_every_edge_of_tiles_and_blocks();
    products_of_batches_are_right();
    rows_may_lie_along_several_axes();
    biases_are_added_and_summed();
    activations_and_their_gradients_are_right();
    arithmetic_is_right();
    rectifiers_are_right();
}
