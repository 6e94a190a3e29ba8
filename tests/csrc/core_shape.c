/* Transposing, padding, cropping, up-sampling. */
#include "reference_shape.h"

static void axes_are_exchanged(void)
{
    static const struct {
        int rank;
        int64_t size[MAX_RANK], perm[MAX_RANK];
    } cases[] = {
        {2, {5, 7}, {0, 1}},
        {3, {3, 17, 33}, {0, 2, 1}},
        {3, {4, 16, 15}, {0, 2, 1}},
        {3, {3, 2, 40}, {0, 2, 1}},
        {3, {2, 130, 140}, {0, 2, 1}},
        {3, {9, 1, 31}, {0, 2, 1}},
        {4, {4, 5, 6, 7}, {0, 2, 1, 3}},
        {4, {3, 4, 5, 1}, {0, 2, 1, 3}},
        {4, {3, 4, 18, 5}, {0, 3, 1, 2}},
        {4, {3, 6, 2, 19}, {0, 2, 3, 1}},
        {4, {3, 6, 17, 20}, {0, 1, 3, 2}},
        {4, {4, 33, 2, 31}, {0, 3, 2, 1}},
        {5, {3, 2, 3, 4, 5}, {0, 4, 2, 1, 3}},
        {5, {2, 3, 4, 9, 8}, {0, 2, 1, 3, 4}},
        {5, {4, 3, 2, 2, 5}, {0, 1, 2, 3, 4}},
        {6, {3, 2, 3, 2, 5, 4}, {0, 5, 1, 4, 2, 3}},
        {6, {2, 3, 8, 2, 16, 9}, {0, 1, 2, 4, 5, 3}},
    };
    for (int i = 0; i < COUNT_OF(cases); i++) {
        struct sizes z = {.n = 1, .p = 1};
        for (int axis = 0; axis < cases[i].rank; axis++) z.p *= cases[i].size[axis];
        struct step s = make("transpose", "p=p", z);
        struct tensor *x = &s.in[0], *y = &s.out[0];
        x->rank = y->rank = cases[i].rank;
        x->batch = y->batch = 1;
        for (int axis = 0; axis < cases[i].rank; axis++) {
            x->size[axis] = cases[i].size[axis];
            y->size[axis] = cases[i].size[cases[i].perm[axis]];
            s.attr.perm[axis] = cases[i].perm[axis];
        }
        check(&s, "transpose", ref_transpose, ROW_BY_ROW);
    }
}

/* Signals, images and volumes with channels around vectors. */
static const struct sizes spaces[] = {
    {.n = 3, .c = 1, SIGNAL(9)},   {.n = 4, .c = 3, SIGNAL(7)},
    {.n = 3, .c = 8, SIGNAL(5)},   {.n = 7, .c = 17, SIGNAL(6)},
    {.n = 3, .c = 2, SIGNAL(33)},  {.n = 4, .c = 1, IMAGE(6, 5)},
    {.n = 5, .c = 3, IMAGE(4, 7)},   {.n = 4, .c = 16, IMAGE(5, 3)},
    {.n = 5, .c = 9, IMAGE(3, 4)},   {.n = 3, .c = 33, IMAGE(2, 5)},
    {.n = 3, .c = 4, IMAGE(8, 9)},   {.n = 2, .c = 7, IMAGE(1, 1)},
    {.n = 3, .c = 1, IMAGE(17, 2)},  {.n = 4, .c = 2, VOLUME(2, 3, 5)},
    {.n = 4, .c = 15, VOLUME(3, 2, 3)},  {.n = 3, .c = 40, VOLUME(2, 2, 1)},
    {.n = 1, .c = 70, IMAGE(20, 19)}, {.n = 2, .c = 5, IMAGE(70, 61)},
};

static void edges_are_added_and_cut_off(void)
{
    for (int i = 0; i < 4 * COUNT_OF(spaces); i++) {
        struct sizes z = spaces[i / 4];
        for (int a = MAX_SPACE - z.axes; a < MAX_SPACE; a++) {
            z.before[a] = i % 4 ? pick(0, i % 4 == 3 ? 20 : 3) : 0;
            z.after[a] = i % 4 ? pick(0, i % 4 == 3 ? 20 : 3) : 0;
            z.out[a] = z.space[a] + z.before[a] + z.after[a];
        }
        struct step s = make("zero_pad", "noc=nsc", z);
        check(&s, "zero_pad", ref_zero_pad, ROW_BY_ROW);
        s = make("crop", "nsc=noc", z);
        check(&s, "crop", ref_crop, ROW_BY_ROW);
    }
}

static void check_upsampling(struct sizes z, int bilinear)
{
    for (int a = MAX_SPACE - z.axes; a < MAX_SPACE; a++) z.out[a] = z.space[a] * z.kernel[a];
    struct step s = make(bilinear ? "upsample_bilinear" : "upsample_nearest", "noc=nsc", z);
    check(&s, "upsample", bilinear ? ref_upsample_bilinear : ref_upsample_nearest, ROW_BY_ROW);
    s = make(bilinear ? "upsample_bilinear_dx" : "upsample_nearest_dx", "nsc=noc", z);
    if (!bilinear) fill_whole(&s.in[0], 9);
    check(&s, "upsample_dx", bilinear ? ref_upsample_bilinear_dx : ref_upsample_nearest_dx, ROW_BY_ROW);
}

static void places_are_multiplied(void)
{
    static const int64_t factors[] = {2, 3, 1, 2, 4};
    for (int i = 0; i < COUNT_OF(spaces); i++)
        for (int turn = 0; turn < 5; turn++) {
            struct sizes z = spaces[i];
            for (int a = MAX_SPACE - z.axes; a < MAX_SPACE; a++) z.kernel[a] = turn ? factors[(i + a + turn) % 5] : 2;
            check_upsampling(z, 0);
            if (z.axes == 2) check_upsampling(z, 1);
        }
    static const struct sizes large[] = {
        {.n = 3, .c = 2, IMAGE(1, 3), .kernel = {0, 3, 700}}, {.n = 2, .c = 1, IMAGE(2, 3), .kernel = {0, 80, 3}},
        {.n = 3, .c = 18, IMAGE(2, 3), .kernel = {0, 2, 150}}, {.n = 1, .c = 5, IMAGE(2, 3), .kernel = {0, 140, 2}},
        {.n = 1, .c = 1, IMAGE(3, 2500), .kernel = {0, 2, 2}}, {.n = 2, .c = 3, IMAGE(3, 800), .kernel = {0, 2, 3}},
        {.n = 1, .c = 4, IMAGE(2, 9), .kernel = {0, 2, 128}},  {.n = 1, .c = 1, IMAGE(1, 2), .kernel = {0, 129, 5000}},
    };
    for (int i = 0; i < COUNT_OF(large); i++)
        for (int bilinear = 0; bilinear < 2; bilinear++) check_upsampling(large[i], bilinear);
}

/* So large that they are written past the caches. */
static void large_images_are_multiplied(void)
{
    static const struct sizes large[] = {
        {.n = 1, .c = 128, IMAGE(64, 65), .kernel = {0, 2, 2}},
        {.n = 1, .c = 16, IMAGE(150, 147), .kernel = {0, 3, 2}},
        {.n = 1, .c = 16, IMAGE(40, 44), .kernel = {0, 5, 16}},
    };
    for (int i = 0; i < COUNT_OF(large); i++)
        for (int bilinear = 0; bilinear < 2; bilinear++) check_upsampling(large[i], bilinear);
}

void test_shape(void)
{
    axes_are_exchanged();
    edges_are_added_and_cut_off();
    places_are_multiplied();
    if (share == 1) large_images_are_multiplied();
}
