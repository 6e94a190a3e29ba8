/* What every kernel should give: obvious loops in double precision, family by family. Each function fills in, for every
 * output of a step, the wanted numbers and how far the kernel's may be from them: terms * eps * magnitude, 0 where it must be
 * exact. Here is what the families share. */
#ifndef FASTNN_REFERENCE_H
#define FASTNN_REFERENCE_H

#include <float.h>

#include "harness.h"

#define EPS ((double)FLT_EPSILON)
#define IN(i) ((const float *)s->in[i].data)
#define OUT(i) ((const float *)s->out[i].data) /* before the step */

static inline void put(const struct answer *a, int o, int64_t i, double want, double slack)
{
    a->want[o][i] = want;
    a->slack[o][i] = slack;
}

/* Columns: the last axis. */
static inline int64_t last_size(const struct tensor *t) { return t->size[t->rank - 1]; }

static inline double sum_of(const float *x, int64_t n, int power) /* power 1: of |x|, 2: of x^2, 0: of x */
{
    double sum = 0;
    for (int64_t i = 0; i < n; i++) sum += power == 2 ? (double)x[i] * x[i] : power ? fabs((double)x[i]) : (double)x[i];
    return sum;
}

/* The sum of x[i * x_step] * y[i * y_step] over n, and of the absolute values. */
static inline double dot(const float *x, int64_t x_step, const float *y, int64_t y_step, int64_t n, double *size)
{
    double sum = 0;
    *size = 0;
    for (int64_t i = 0; i < n; i++) {
        double term = (double)x[i * x_step] * y[i * y_step];
        sum += term;
        *size += fabs(term);
    }
    return sum;
}

/* ------------------------------------------------------------------------------------------------- activations */

/* name, f(x), slope by v (the output, for the last four the input x), and how many eps of magnitude 1 the two may be off
 * beyond eight eps of their own size. 1 + |x| counts up to 16. */
#define FUNCTIONS(X)                                                                                                      \
    X(linear, x, 1, 0, 0)                                                                                                 \
    X(relu, x > 0 ? x : 0, v > 0, 0, 0)                                                                                   \
    X(sigmoid, logistic(x), v * (1 - v), 0, 0)                                                                            \
    X(tanh, tanh(x), 1 - v * v, 0, 0)                                                                                     \
    X(softplus, fmax(x, 0) + log1p(exp(-fabs(x))), -expm1(-v), 0, 0)                                                      \
    X(exponential, exp(x), v, 0, 0)                                                                                       \
    X(softsign, x / (1 + fabs(x)), (1 - fabs(v)) * (1 - fabs(v)), 0, 0)                                                   \
    X(hard_sigmoid, fmin(fmax(x / 6 + 0.5, 0), 1), v > 0 && v < 1 ? 1.0 / 6 : 0, 1, 0)                                    \
    X(relu6, fmin(fmax(x, 0), 6), v > 0 && v < 6, 0, 0)                                                                   \
    X(selu, 1.0507009873554805 * (x > 0 ? x : 1.6732632423543772 * expm1(x)),                                             \
      v > 0 ? 1.0507009873554805 : v + 1.7580993408473766, 0, 2)                                                          \
    X(gelu, x * normal_cdf(x), normal_cdf(v) + v * exp(-v * v / 2) / sqrt(2 * M_PI), 3, 4)                                \
    X(silu, x * logistic(x), logistic(v) * (1 + v * (1 - logistic(v))), 0, 8)                                             \
    X(mish, x * tanh(log1p(exp(fmin(x, 100)))), mish_slope(v), 0, 8)                                                      \
    X(hard_silu, x * fmin(fmax(x / 6 + 0.5, 0), 1), v <= -3 ? 0 : v >= 3 ? 1 : v / 3 + 0.5, 2, 2)                         \
    X(leaky_relu, x > 0 ? x : a->negative_slope * x, v > 0 ? 1 : a->negative_slope, 0, 0)                                 \
    X(elu, x > 0 ? x : a->alpha * expm1(x), v > 0 ? 1 : v + a->alpha, 0, 2)

#ifndef M_PI
#define M_PI 3.14159265358979323846
#endif

static inline double logistic(double x) { return x < 0 ? exp(x) / (1 + exp(x)) : 1 / (1 + exp(-x)); }
static inline double normal_cdf(double x) { return 0.5 * erfc(-x / sqrt(2)); }
static inline double mish_slope(double x)
{
    double t = tanh(log1p(exp(fmin(x, 100))));
    return t + x * (1 - t * t) * logistic(x);
}

struct function {
    const char *name;
    double (*f)(double x, const struct attributes *a), (*slope)(double v, const struct attributes *a);
    double f_off, slope_off;
};
#define DEFINE(name, fx, dx, f_off, slope_off)                                                         \
    static inline double f_##name(double x, const struct attributes *a) { (void)a; return x != x ? x : fx; }  \
    static inline double slope_##name(double v, const struct attributes *a) { (void)a; (void)v; return dx; }
FUNCTIONS(DEFINE)
#define ROW(name, fx, dx, f_off, slope_off) {#name, f_##name, slope_##name, f_off, slope_off},
static const struct function functions[] = {FUNCTIONS(ROW)}; /* those of dense come first, in their order */
#undef DEFINE
#undef ROW
enum { N_FUNCTIONS = sizeof functions / sizeof *functions };

static inline double size_16(double x) { return 1 + fmin(fabs(x), 15); }
static inline double tiny(double x) { return 4.0 * FLT_MIN * (1 + fmin(fabs(x), 1e4)); } /* denormals are zero */

/* How far a sum of so many terms, whose absolute values add up to `size`, may be off. Sums of whole numbers are exact. */
static inline double sum_error(double terms, double size, int whole)
{
    return whole && size < 16777216.0 ? 0 : EPS * terms * size;
}

static inline int is_whole(const struct tensor *t)
{
    const float *x = t->data;
    for (int64_t i = 0; i < elements(t); i++)
        if (x[i] != floorf(x[i])) return 0;
    return 1;
}

/* Philox4x32-10 as Salmon et al. (2011) print it. */
static inline void philox_reference(const uint32_t counter[4], const uint32_t key[2], uint32_t words[4])
{
    uint32_t c[4] = {counter[0], counter[1], counter[2], counter[3]}, k[2] = {key[0], key[1]};
    for (int round = 0; round < 10; round++, k[0] += 0x9E3779B9u, k[1] += 0xBB67AE85u) {
        uint64_t a = (uint64_t)0xD2511F53u * c[0], b = (uint64_t)0xCD9E8D57u * c[2];
        uint32_t next[4] = {(uint32_t)(b >> 32) ^ c[1] ^ k[0], (uint32_t)b, (uint32_t)(a >> 32) ^ c[3] ^ k[1], (uint32_t)a};
        memcpy(c, next, sizeof c);
    }
    memcpy(words, c, sizeof c);
}

/* The words of counter `first` at the training step that an input of the step holds. */
static inline void words_of(const struct step *s, const struct tensor *number, uint32_t first, uint32_t words[4])
{
    const uint64_t now = (uint64_t)*(const int64_t *)number->data;
    const uint32_t counter[4] = {first, (uint32_t)now, (uint32_t)(now >> 32), s->attr.stream};
    const uint32_t key[2] = {(uint32_t)s->attr.seed, (uint32_t)(s->attr.seed >> 32)};
    philox_reference(counter, key, words);
}

/* The word of element i. */
static inline uint32_t word_of(const struct step *s, const struct tensor *number, int64_t i)
{
    uint32_t words[4];
    words_of(s, number, (uint32_t)(i / 64 * 16 + i % 16), words);
    return words[i / 16 % 4];
}

/* What a fused op gives for a sum `before` its activation that may be wrong by `error`. No slope is larger than selu's 1.76
 * but that of exponential. */
static inline void put_activated(const struct step *s, const struct answer *a, int64_t i, double before, double error)
{
    const int32_t code = s->attr.activation;
    const double y = functions[code].f(before, &s->attr), slope = 1.76 + (code == ACT_exponential) * y;
    if (code == ACT_linear) put(a, 0, i, before, error);
    else put(a, 0, i, y, error * slope + EPS * (8 * fabs(y) + functions[code].f_off * size_16(before)) + tiny(before));
}

/* The gradient g, which may be wrong by `error`, times the slope of the activation that gave v. */
static inline void put_sloped(const struct step *s, const struct answer *a, int64_t i, double g, double v, double error)
{
    const int32_t code = s->attr.activation;
    const double slope = functions[code].slope(v, &s->attr);
    const double off = functions[code].slope_off * size_16(v) + 8 * fabs(slope);
    if (code == ACT_linear) put(a, 0, i, g, error);
    else put(a, 0, i, g * slope, error * fabs(slope) + EPS * off * fabs(g) + tiny(g));
}

#endif
