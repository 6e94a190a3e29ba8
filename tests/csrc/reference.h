/* What every kernel should give: obvious loops in double precision. Each function here fills in, for every output of a
 * step, the wanted numbers and how far the kernel's may be from them: terms * eps * magnitude, 0 where it must be exact.
 * Sizes in letters: N batch, K summed, F outputs, C classes, P parameters. */
#ifndef FASTNN_REFERENCE_H
#define FASTNN_REFERENCE_H

#include <float.h>
#include <math.h>
#include <stdint.h>
#include <string.h>

#include "kernels.h"

#define EPS ((double)FLT_EPSILON)
#define IN(i) ((const float *)s->in[i].data)
#define OUT(i) ((const float *)s->out[i].data) /* before the step */

/* Where a reference writes: want[o][i] and slack[o][i] for element i of output o. */
struct answer {
    double *want[MAX_OUTPUTS], *slack[MAX_OUTPUTS];
};
typedef void reference(const struct step *s, const struct answer *a);

static void put(const struct answer *a, int o, int64_t i, double want, double slack)
{
    a->want[o][i] = want;
    a->slack[o][i] = slack;
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

static double logistic(double x) { return x < 0 ? exp(x) / (1 + exp(x)) : 1 / (1 + exp(-x)); }
static double normal_cdf(double x) { return 0.5 * erfc(-x / sqrt(2)); }
static double mish_slope(double x)
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
    static double f_##name(double x, const struct attributes *a) { (void)a; return x != x ? x : fx; }  \
    static double slope_##name(double v, const struct attributes *a) { (void)a; (void)v; return dx; }
FUNCTIONS(DEFINE)
#define ROW(name, fx, dx, f_off, slope_off) {#name, f_##name, slope_##name, f_off, slope_off},
static const struct function functions[] = {FUNCTIONS(ROW)}; /* those of dense come first, in their order */
#undef DEFINE
#undef ROW
enum { N_FUNCTIONS = sizeof functions / sizeof *functions };

static double size_16(double x) { return 1 + fmin(fabs(x), 15); }
static double tiny(double x) { return 4.0 * FLT_MIN * (1 + fmin(fabs(x), 1e4)); } /* denormals are zero */

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
REF_1(add_rows, x + y, 1)

static double sum_of(const float *x, int64_t n, int power) /* power 1: of |x|, 2: of x^2, 0: of x */
{
    double sum = 0;
    for (int64_t i = 0; i < n; i++) sum += power == 2 ? (double)x[i] * x[i] : power ? fabs((double)x[i]) : (double)x[i];
    return sum;
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

/* The sum of x[i * x_step] * y[i * y_step] over n, and of the absolute values. */
static double dot(const float *x, int64_t x_step, const float *y, int64_t y_step, int64_t n, double *size)
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

static void ref_dense(const struct step *s, const struct answer *a) /* and matmul */
{
    int64_t n = s->in[0].size[0], k = s->in[0].size[1], f = s->in[1].size[1];
    for (int64_t i = 0; i < n; i++)
        for (int64_t j = 0; j < f; j++) {
            const struct function *act = &functions[s->attr.activation];
            double size, b = s->inputs > 2 ? IN(2)[j] : 0, before = b + dot(IN(0) + i * k, 1, IN(1) + j, f, k, &size);
            double y = act->f(before, &s->attr), slope = 1.2 + (s->attr.activation == ACT_exponential) * y;
            double off = act->f_off * size_16(before) + 8 * fabs(y) * (s->attr.activation != ACT_linear);
            put(a, 0, i * f + j, y, EPS * ((double)(k + 1) * (size + fabs(b)) * slope + off));
        }
}

static void ref_dense_dx(const struct step *s, const struct answer *a) /* and matmul_nt */
{
    int64_t n = s->in[0].size[0], f = s->in[0].size[1], k = s->in[1].size[0];
    for (int64_t i = 0; i < n; i++)
        for (int64_t j = 0; j < k; j++) {
            const struct function *act = &functions[s->attr.activation];
            double size, v = s->inputs > 2 ? IN(2)[i * k + j] : 0, g = dot(IN(0) + i * f, 1, IN(1) + j * f, 1, f, &size);
            double slope = act->slope(v, &s->attr);
            double off = act->slope_off * size_16(v) + 8 * fabs(slope) * (s->attr.activation != ACT_linear);
            put(a, 0, i * k + j, g * slope, EPS * ((double)f * size * fabs(slope) + off * fabs(g)) + tiny(g));
        }
}

static void ref_matmul_tn(const struct step *s, const struct answer *a)
{
    int64_t n = s->in[0].size[0], k = s->in[0].size[1], f = s->in[1].size[1];
    for (int64_t i = 0; i < k; i++)
        for (int64_t j = 0; j < f; j++) {
            double size, sum = dot(IN(0) + i, k, IN(1) + j, f, n, &size);
            put(a, 0, i * f + j, sum, EPS * (double)n * size);
        }
}

static void ref_add_bias(const struct step *s, const struct answer *a)
{
    int64_t n = s->in[0].size[0], f = s->in[0].size[1];
    for (int64_t i = 0; i < n * f; i++) put(a, 0, i, (double)IN(0)[i] + IN(1)[i % f], EPS * fabs((double)IN(0)[i] + IN(1)[i % f]));
}

static void ref_sum_rows(const struct step *s, const struct answer *a)
{
    int64_t n = s->in[0].size[0], f = s->in[0].size[1];
    const float one = 1;
    for (int64_t j = 0; j < f; j++) {
        double size, sum = dot(IN(0) + j, f, &one, 0, n, &size);
        put(a, 0, j, sum, EPS * (double)n * size);
    }
}

/* ------------------------------------------------------------------------------------------- softmax and losses */

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
    double total = *(const double *)s->out[0].data;
    for (int64_t i = 0; i < s->in[0].size[0]; i++) total += IN(0)[i];
    put(a, 0, 0, total, 0);
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

/* ------------------------------------------------------------------------------------------------ data and dropout */

static void ref_gather(const struct step *s, const struct answer *a)
{
    int64_t n = s->out[0].size[0], f = elements(&s->out[0]) / n;
    const int64_t *index = s->in[1].data;
    for (int64_t i = 0; i < n * f; i++) put(a, 0, i, IN(0)[index[i / f] * f + i % f], 0);
}

static void ref_scatter(const struct step *s, const struct answer *a)
{
    int64_t n = s->in[0].size[0], f = s->in[0].size[1];
    const int64_t *index = s->in[1].data;
    for (int64_t i = 0; i < elements(&s->out[0]); i++) put(a, 0, i, OUT(0)[i], 0);
    for (int64_t i = 0; i < n * f; i++) put(a, 0, index[i / f] * f + i % f, IN(0)[i], 0);
}

/* Philox4x32-10 as Salmon et al. (2011) print it. */
static void philox_reference(const uint32_t counter[4], const uint32_t key[2], uint32_t words[4])
{
    uint32_t c[4] = {counter[0], counter[1], counter[2], counter[3]}, k[2] = {key[0], key[1]};
    for (int round = 0; round < 10; round++, k[0] += 0x9E3779B9u, k[1] += 0xBB67AE85u) {
        uint64_t a = (uint64_t)0xD2511F53u * c[0], b = (uint64_t)0xCD9E8D57u * c[2];
        uint32_t next[4] = {(uint32_t)(b >> 32) ^ c[1] ^ k[0], (uint32_t)b, (uint32_t)(a >> 32) ^ c[3] ^ k[1], (uint32_t)a};
        memcpy(c, next, sizeof c);
    }
    memcpy(words, c, sizeof c);
}

static void ref_dropout(const struct step *s, const struct answer *a)
{
    uint64_t now = (uint64_t)*(const int64_t *)s->in[1].data;
    for (int64_t i = 0; i < elements(&s->out[0]); i++) {
        uint32_t counter[4] = {(uint32_t)(i / 64 * 16 + i % 16), (uint32_t)now, (uint32_t)(now >> 32), s->attr.stream};
        uint32_t key[2] = {(uint32_t)s->attr.seed, (uint32_t)(s->attr.seed >> 32)}, words[4];
        philox_reference(counter, key, words);
        float number = (float)(words[i / 16 % 4] >> 8) / 16777216.0f, scale = (float)(1.0 / (1.0 - s->attr.rate));
        volatile float kept = IN(0)[i] * scale;
        put(a, 0, i, number < (float)s->attr.rate ? 0 : kept, 0);
    }
}

/* -------------------------------------------------------------------------------------------------------- updates */

static void ref_momentum(const struct step *s, const struct answer *a) /* and sgd: without a second output */
{
    for (int64_t i = 0; i < elements(&s->out[0]); i++) {
        int plain = s->outputs == 1;
        double p = OUT(0)[i], v = plain ? 0 : OUT(1)[i], move = (double)IN(1)[0] * IN(0)[i], keep = plain ? 0 : s->attr.momentum;
        double speed = keep * v - move, step = s->attr.nesterov ? keep * speed - move : speed;
        put(a, 0, i, p + step, 4 * EPS * (fabs(p) + fabs(v) + fabs(move)));
        if (!plain) put(a, 1, i, speed, 4 * EPS * (fabs(v) + fabs(move)));
    }
}

static void adam_reference(const struct step *s, const struct answer *a, double decay)
{
    for (int64_t i = 0; i < elements(&s->out[0]); i++) {
        double p = OUT(0)[i], m = OUT(1)[i], v = OUT(2)[i], g = IN(0)[i], rate = IN(1)[1];
        double mean = m + (g - m) * (1 - s->attr.beta_1), square = v + (g * g - v) * (1 - s->attr.beta_2);
        double root = sqrt(square) + s->attr.epsilon, size = fabs(p) + rate * (fabs(m) + fabs(g)) / root;
        put(a, 0, i, p - p * decay * IN(1)[0] - rate * mean / root, 8 * EPS * size);
        put(a, 1, i, mean, 4 * EPS * (fabs(m) + fabs(g)));
        put(a, 2, i, square, 4 * EPS * (v + g * g));
    }
}
static void ref_adam(const struct step *s, const struct answer *a) { adam_reference(s, a, 0); }
static void ref_adamw(const struct step *s, const struct answer *a) { adam_reference(s, a, s->attr.weight_decay); }

static void ref_rmsprop(const struct step *s, const struct answer *a) /* and with momentum: a third output */
{
    for (int64_t i = 0; i < elements(&s->out[0]); i++) {
        double p = OUT(0)[i], v = OUT(1)[i], g = IN(0)[i], rate = IN(1)[0];
        double square = s->attr.rho * v + (1 - s->attr.rho) * g * g, move = rate * g / sqrt(square + s->attr.epsilon);
        double b = s->outputs > 2 ? OUT(2)[i] : 0, speed = s->attr.momentum * b + move;
        put(a, 0, i, p - speed, 8 * EPS * (fabs(p) + fabs(b) + fabs(move)));
        put(a, 1, i, square, 4 * EPS * (v + g * g));
        if (s->outputs > 2) put(a, 2, i, speed, 8 * EPS * (fabs(b) + fabs(move)));
    }
}

#endif
