/* Rows that are brought in, and random numbers. */
#include "reference_data.h"

static void rows_are_gathered_and_scattered(void)
{
    static const int64_t sizes[][2] = {{1, 1}, {3, 7}, {9, 1}, {20, 8}, {17, 16}, {50, 33}, {700, 30}, {40000, 1}};
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        const struct sizes z = {.n = sizes[i][0], .f = sizes[i][1], .m = sizes[i][0] + 2};
        struct step s = make("gather", "nf=mf,@n", z);
        for (int64_t j = 0; j < z.n; j++) ((int64_t *)s.in[1].data)[j] = (int64_t)(random_bits() % (uint64_t)z.m);
        check(&s, "gather", ref_gather, ROW_BY_ROW);
        s = make("scatter", "mf=nf,@n", z);
        fill(&s.out[0], -1, 1);
        for (int64_t j = 0; j < z.n; j++) ((int64_t *)s.in[1].data)[j] = (int64_t)(random_bits() % (uint64_t)z.m);
        check(&s, "scatter", ref_scatter, 0);
    }
}

void test_random_words(void)
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

static void set_key(struct step *s, int i)
{
    *(int64_t *)s->in[s->inputs - 1].data = i % 3 == 2 ? (INT64_C(1) << 33) + 7 : i % 3;
    s->attr.seed = UINT64_C(0x8000000000003039) + (uint64_t)i;
    s->attr.stream = (uint32_t)i * 77;
}

static void spatial_dropout_drops_whole_channels(void)
{
    static const struct sizes sizes[] = {
        {.n = 5, .c = 1}, {.n = 3, .c = 1, SIGNAL(9)}, {.n = 4, .c = 3, IMAGE(6, 5)},
        {.n = 3, .c = 8, IMAGE(4, 2)}, {.n = 5, .c = 5, VOLUME(3, 7, 2)},
        {.n = 3, .c = 17, SIGNAL(20)}, {.n = 4, .c = 33, IMAGE(3, 3)},
        {.n = 3, .c = 130, SIGNAL(2)}, {.n = 2, .c = 15, IMAGE(40, 41)},
        {.n = 2, .c = 7, SIGNAL(9000)}, {.n = 3, .c = 4100, SIGNAL(2)}, {.n = 70, .c = 64},
    };
    for (int i = 0; i < COUNT_OF(sizes); i++) {
        struct step s = make("spatial_dropout", "nsc=nsc,@1", sizes[i]);
        set_key(&s, i);
        s.attr.rate = i % 4 == 3 ? 0 : 0.4;
        check(&s, "spatial_dropout", ref_spatial_dropout, 0);
    }
}

static void noise_is_normal(void)
{
    for (int i = 0; i < 2 * N_LENGTHS; i++) {
        const struct sizes z = {.p = lengths[i / 2]};
        struct step s = make("gaussian_noise", "p=p,@1", z);
        set_key(&s, i);
        s.attr.stddev = i % 2 ? 0.3 : 5;
        check(&s, "gaussian_noise", ref_gaussian_noise, 0);
    }
    /* Of a hundred thousand numbers: mean 0, variance 1, as many as there should be beyond one and two, all within four
     * standard deviations of what is expected. */
    enum { MANY = 100000 };
    const struct sizes z = {.p = MANY};
    struct step s = make("gaussian_noise", "p=p,@1", z);
    set_key(&s, 5);
    s.attr.stddev = 1;
    memset(s.in[0].data, 0, MANY * sizeof(float));
    run(&s, 1);
    double sum = 0, squares = 0, beyond[2] = {0};
    for (int i = 0; i < MANY; i++) {
        const double x = ((const float *)s.out[0].data)[i];
        sum += x;
        squares += x * x;
        for (int k = 0; k < 2; k++) beyond[k] += x > k + 1;
    }
    CHECK(fabs(sum) < 4 * sqrt(MANY), "%g", sum);
    CHECK(fabs(squares - MANY) < 4 * sqrt(2.0 * MANY), "%g", squares);
    for (int k = 0; k < 2; k++) {
        const double part = normal_cdf(-(k + 1));
        CHECK(fabs(beyond[k] - MANY * part) < 4 * sqrt(MANY * part), "%g", beyond[k]);
    }
    release_arrays("gaussian_noise");
}

static void parts_of_small_arrays_are_taken_and_made(void)
{
    static const struct sizes sizes[] = {{.n = 3, .c = 1, .m = 2, .f = 3}, {.n = 3, .c = 7, .m = 3, .f = 1},
                                         {.n = 2, .c = 33, .m = 2, .f = 4}, {.n = 8, .c = 16, .m = 3, .f = 2},
                                         {.n = 5, .c = 17, .m = 1, .f = 5}};
    static const char *const shapes[] = {"c=mc", "nc=nmc", "nfc=nfmc"};
    for (int i = 0; i < COUNT_OF(sizes); i++)
        for (int k = 0; k < COUNT_OF(shapes); k++) {
            struct step s = make("take", shapes[k], sizes[i]);
            s.attr.index = pick(0, sizes[i].m - 1);
            check(&s, "take", ref_take, k ? ROW_BY_ROW : 0);
            s = make("fill", "c=nc", sizes[i]);
            s.attr.fill_value = 1.0 - 0.3 * i;
            check(&s, "fill", ref_fill, 0);
        }
}

void test_data(void)
{
    rows_are_gathered_and_scattered();
    parts_of_small_arrays_are_taken_and_made();
    dropout_drops_the_elements_that_its_key_says();
    spatial_dropout_drops_whole_channels();
    noise_is_normal();
}
