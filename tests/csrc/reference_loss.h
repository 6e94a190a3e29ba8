/* Softmax, losses and metrics. Sizes in letters: N batch, C classes. */
#ifndef FASTNN_REFERENCE_LOSS_H
#define FASTNN_REFERENCE_LOSS_H

#include "reference.h"

static double row_most(const float *x, int64_t c)
{
    double most = x[0];
    for (int64_t i = 1; i < c; i++) most = fmax(most, x[i]);
    return most;
}

static double exp_sum(const float *x, int64_t c, double most)
{
    double sum = 0;
    for (int64_t i = 0; i < c; i++) sum += exp(x[i] - most);
    return sum;
}

static void ref_softmax(const struct step *s, const struct answer *a)
{
    int64_t n = s->in[0].size[0], c = s->in[0].size[1];
    for (int64_t i = 0; i < n * c; i++) {
        const float *x = IN(0) + i / c * c;
        double most = row_most(x, c), y = exp(IN(0)[i] - most) / exp_sum(x, c, most);
        put(a, 0, i, y, EPS * y * ((double)c + 8) * (1 + fmin(most - IN(0)[i], 100) / 8) + tiny(1));
    }
}

static void ref_softmax_dx(const struct step *s, const struct answer *a)
{
    int64_t n = s->in[0].size[0], c = s->in[0].size[1];
    for (int64_t i = 0; i < n * c; i++) {
        double size, y = IN(1)[i], g = IN(0)[i], sum = dot(IN(0) + i / c * c, 1, IN(1) + i / c * c, 1, c, &size);
        put(a, 0, i, y * (g - sum), EPS * ((double)c + 3) * y * (fabs(g) + size) + tiny(g));
    }
}

static double inside(double p) { return fmin(fmax(p, (double)1e-7f), (double)(1.0f - 1e-7f)); }
static int is_inside(double p) { return p > (double)1e-7f && p < (double)(1.0f - 1e-7f); }

/* Losses that are means along the row: value and slope by p and y, and their magnitudes. */
#define MEANS(X)                                                                                                          \
    X(mean_squared_error, (p - y) * (p - y), 2 * (p - y), pow(fabs(p) + fabs(y), 2), 2 * (fabs(p) + fabs(y)))             \
    X(mean_absolute_error, fabs(p - y), (p > y) - (p < y), fabs(p) + fabs(y), 1)                                          \
    X(binary_crossentropy, -(y * log(inside(p)) + (1 - y) * log1p(-inside(p))),                                           \
      is_inside(p) ? (inside(p) - y) / (inside(p) * (1 - inside(p))) : 0, 1 - log(inside(p) * (1 - inside(p))),           \
      1 / (inside(p) * (1 - inside(p))))                                                                                  \
    X(sigmoid_crossentropy, fmax(p, 0) - y * p + log1p(exp(-fabs(p))), logistic(p) - y, 1 + fabs(p) + fabs(y), 1)

#define DEFINE(name, value, slope, value_size, slope_size)                                                \
    static void ref_##name(const struct step *s, const struct answer *a)                                  \
    {                                                                                                     \
        int64_t n = s->in[0].size[0], c = s->in[0].size[1];                                               \
        for (int64_t i = 0; i < n; i++) {                                                                 \
            double sum = 0, size = 0;                                                                     \
            for (int64_t j = 0; j < c; j++) {                                                             \
                double p = IN(0)[i * c + j], y = IN(1)[i * c + j];                                        \
                sum += (value) / (double)c;                                                               \
                size += (value_size) / (double)c;                                                         \
            }                                                                                             \
            put(a, 0, i, sum, EPS * ((double)c + 8) * size);                                              \
        }                                                                                                 \
    }                                                                                                     \
    static void ref_##name##_dx(const struct step *s, const struct answer *a)                             \
    {                                                                                                     \
        int64_t n = s->in[1].size[0], c = s->in[1].size[1];                                               \
        for (int64_t i = 0; i < n * c; i++) {                                                             \
            double g = IN(0)[i / c] / (double)c, p = IN(1)[i], y = IN(2)[i];                              \
            put(a, 0, i, g * (slope), EPS * 12 * fabs(g) * (slope_size));                                 \
        }                                                                                                 \
    }
MEANS(DEFINE)
#undef DEFINE

/* The target of class j of row i: from rows of C numbers, or from labels. */
static double target_of(const struct tensor *y, int64_t i, int64_t j)
{
    const float *values = y->data;
    return y->size[1] == 1 ? values[i] == (float)j : values[i * y->size[1] + j];
}

static void ref_categorical(const struct step *s, const struct answer *a)
{
    int64_t n = s->in[0].size[0], c = s->in[0].size[1];
    for (int64_t i = 0; i < n; i++) {
        double total = sum_of(IN(0) + i * c, c, 0), loss = 0, size = 0;
        for (int64_t j = 0; j < c; j++) {
            double l = log(inside(IN(0)[i * c + j] / total));
            loss -= target_of(&s->in[1], i, j) * l;
            size = fmax(size, fabs(l));
        }
        put(a, 0, i, loss, EPS * ((double)c + 8) * (size + 2));
    }
}

static void ref_categorical_dx(const struct step *s, const struct answer *a)
{
    int64_t n = s->in[1].size[0], c = s->in[1].size[1];
    for (int64_t i = 0; i < n; i++) {
        double g = IN(0)[i], total = sum_of(IN(1) + i * c, c, 0), sum = 0, size = 0;
        for (int64_t j = 0; j < c; j++) {
            double q = IN(1)[i * c + j] / total, slope = is_inside(q) ? -target_of(&s->in[2], i, j) / q : 0;
            sum += slope * q;
            size += fabs(slope * q);
        }
        for (int64_t j = 0; j < c; j++) {
            double q = IN(1)[i * c + j] / total, slope = is_inside(q) ? -target_of(&s->in[2], i, j) / q : 0;
            put(a, 0, i * c + j, g * (slope - sum) / total, EPS * ((double)c + 8) * fabs(g) * (fabs(slope) + size) / total);
        }
    }
}

static void ref_softmax_loss(const struct step *s, const struct answer *a)
{
    int64_t n = s->in[0].size[0], c = s->in[0].size[1];
    for (int64_t i = 0; i < n; i++) {
        const float *z = IN(0) + i * c;
        double most = row_most(z, c), log_total = log(exp_sum(z, c, most)), loss = 0, size = 0;
        for (int64_t j = 0; j < c; j++) {
            loss -= target_of(&s->in[1], i, j) * (z[j] - most - log_total);
            size += target_of(&s->in[1], i, j) * (fabs((double)z[j]) + fabs(most) + log_total + 1);
        }
        put(a, 0, i, loss, EPS * ((double)c + 8) * size);
    }
}

static void ref_softmax_loss_dx(const struct step *s, const struct answer *a)
{
    int64_t n = s->in[1].size[0], c = s->in[1].size[1];
    for (int64_t i = 0; i < n; i++) {
        const float *z = IN(1) + i * c;
        double g = IN(0)[i], most = row_most(z, c), total = exp_sum(z, c, most), sum = 0;
        for (int64_t j = 0; j < c; j++) sum += target_of(&s->in[2], i, j);
        for (int64_t j = 0; j < c; j++) {
            double p = exp(z[j] - most) / total * sum, y = target_of(&s->in[2], i, j);
            put(a, 0, i * c + j, g * (p - y), EPS * ((double)c + 12) * fabs(g) * (p * (1 + fmin(most - z[j], 100) / 8) + y) + tiny(g));
        }
    }
}

static void ref_mean_seed(const struct step *s, const struct answer *a)
{
    for (int64_t i = 0, n = s->out[0].size[0]; i < n; i++) put(a, 0, i, (double)(float)(1.0 / (double)n), 0);
}

static void ref_sum_all(const struct step *s, const struct answer *a)
{
    int64_t n = s->in[0].size[0];
    put(a, 0, 0, sum_of(IN(0), n, 0), EPS * (double)n * sum_of(IN(0), n, 1));
}

static void ref_accumulate(const struct step *s, const struct answer *a)
{
    int64_t size = elements(&s->out[0]);
    for (int64_t j = 0; j < size; j++) {
        double total = ((const double *)s->out[0].data)[j];
        for (int64_t i = 0; i < s->in[0].size[0]; i++) total += IN(0)[i * size + j];
        put(a, 0, j, total, 0);
    }
}

/* -------------------------------------------------------------------------------------------------------- metrics */

static void ref_binary_accuracy(const struct step *s, const struct answer *a)
{
    int64_t n = s->in[0].size[0], c = s->in[0].size[1];
    for (int64_t i = 0; i < n; i++) {
        double right = 0;
        for (int64_t j = i * c; j < (i + 1) * c; j++) right += (IN(0)[j] > (float)s->attr.threshold) == (IN(1)[j] == 1);
        put(a, 0, i, right / (double)c, EPS);
    }
}

static int64_t first_most(const float *x, int64_t c)
{
    int64_t at = 0;
    for (int64_t j = 1; j < c; j++) at = x[j] > x[at] ? j : at;
    return at;
}

static void ref_categorical_accuracy(const struct step *s, const struct answer *a)
{
    int64_t n = s->in[0].size[0], c = s->in[0].size[1];
    for (int64_t i = 0; i < n; i++) put(a, 0, i, target_of(&s->in[1], i, first_most(IN(0) + i * c, c)), 0);
}

#endif
