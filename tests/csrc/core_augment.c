/* Random changes of images. */
#include "reference_augment.h"

/* Images with channels around vectors, of one pixel, and wide ones. */
static const struct sizes images[] = {
    {.n = 5, .c = 1, IMAGE(6, 4)},  {.n = 19, .c = 3, IMAGE(5, 7)},
    {.n = 4, .c = 4, IMAGE(6, 5)},  {.n = 3, .c = 7, IMAGE(3, 4)},
    {.n = 5, .c = 8, IMAGE(2, 9)},  {.n = 2, .c = 9, IMAGE(7, 3)},
    {.n = 4, .c = 15, IMAGE(4, 4)}, {.n = 3, .c = 16, IMAGE(5, 3)},
    {.n = 2, .c = 17, IMAGE(3, 6)}, {.n = 2, .c = 33, IMAGE(4, 5)},
    {.n = 33, .c = 2, IMAGE(1, 1)}, {.n = 2, .c = 1, IMAGE(5, 150)},
    {.n = 1, .c = 3, IMAGE(41, 67)},
};

static void set_key(struct step *s, int i)
{
    *(int64_t *)s->in[s->inputs - 1].data = i % 3 == 2 ? (INT64_C(1) << 33) + 1 : i % 3;
    s->attr.seed = UINT64_C(0x8000000000003039) + (uint64_t)i;
    s->attr.stream = (uint32_t)i * 77;
}

static void set_range(double *range, double low, double high)
{
    range[0] = low;
    range[1] = high;
}

static void images_are_mirrored(void)
{
    for (int i = 0; i < 4 * COUNT_OF(images); i++) {
        struct step s = make("random_flip", "nsc=nsc,@1", images[i / 4]);
        set_key(&s, i);
        s.attr.horizontal = i & 1;
        s.attr.vertical = i >> 1 & 1;
        check(&s, "random_flip", ref_random_flip, 0);
    }
}

static void matrices_are_drawn(void)
{
    static const double turns[][2] = {{-1, 1}, {-0.1, 0.1}, {0.25, 0.25}, {-0.5, -0.5}, {0.375, 0.375}, {3, 40}};
    static const double ranges[][2] = {{0.5, 1.5}, {0.9, 1.1}, {2, 2}, {0.7, 1.3}};
    static const double moves[][2] = {{-0.5, 0.5}, {-0.3, 0.1}, {-1, 1}, {0, 0}};
    for (int i = 0; i < 36; i++) {
        const struct sizes z = {.n = i % 4 ? 1 + 5 * i % 37 : 16, .m = 6, .c = 2, IMAGE(1 + i % 7, 1 + i * 5 % 11)};
        struct step s = make("rotation_matrices", "nm=nsc,@1", z);
        set_key(&s, i);
        set_range(s.attr.turns, turns[i % 6][0], turns[i % 6][1]);
        check(&s, "rotation_matrices", ref_rotation_matrices, 0);
        s = make("zoom_matrices", "nm=nsc,@1", z);
        set_key(&s, i);
        set_range(s.attr.heights, ranges[i % 4][0], ranges[i % 4][1]);
        if (i % 3) set_range(s.attr.widths, ranges[i % 3][0], ranges[i % 3][1]);
        check(&s, "zoom_matrices", ref_zoom_matrices, 0);
        s = make("translation_matrices", "nm=nsc,@1", z);
        set_key(&s, i);
        set_range(s.attr.heights, moves[i % 4][0], moves[i % 4][1]);
        set_range(s.attr.widths, moves[i % 3][0], moves[i % 3][1]);
        check(&s, "translation_matrices", ref_translation_matrices, 0);
    }
}

/* Near the identity; some whole moves; some so large that places are far away, or no places at all. */
static void fill_matrices(struct tensor *m)
{
    static const float special[] = {1e30f, -1e30f, NAN, 3e9f};
    float *row = m->data;
    for (int64_t n = 0; n < m->size[0]; n++, row += 6) {
        for (int i = 0; i < 6; i++) row[i] = (float)(i == 0 || i == 4) + uniform(-1, 1) * (i % 3 == 2 ? 4.0f : 0.5f);
        if (n % 4 == 1)
            for (int i = 0; i < 6; i++) row[i] = i % 3 == 2 ? (float)pick(-9, 9) : (float)(i == 0 || i == 4);
        if (n % 7 == 2) row[pick(0, 5)] = special[pick(0, 3)];
    }
}

static void images_are_seen_through_matrices(void)
{
    for (int i = 0; i < 8 * COUNT_OF(images); i++)
        for (int backward = 0; backward < 2; backward++) {
            struct sizes z = images[i / 8];
            z.m = 6;
            struct step s = make(backward ? "affine_transform_dx" : "affine_transform", "nsc=nsc,nm", z);
            fill_matrices(&s.in[1]);
            s.attr.fill_mode = i % 4;
            s.attr.interpolation = i / 4 % 2;
            s.attr.fill_value = backward ? 0 : 0.75;
            check(&s, "affine_transform", backward ? ref_affine_transform_dx : ref_affine_transform, ROW_BY_ROW);
        }
}

static void contrast_is_changed(void)
{
    static const double limits[][2] = {{-1.25, 0.75}, {-100, 100}, {0, 1}};
    static const struct sizes large[] = {{.n = 2, .c = 1, IMAGE(90, 93)}, {.n = 3, .c = 2050, IMAGE(2, 4)},
                                         {.n = 2, .c = 255, IMAGE(4, 3)}, {.n = 2, .c = 130, IMAGE(3, 5)}};
    for (int i = 0; i < 3 * (COUNT_OF(images) + COUNT_OF(large)); i++)
        for (int backward = 0; backward < 2; backward++) {
            const struct sizes z = i / 3 < COUNT_OF(images) ? images[i / 3] : large[i / 3 - COUNT_OF(images)];
            struct step s = make(backward ? "random_contrast_dx" : "random_contrast",
                                 backward ? "nsc=nsc,nsc,@1" : "nsc=nsc,@1", z);
            set_key(&s, i);
            set_range(s.attr.factors, 0.25, 1.75);
            set_range(s.attr.limits, limits[i % 3][0], limits[i % 3][1]);
            float *y = s.in[1].data;
            for (int64_t j = 0; backward && j < elements(&s.in[1]); j++) /* as an output: cut off */
                y[j] = (float)fmax(limits[i % 3][0], fmin(limits[i % 3][1], 2 * y[j]));
            check(&s, "random_contrast", backward ? ref_random_contrast_dx : ref_random_contrast, 0);
        }
}

void test_augment(void)
{
    images_are_mirrored();
    matrices_are_drawn();
    images_are_seen_through_matrices();
    contrast_is_changed();
}
