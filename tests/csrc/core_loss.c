/* Softmax, losses, overlaps and metrics. */
#include "reference_loss.h"
#include "reference_overlap.h"

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

static void labels_of(struct tensor *y, int64_t classes)
{
    for (int64_t i = 0; i < elements(y); i++) ((float *)y->data)[i] = (float)(random_bits() % (uint64_t)classes);
}

static void softmax_is_right(void)
{
    for (int i = 0; i < N_ROW_SIZES; i++) {
        const struct sizes z = {.n = row_sizes[i][0], .c = row_sizes[i][1]};
        struct step s = make("softmax", "nc=nc", z);
        fill(&s.in[0], -10, 10);
        ((float *)s.in[0].data)[0] = i % 3 ? 1e30f : 90;
        check(&s, "softmax", ref_softmax, ROW_BY_ROW);
        s = make("softmax_dx", "nc=nc,nc", z);
        fill(&s.in[1], 0, 1);
        check(&s, "softmax_dx", ref_softmax_dx, ROW_BY_ROW);
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
                    check(&value, losses[which].gradient, losses[which].slope, ROW_BY_ROW);
                } else {
                    check(&value, losses[which].name, losses[which].value, ROW_BY_ROW);
                    value = make(losses[which].gradient, "nc=n,nc,nc", z);
                    p = &value.in[1];
                    y = &value.in[2];
                }
            }
        }
}

/* Focal cross-entropies of outputs that are decisions of their own, and over the classes. */
static void focal_losses_are_right(void)
{
    static const float class_weights[33] = {0.25f, 1.5f, 0.75f, 0, 2, 1, 1, 0.5f, 1, 3};
    static const struct {
        const char *name, *gradient;
        reference *value, *slope;
        int classes, probability;
    } losses[] = {
        {"binary_focal_crossentropy", "binary_focal_crossentropy_dx", ref_binary_focal, ref_binary_focal_dx, 0, 1},
        {"sigmoid_focal_crossentropy", "sigmoid_focal_crossentropy_dx", ref_sigmoid_focal, ref_sigmoid_focal_dx, 0, 0},
        {"categorical_focal_crossentropy", "categorical_focal_crossentropy_dx", ref_class_focal, ref_class_focal_dx, 1, 1},
        {"softmax_focal_crossentropy", "softmax_focal_crossentropy_dx", ref_softmax_focal, ref_softmax_focal_dx, 1, 0},
    };
    for (int which = 0; which < 4; which++)
        for (int i = 0; i < 4 * N_ROW_SIZES; i++) {
            const int gradient = i % 2, label = losses[which].classes && i / 2 % 2, narrow = !losses[which].classes && i / 2 % 2;
            const struct sizes z = {.n = row_sizes[i / 4][0], .c = narrow ? 1 : row_sizes[i / 4][1]};
            const double low = losses[which].probability ? 0.02 : -5, high = losses[which].probability ? 0.98 : 5;
            const char *shapes = gradient ? (label ? "nc=n,nc,n1" : "nc=n,nc,nc") : label ? "n=nc,n1" : "n=nc,nc";
            struct step s = make(gradient ? losses[which].gradient : losses[which].name, shapes, z);
            s.attr.gamma = i % 3 ? 2 : 1.5;
            s.attr.positive = i % 3 ? 1 : 0.25;
            s.attr.negative = i % 3 ? 1 : 0.75;
            s.attr.class_weights = class_weights;
            fill(&s.in[gradient], low, high);
            struct tensor *y = &s.in[gradient + 1];
            if (losses[which].classes) one_hot(y, z.c);
            else fill(y, 0, 1);
            check(&s, s.inputs > 2 ? losses[which].gradient : losses[which].name,
                  gradient ? losses[which].slope : losses[which].value, ROW_BY_ROW);
        }
}

/* Sums over the pixels of each sample, and what is made of them. */
static void overlaps_are_right(void)
{
    static const int64_t sizes[][3] = {{1, 5, 2}, {3, 70, 1}, {2, 33, 3}, {3, 9, 17}, {2, 3000, 1}, {2, 1500, 4}, {3, 130, 8}, {2, 40, 33}};
    for (int i = 0; i < 4 * COUNT_OF(sizes); i++) {
        const struct sizes z = {.n = sizes[i / 4][0], .p = sizes[i / 4][1], .c = sizes[i / 4][2]};
        const int weighted = i % 2, label = i / 2 % 2 && z.c > 1;
        static const char *const forward[] = {"n3c=npc,npc", "n3c=npc,npc,np", "n3c=npc,np1", "n3c=npc,np1,np"};
        static const char *const backward[] = {"npc=n3c,npc", "npc=n3c,npc,np", "npc=n3c,np1", "npc=n3c,np1,np"};
        for (int gradient = 0; gradient < 2; gradient++) {
            const char *name = gradient ? "overlap_dx" : "overlap";
            struct step s = make(name, (gradient ? backward : forward)[2 * label + weighted], z);
            if (!gradient) fill(&s.in[0], 0, 1);
            if (label) labels_of(&s.in[1], z.c);
            else fill(&s.in[1], 0, 1);
            if (weighted) fill(&s.in[2], 0, 2);
            check(&s, name, gradient ? ref_overlap_dx : ref_overlap, ROW_BY_ROW);
            name = gradient ? "tversky_dx" : "tversky";
            s = make(name, gradient ? "n3c=n,n3c" : "n=n3c", z);
            s.attr.alpha = 0.3;
            s.attr.beta = 0.7;
            s.attr.epsilon = 0.01;
            s.attr.joint = i % 2;
            fill(&s.in[gradient], 0, 50);
            check(&s, name, gradient ? ref_tversky_dx : ref_tversky, ROW_BY_ROW);
        }
        struct step s = make("class_counts", label ? "n3c=npc,np1" : "n3c=npc,npc", z);
        for (int64_t j = 0; j < elements(&s.in[0]); j++) ((float *)s.in[0].data)[j] = (float)(random_bits() % 4);
        if (label) labels_of(&s.in[1], z.c);
        check(&s, "class_counts", ref_class_counts, ROW_BY_ROW);
        s = make("threshold_counts", "n4c=npc,npc", z);
        s.attr.threshold = 0.3;
        for (int64_t j = 0; j < elements(&s.in[1]); j++) ((float *)s.in[1].data)[j] = (float)(random_bits() & 1);
        check(&s, "threshold_counts", ref_threshold_counts, ROW_BY_ROW);
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
            check(&s, losses[which].name, losses[which].value, ROW_BY_ROW);
            s = make(losses[which].gradient, losses[which].label ? "nc=n,nc,n1" : "nc=n,nc,nc", z);
            fill(&s.in[1], low, high);
            one_hot(&s.in[2], z.c);
            check(&s, losses[which].gradient, losses[which].slope, ROW_BY_ROW);
        }
}

static void losses_are_added_up(void)
{
    for (int l = 0; l < N_LENGTHS; l++) {
        const struct sizes z = {.n = lengths[l]};
        struct step s = make("sum_all", "1=n", z);
        check(&s, "sum_all", ref_sum_all, 0);
        s = make("mean_seed", "n=n", z);
        check(&s, "mean_seed", ref_mean_seed, 0);
        s = make("accumulate", "#1=n", z);
        *(double *)s.out[0].data = 1.25;
        check(&s, "accumulate", ref_accumulate, 0);
        s = make("accumulate", "#3=n3", z);
        for (int j = 0; j < 3; j++) ((double *)s.out[0].data)[j] = j;
        check(&s, "accumulate", ref_accumulate, 0);
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
            check(&s, "binary_accuracy", ref_binary_accuracy, ROW_BY_ROW);
        }
        for (int label = 0; label < 2; label++) {
            const char *name = label ? "sparse_categorical_accuracy" : "categorical_accuracy";
            struct step s = make(name, label ? "n=nc,n1" : "n=nc,nc", z);
            for (int64_t j = 0; j < elements(&s.in[0]); j++) /* with equals */
                ((float *)s.in[0].data)[j] = (float)(random_bits() % 4);
            one_hot(&s.in[1], z.c);
            check(&s, name, ref_categorical_accuracy, ROW_BY_ROW);
        }
    }
}

void test_losses(void)
{
    softmax_is_right();
    mean_losses_are_right();
    class_losses_are_right();
    focal_losses_are_right();
    overlaps_are_right();
    losses_are_added_up();
    metrics_are_right();
}
