/* Transposing, padding, cropping, up-sampling. Sizes in letters: N batch, D H W space, C channels. */
#ifndef FASTNN_REFERENCE_SHAPE_H
#define FASTNN_REFERENCE_SHAPE_H

#include "reference_window.h"

static void ref_transpose(const struct step *s, const struct answer *a)
{
    const struct tensor *x = &s->in[0], *y = &s->out[0];
    for (int64_t i = 0; i < elements(y); i++) {
        int64_t index[MAX_RANK], from = 0, rest = i; /* of the element of x */
        for (int axis = y->rank - 1; axis >= 0; axis--) {
            index[axis ? s->attr.perm[axis] : 0] = rest % y->size[axis];
            rest /= y->size[axis];
        }
        for (int axis = 0; axis < x->rank; axis++) from = from * x->size[axis] + index[axis];
        put(a, 0, i, IN(0)[from], 0);
    }
}

/* Place i of a volume, moved by the padding, in another volume; -1 if it is outside. */
static int64_t moved(const struct step *s, const struct volume *from, const struct volume *to, int64_t i, int direction)
{
    const int64_t d = i / from->w / from->h % from->d + direction * s->attr.before[0];
    const int64_t h = i / from->w % from->h + direction * s->attr.before[1], w = i % from->w + direction * s->attr.before[2];
    if (d < 0 || d >= to->d || h < 0 || h >= to->h || w < 0 || w >= to->w) return -1;
    return ((i / from->w / from->h / from->d * to->d + d) * to->h + h) * to->w + w;
}

static void move(const struct step *s, const struct answer *a, int direction)
{
    const struct volume x = volume_of(&s->in[0]), y = volume_of(&s->out[0]);
    for (int64_t i = 0; i < elements(&s->out[0]); i++) {
        const int64_t from = moved(s, &y, &x, i / y.c, direction);
        put(a, 0, i, from < 0 ? 0 : IN(0)[from * y.c + i % y.c], 0);
    }
}
static void ref_zero_pad(const struct step *s, const struct answer *a) { move(s, a, -1); }
static void ref_crop(const struct step *s, const struct answer *a) { move(s, a, 1); }

/* ---- up-sampling: factors are the window ---- */

/* The place that output place o is a copy of. */
static int64_t copied_from(const struct step *s, const struct volume *y, const struct volume *x, int64_t o)
{
    const int64_t d = o / y->w / y->h % y->d / s->attr.kernel[0], h = o / y->w % y->h / s->attr.kernel[1];
    return ((o / y->w / y->h / y->d * x->d + d) * x->h + h) * x->w + o % y->w / s->attr.kernel[2];
}

static void ref_upsample_nearest(const struct step *s, const struct answer *a)
{
    const struct volume x = volume_of(&s->in[0]), y = volume_of(&s->out[0]);
    for (int64_t i = 0; i < elements(&s->out[0]); i++)
        put(a, 0, i, IN(0)[copied_from(s, &y, &x, i / y.c) * y.c + i % y.c], 0);
}

static void ref_upsample_nearest_dx(const struct step *s, const struct answer *a)
{
    const struct volume x = volume_of(&s->out[0]), y = volume_of(&s->in[0]);
    const double terms = (double)(s->attr.kernel[0] * s->attr.kernel[1] * s->attr.kernel[2] - 1);
    const int whole = is_whole(&s->in[0]);
    memset(a->want[0], 0, sizeof(double) * (size_t)elements(&s->out[0]));
    memset(a->slack[0], 0, sizeof(double) * (size_t)elements(&s->out[0]));
    for (int64_t i = 0; i < elements(&s->in[0]); i++) {
        const int64_t at = copied_from(s, &y, &x, i / y.c) * y.c + i % y.c;
        a->want[0][at] += IN(0)[i];
        a->slack[0][at] += fabs(IN(0)[i]);
    }
    for (int64_t i = 0; i < elements(&s->out[0]); i++) a->slack[0][i] = sum_error(terms, a->slack[0][i], whole);
}

/* The two inputs that output o of an axis lies between, and the second one's share: the output's centre is over the input's
 * (o + 1/2) / k - 1/2. Beyond the outermost centres the edge goes on. */
struct between {
    int64_t at[2];
    double share[2];
};

static struct between between_of(int64_t o, int64_t k, int64_t size)
{
    const double place = ((double)o + 0.5) / (double)k - 0.5;
    const int64_t low = (int64_t)floor(place);
    const double share = place - (double)low;
    return (struct between){{low < 0 ? 0 : low, low + 1 < size ? low + 1 : size - 1}, {1 - share, share}};
}

/* y = x interpolated says which elements go into which; sums for each of the target. A share may be rounded by 2^-25, much
 * beside a small one: so each counts for a half more in the size. */
static void interpolate(const struct step *s, const struct answer *a, int backward)
{
    const struct tensor *x_ = backward ? &s->out[0] : &s->in[0], *y_ = backward ? &s->in[0] : &s->out[0];
    const struct volume x = volume_of(x_), y = volume_of(y_);
    const double kh = (double)s->attr.kernel[1], kw = (double)s->attr.kernel[2], terms = backward ? 4 * kh * kw + 6 : 8;
    memset(a->want[0], 0, sizeof(double) * (size_t)elements(&s->out[0]));
    memset(a->slack[0], 0, sizeof(double) * (size_t)elements(&s->out[0]));
    for (int64_t i = 0; i < elements(y_); i++) {
        const int64_t o = i / y.c;
        const struct between rows = between_of(o / y.w % y.h, s->attr.kernel[1], x.h);
        const struct between columns = between_of(o % y.w, s->attr.kernel[2], x.w);
        for (int tap = 0; tap < 4; tap++) {
            const int64_t from = ((o / y.w / y.h * x.h + rows.at[tap / 2]) * x.w + columns.at[tap % 2]) * y.c + i % y.c;
            const int64_t at = backward ? from : i;
            const double v = IN(0)[backward ? i : from], p = rows.share[tap / 2], q = columns.share[tap % 2];
            a->want[0][at] += p * q * v;
            a->slack[0][at] += EPS * terms * (p + 0.5) * (q + 0.5) * fabs(v);
        }
    }
}
static void ref_upsample_bilinear(const struct step *s, const struct answer *a) { interpolate(s, a, 0); }
static void ref_upsample_bilinear_dx(const struct step *s, const struct answer *a) { interpolate(s, a, 1); }

#endif
