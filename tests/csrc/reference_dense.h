/* Products, and what is done element by element. Sizes in letters: N batch, K summed, F outputs, P elements. */
#ifndef FASTNN_REFERENCE_DENSE_H
#define FASTNN_REFERENCE_DENSE_H

#include "reference.h"

static const struct function *current; /* the function under test */

static void ref_activation(const struct step *s, const struct answer *a)
{
    for (int64_t i = 0; i < elements(&s->out[0]); i++) {
        double x = IN(0)[i], y = current->f(x, &s->attr);
        put(a, 0, i, y, EPS * (8 * fabs(y) + current->f_off * size_16(x)) + tiny(x));
    }
}

static void ref_activation_dx(const struct step *s, const struct answer *a)
{
    for (int64_t i = 0; i < elements(&s->out[0]); i++) {
        double g = IN(0)[i], v = IN(1)[i], dx = g * current->slope(v, &s->attr);
        put(a, 0, i, dx, EPS * (8 * fabs(dx) + current->slope_off * fabs(g) * size_16(v)) + tiny(v));
    }
}

#define REF_1(name, value, off)                                                                    \
    static void ref_##name(const struct step *s, const struct answer *a)                           \
    {                                                                                              \
        for (int64_t i = 0; i < elements(&s->out[0]); i++) {                                       \
            double x = IN(0)[i], y = s->inputs > 1 ? IN(1)[elements(&s->in[1]) == 1 ? 0 : i] : 0, z;  \
            (void)y;                                                                               \
            z = value;                                                                             \
            put(a, 0, i, z, (off) * EPS * fabs(z));                                                \
        }                                                                                          \
    }
REF_1(add, x + y, 1)
REF_1(multiply, x * y, 1)
REF_1(clip, fmin(fmax(x, -(double)(float)s->attr.limit), (double)(float)s->attr.limit), 0)
REF_1(reshape, x, 0)
REF_1(subtract, x - y, 1)
REF_1(add_relu, x + y > 0 ? x + y : 0, 1)
REF_1(add_relu_dx, IN(2)[i] > 0 ? x + y : 0, 1)
REF_1(log, log(x), 2)
REF_1(sqrt, sqrt(x), 1)
REF_1(reciprocal, 1 / x, 1)
REF_1(divide, x / y, 1)
REF_1(maximum, x != x || y != y ? NAN : x > y ? x : y, 0)
REF_1(minimum, x != x || y != y ? NAN : x < y ? x : y, 0)
REF_1(maximum_dx, y > IN(2)[i] ? x : y == IN(2)[i] ? x / 2 : 0, 0)
REF_1(add_rows, x + y, 1)

static void ref_affine(const struct step *s, const struct answer *a)
{
    for (int64_t i = 0; i < elements(&s->out[0]); i++) {
        const double x = s->attr.scale * IN(0)[i];
        put(a, 0, i, x + s->attr.offset, 2 * EPS * (fabs(x) + fabs(s->attr.offset)));
    }
}

static void ref_clip_norm(const struct step *s, const struct answer *a)
{
    int64_t n = elements(&s->in[0]);
    double norm = sqrt(sum_of(IN(0), n, 2)), scale = norm > s->attr.limit ? s->attr.limit / norm : 1;
    for (int64_t i = 0; i < n; i++) put(a, 0, i, IN(0)[i] * scale, 4 * EPS * fabs(IN(0)[i] * scale));
}

static void ref_penalty(const struct step *s, const struct answer *a)
{
    int64_t n = elements(&s->in[0]);
    double r = s->attr.l1 * sum_of(IN(0), n, 1) + s->attr.l2 * sum_of(IN(0), n, 2);
    put(a, 0, 0, r, EPS * (double)(n + 4) * r);
}

static void ref_penalty_dx(const struct step *s, const struct answer *a)
{
    for (int64_t i = 0; i < elements(&s->out[0]); i++) {
        double g = IN(0)[0], w = IN(1)[i], l1 = s->attr.l1 * ((w > 0) - (w < 0)), l2 = 2 * s->attr.l2 * w;
        put(a, 0, i, g * (l1 + l2), 4 * EPS * fabs(g) * (fabs(l1) + fabs(l2)));
    }
}

/* ------------------------------------------------------------------------------------------------------ products */

static void ref_dense(const struct step *s, const struct answer *a) /* and matmul */
{
    int64_t k = s->in[1].size[0], f = s->in[1].size[1], n = elements(&s->in[0]) / k;
    for (int64_t i = 0; i < n; i++)
        for (int64_t j = 0; j < f; j++) {
            double size, b = s->inputs > 2 ? IN(2)[j] : 0, before = b + dot(IN(0) + i * k, 1, IN(1) + j, f, k, &size);
            put_activated(s, a, i * f + j, before, EPS * (double)(k + 1) * (size + fabs(b)));
        }
}

static void ref_dense_dx(const struct step *s, const struct answer *a) /* and matmul_nt */
{
    int64_t f = s->in[1].size[1], k = s->in[1].size[0], n = elements(&s->in[0]) / f;
    for (int64_t i = 0; i < n; i++)
        for (int64_t j = 0; j < k; j++) {
            double size, v = s->inputs > 2 ? IN(2)[i * k + j] : 0, g = dot(IN(0) + i * f, 1, IN(1) + j * f, 1, f, &size);
            put_sloped(s, a, i * k + j, g, v, EPS * (double)f * size);
        }
}

static void ref_matmul_tn(const struct step *s, const struct answer *a)
{
    int64_t k = last_size(&s->in[0]), f = last_size(&s->in[1]), n = elements(&s->in[0]) / k;
    for (int64_t i = 0; i < k; i++)
        for (int64_t j = 0; j < f; j++) {
            double size, sum = dot(IN(0) + i, k, IN(1) + j, f, n, &size);
            put(a, 0, i * f + j, sum, EPS * (double)n * size);
        }
}

static void ref_batch_dot(const struct step *s, const struct answer *a)
{
    const int64_t rows = s->in[0].size[1], columns = s->in[1].size[1], k = s->in[0].size[2];
    for (int64_t i = 0; i < elements(&s->out[0]); i++) {
        const int64_t left = i / columns, right = i / columns / rows * columns + i % columns;
        double size, sum = dot(IN(0) + left * k, 1, IN(1) + right * k, 1, k, &size);
        put(a, 0, i, sum, EPS * (double)k * size);
    }
}

static void ref_add_bias(const struct step *s, const struct answer *a)
{
    int64_t f = last_size(&s->in[0]);
    for (int64_t i = 0; i < elements(&s->in[0]); i++)
        put(a, 0, i, (double)IN(0)[i] + IN(1)[i % f], EPS * fabs((double)IN(0)[i] + IN(1)[i % f]));
}

static void ref_scale_columns(const struct step *s, const struct answer *a)
{
    int64_t f = last_size(&s->in[0]);
    for (int64_t i = 0; i < elements(&s->in[0]); i++)
        put(a, 0, i, (double)IN(0)[i] * IN(1)[i % f], EPS * fabs((double)IN(0)[i] * IN(1)[i % f]));
}

static void ref_repeat_rows(const struct step *s, const struct answer *a)
{
    for (int64_t i = 0; i < elements(&s->out[0]); i++) put(a, 0, i, IN(1)[i % elements(&s->in[1])], 0);
}

static void ref_sum_rows(const struct step *s, const struct answer *a)
{
    int64_t f = last_size(&s->in[0]), n = elements(&s->in[0]) / f;
    const float one = 1;
    const int whole = is_whole(&s->in[0]);
    for (int64_t j = 0; j < f; j++) {
        double size, sum = dot(IN(0) + j, f, &one, 0, n, &size);
        put(a, 0, j, sum, sum_error((double)n, size, whole));
    }
}

/* ---- rectifiers ---- */

static void ref_bounded_relu(const struct step *s, const struct answer *a)
{
    const double slope = s->attr.negative_slope, threshold = s->attr.threshold;
    for (int64_t i = 0; i < elements(&s->out[0]); i++) {
        double x = IN(0)[i], below = slope == 0 && x == x ? 0 : slope * (x - threshold);
        if (x > threshold) put(a, 0, i, fmin(x, s->attr.limit), 0);
        else put(a, 0, i, below, 2 * EPS * slope * (fabs(x) + threshold));
    }
}

static void ref_bounded_relu_dx(const struct step *s, const struct answer *a)
{
    for (int64_t i = 0; i < elements(&s->out[0]); i++) {
        double g = IN(0)[i], x = IN(1)[i], below = s->attr.negative_slope * g;
        put(a, 0, i, x > s->attr.threshold ? x < s->attr.limit ? g : 0 : below, EPS * fabs(below));
    }
}

static void ref_prelu_parts(const struct step *s, const struct answer *a)
{
    for (int64_t i = 0; i < elements(&s->out[0]); i++) {
        double y = (double)IN(0)[i] * fmin(IN(1)[i], 0);
        put(a, 0, i, y, EPS * fabs(y));
    }
}

/* Values where x is positive, else the slope of the element times it. Slopes have a row's axes, some of size 1. */
static void put_with_slopes(const struct step *s, const struct answer *a, const struct tensor *x, const struct tensor *slopes)
{
    for (int64_t i = 0; i < elements(x); i++) {
        int64_t at = 0, step = 1, rest = i;
        for (int axis = slopes->rank - 1; axis >= 0; axis--) {
            if (slopes->size[axis] > 1) at += rest % x->size[axis + 1] * step;
            step *= slopes->size[axis];
            rest /= x->size[axis + 1];
        }
        double v = IN(0)[i], y = ((const float *)x->data)[i] > 0 ? v : v * ((const float *)slopes->data)[at];
        put(a, 0, i, y, EPS * fabs(y));
    }
}
static void ref_prelu(const struct step *s, const struct answer *a) { put_with_slopes(s, a, &s->in[0], &s->in[1]); }
static void ref_prelu_dx(const struct step *s, const struct answer *a) { put_with_slopes(s, a, &s->in[1], &s->in[2]); }

/* The floats of memory that the op asks for: as the workspace in fastnn/ops/matrix.py. */
static int64_t sum_rows_workspace(int64_t n, int64_t f)
{
    const int64_t parts = (n + 255) / 256;
    return parts >= 4 ? parts * f : 0;
}

#endif
