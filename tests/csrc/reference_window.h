/* Windows that slide over signals, images and volumes. Sizes in letters: N batch, D H W space, C channels, F filters, KD KH
 * KW kernel, OD OH OW output. */
#ifndef FASTNN_REFERENCE_WINDOW_H
#define FASTNN_REFERENCE_WINDOW_H

#include "reference.h"

struct volume {
    int64_t n, d, h, w, c;
};

/* An array (N, ..., C) with all three axes of space, those that it lacks of size 1. */
static inline struct volume volume_of(const struct tensor *t)
{
    const int64_t *last = &t->size[t->rank - 1];
    return (struct volume){t->size[0], t->rank > 4 ? last[-3] : 1, t->rank > 3 ? last[-2] : 1, last[-1], *last};
}

/* The kernel's size from weights (*kernel, C, F), as a volume. */
static inline struct volume kernel_of(const struct tensor *w)
{
    const int64_t *last = &w->size[w->rank - 1];
    return (struct volume){1, w->rank > 4 ? last[-4] : 1, w->rank > 3 ? last[-3] : 1, last[-2], last[-1]};
}

/* The input under element k of the window of output o, along an axis. */
static inline int64_t under(const struct step *s, int axis, int64_t o, int64_t k)
{
    return o * s->attr.strides[axis] + k * s->attr.dilations[axis] - s->attr.before[axis];
}

enum target { OF_X, OF_W, OF_Y };

/* y = x * w says which element of x meets which of w for which of y. Sums the products of two of them for each element of the
 * third one: sum and size, the sum of absolute values. */
static inline void add_products(const struct step *s, const struct tensor *x_, const struct tensor *w_, const struct tensor *y_,
                         int64_t groups, enum target target, double *sum, double *size)
{
    const struct volume x = volume_of(x_), y = volume_of(y_), kernel = kernel_of(w_);
    const float *in = x_->data, *weights = w_->data, *out = y_->data;
    const int64_t c = x.c / groups, f = y.c / groups, windows = y.n * y.d * y.h * y.w, taps = kernel.d * kernel.h * kernel.w;
    const int64_t elements_of[] = {elements(x_), elements(w_), elements(y_)};
    memset(sum, 0, sizeof *sum * (size_t)elements_of[target]);
    memset(size, 0, sizeof *size * (size_t)elements_of[target]);
    for (int64_t o = 0; o < windows; o++)
        for (int64_t k = 0; k < taps; k++) {
            const int64_t d = under(s, 0, o / y.w / y.h % y.d, k / kernel.w / kernel.h);
            const int64_t h = under(s, 1, o / y.w % y.h, k / kernel.w % kernel.h), w = under(s, 2, o % y.w, k % kernel.w);
            if (d < 0 || d >= x.d || h < 0 || h >= x.h || w < 0 || w >= x.w) continue;
            const int64_t pixel = ((o / y.w / y.h / y.d * x.d + d) * x.h + h) * x.w + w;
            for (int64_t i = 0; i < x.c; i++)
                for (int64_t j = i / c * f; j < (i / c + 1) * f; j++) {
                    const int64_t at_x = pixel * x.c + i, at_w = (k * c + i % c) * y.c + j, at_y = o * y.c + j;
                    const int64_t at = target == OF_X ? at_x : target == OF_W ? at_w : at_y;
                    const double left = target == OF_X ? out[at_y] : in[at_x];
                    const double right = target == OF_W ? out[at_y] : weights[at_w];
                    sum[at] += left * right;
                    size[at] += fabs(left * right);
                }
        }
}

#endif
