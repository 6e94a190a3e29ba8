/* Focal losses, overlaps of regions and counts of pixels. Sizes in letters: N batch, P pixels, C classes. */
#ifndef FASTNN_REFERENCE_OVERLAP_H
#define FASTNN_REFERENCE_OVERLAP_H

#include "reference_loss.h"

/* ---------------------------------------------------------------------------------------------------- focal losses */

static double bounded_power(double e, double gamma) { return pow(fmax(e, (double)1e-7f), gamma); }

/* What a term of a binary focal loss is made of: probability q, its complement r, cross-entropy b, error e, weight w. */
struct focal {
    double q, r, b, e, w, gamma;
};

static struct focal focal_of(const struct step *s, double p, double y, int logits)
{
    const struct attributes *a = &s->attr;
    struct focal f = {.q = logits ? logistic(p) : p, .r = logits ? logistic(-p) : 1 - p, .gamma = a->gamma};
    f.b = logits ? fmax(p, 0) - y * p + log1p(exp(-fabs(p))) : -(y * log(inside(p)) + (1 - y) * log1p(-inside(p)));
    f.e = y * f.r + (1 - y) * f.q;
    f.w = y * a->positive + (1 - y) * a->negative;
    return f;
}

static void binary_focal(const struct step *s, const struct answer *a, int logits)
{
    int64_t n = s->in[0].size[0], c = s->in[0].size[1];
    for (int64_t i = 0; i < n; i++) {
        double sum = 0, size = 0;
        for (int64_t j = i * c; j < (i + 1) * c; j++) {
            const struct focal f = focal_of(s, IN(0)[j], IN(1)[j], logits);
            const double term = f.w * bounded_power(f.e, f.gamma) / (double)c;
            sum += term * f.b;
            size += term * (f.b + 1 + (logits ? 2 * fabs((double)IN(0)[j]) : 0)) * (1 + f.gamma * (1 + fabs(log(f.e))));
        }
        put(a, 0, i, sum, EPS * ((double)c + 24) * size);
    }
}
static void ref_binary_focal(const struct step *s, const struct answer *a) { binary_focal(s, a, 0); }
static void ref_sigmoid_focal(const struct step *s, const struct answer *a) { binary_focal(s, a, 1); }

static void binary_focal_dx(const struct step *s, const struct answer *a, int logits)
{
    int64_t n = s->in[1].size[0], c = s->in[1].size[1];
    for (int64_t i = 0; i < n * c; i++) {
        const double p = IN(1)[i], y = IN(2)[i], g = IN(0)[i / c] / (double)c;
        const struct focal f = focal_of(s, p, y, logits);
        const double by_q = logits ? f.q * f.r : 1, turn = f.gamma * bounded_power(f.e, f.gamma - 1) * by_q;
        const double rest = bounded_power(f.e, f.gamma) * by_q / (f.q * f.r);
        const double want = turn * (1 - 2 * y) * f.b + rest * ((1 - y) * f.q - y * f.r);
        const double size = turn * (f.b + 1 + (logits ? 2 * fabs(p) : 0)) + rest;
        put(a, 0, i, g * f.w * want, EPS * 32 * fabs(g) * f.w * size * (1 + (f.gamma + 1) * (1 + fabs(log(f.e)))));
    }
}
static void ref_binary_focal_dx(const struct step *s, const struct answer *a) { binary_focal_dx(s, a, 0); }
static void ref_sigmoid_focal_dx(const struct step *s, const struct answer *a) { binary_focal_dx(s, a, 1); }

/* The logarithm of the share of class j in row x (C). */
static double log_share(const float *x, int64_t c, int64_t j, int logits)
{
    if (logits) return x[j] - row_most(x, c) - log(exp_sum(x, c, row_most(x, c)));
    return log(inside(x[j] / sum_of(x, c, 0)));
}

static void class_focal(const struct step *s, const struct answer *a, int logits)
{
    const int64_t n = s->in[0].size[0], c = s->in[0].size[1];
    const double gamma = s->attr.gamma;
    for (int64_t i = 0; i < n; i++) {
        const float *x = IN(0) + i * c;
        double loss = 0, size = 0;
        for (int64_t j = 0; j < c; j++) {
            const double l = log_share(x, c, j, logits), e = -expm1(l), w = s->attr.class_weights[j] * target_of(&s->in[1], i, j);
            loss -= w * bounded_power(e, gamma) * l;
            size += w * (bounded_power(e, gamma) * (1 + gamma * fabs(log(e))) + gamma * bounded_power(e, gamma - 1)) * (1 - l);
        }
        put(a, 0, i, loss, EPS * ((double)c + 24) * size * (logits ? 1 + row_most(x, c) + 5 : 1));
    }
}

static void ref_class_focal(const struct step *s, const struct answer *a) { class_focal(s, a, 0); }
static void ref_softmax_focal(const struct step *s, const struct answer *a) { class_focal(s, a, 1); }

static void class_focal_dx(const struct step *s, const struct answer *a, int logits)
{
    const int64_t n = s->in[1].size[0], c = s->in[1].size[1];
    const double gamma = s->attr.gamma;
    for (int64_t i = 0; i < n; i++) {
        const float *x = IN(1) + i * c;
        double sum = 0, size = 0, g = IN(0)[i], total = sum_of(x, c, 0);
        for (int pass = 0; pass < 2; pass++)
            for (int64_t j = 0; j < c; j++) {
                const double l = log_share(x, c, j, logits), q = exp(l), e = -expm1(l);
                const double w = s->attr.class_weights[j] * target_of(&s->in[2], i, j), less = bounded_power(e, gamma - 1);
                const double h = w * (gamma * less * q * l - bounded_power(e, gamma));
                const double part = w * (gamma * fabs(gamma - 1) * less / e * fabs(l) +
                                         (gamma * less * (1 - l) + bounded_power(e, gamma)) * (1 + gamma * fabs(log(e))));
                const double slack = EPS * ((double)c + 32) * fabs(g) * (part + q * size) * (logits ? 12 : 1);
                if (!pass) sum += h, size += part;
                else if (logits) put(a, 0, i * c + j, g * (h - q * sum), slack + tiny(g));
                else put(a, 0, i * c + j, g * (h / q - sum) / total, slack / x[j] + EPS * fabs(g) * 32 * size / total);
            }
    }
}

static void ref_class_focal_dx(const struct step *s, const struct answer *a) { class_focal_dx(s, a, 0); }
static void ref_softmax_focal_dx(const struct step *s, const struct answer *a) { class_focal_dx(s, a, 1); }

/* -------------------------------------------------------------------------------------------------------- overlaps */

/* The target of class j at pixel q of all pixels: from C numbers, or from a label. */
static double truth_of(const struct tensor *y, int64_t q, int64_t j, int64_t c)
{
    const float *values = y->data;
    return last_size(y) < c ? values[q] == (float)j : values[q * c + j];
}

static void ref_overlap(const struct step *s, const struct answer *a)
{
    const int64_t n = s->in[0].size[0], pixels = s->in[0].size[1], c = s->in[0].size[2];
    for (int64_t i = 0; i < n * c; i++) {
        double sums[3] = {0};
        for (int64_t q = i / c * pixels; q < (i / c + 1) * pixels; q++) {
            const double p = IN(0)[q * c + i % c], y = truth_of(&s->in[1], q, i % c, c), w = s->inputs > 2 ? IN(2)[q] : 1;
            sums[0] += w * p * y;
            sums[1] += w * p * (1 - y);
            sums[2] += w * (1 - p) * y;
        }
        for (int k = 0; k < 3; k++) put(a, 0, (i / c * 3 + k) * c + i % c, sums[k], EPS * 70 * sums[k]);
    }
}

static void ref_overlap_dx(const struct step *s, const struct answer *a)
{
    const int64_t pixels = s->out[0].size[1], c = s->out[0].size[2];
    for (int64_t i = 0; i < elements(&s->out[0]); i++) {
        const float *g = IN(0) + i / (pixels * c) * 3 * c + i % c;
        const double y = truth_of(&s->in[1], i / c, i % c, c), w = s->inputs > 2 ? IN(2)[i / c] : 1;
        put(a, 0, i, w * (y * ((double)g[0] - g[2 * c]) + (1 - y) * g[c]), EPS * 5 * w * (fabs(g[0]) + fabs(g[c]) + fabs(g[2 * c])));
    }
}

/* True positives and weighted errors of class j of the sums (3,C), or of all together. */
static void errors_of_sums(const struct step *s, const float *sums, int64_t c, int64_t j, double *right, double *wrong)
{
    *right = s->attr.epsilon;
    *wrong = 0;
    for (int64_t i = s->attr.joint ? 0 : j; i < (s->attr.joint ? c : j + 1); i++) {
        *right += sums[i];
        *wrong += s->attr.alpha * sums[c + i] + s->attr.beta * sums[2 * c + i];
    }
}

static void ref_tversky(const struct step *s, const struct answer *a)
{
    const int64_t c = s->in[0].size[2], parts = s->attr.joint ? 1 : c;
    for (int64_t i = 0; i < s->in[0].size[0]; i++) {
        double sum = 0, right, wrong;
        for (int64_t j = 0; j < parts; j++) {
            errors_of_sums(s, IN(0) + i * 3 * c, c, j, &right, &wrong);
            sum += wrong / (right + wrong) / (double)parts;
        }
        put(a, 0, i, sum, EPS * (2 * (double)c + 8) * sum);
    }
}

static void ref_tversky_dx(const struct step *s, const struct answer *a)
{
    const int64_t c = s->in[1].size[2], parts = s->attr.joint ? 1 : c;
    for (int64_t i = 0; i < elements(&s->in[1]); i++) {
        const int64_t row = i / (3 * c), k = i / c % 3;
        double right, wrong, g = IN(0)[row] / (double)parts;
        errors_of_sums(s, IN(1) + row * 3 * c, c, i % c, &right, &wrong);
        const double total = (right + wrong) * (right + wrong);
        const double want = g * (k ? (k == 1 ? s->attr.alpha : s->attr.beta) * right : -wrong) / total;
        put(a, 0, i, want, EPS * (2 * (double)c + 12) * fabs(want));
    }
}

/* ---------------------------------------------------------------------------------------------------------- counts */

static int64_t first_largest(const float *x, int64_t c)
{
    int64_t at = 0;
    for (int64_t i = 1; i < c; i++)
        if (x[i] > x[at]) at = i;
    return at;
}

static void ref_class_counts(const struct step *s, const struct answer *a)
{
    const int64_t n = s->in[0].size[0], pixels = s->in[0].size[1], c = s->in[0].size[2];
    for (int64_t i = 0; i < n * c; i++) {
        double counts[3] = {0};
        for (int64_t q = i / c * pixels; q < (i / c + 1) * pixels; q++) {
            const int found = first_largest(IN(0) + q * c, c) == i % c;
            const int true_one = last_size(&s->in[1]) < c ? IN(1)[q] == (float)(i % c) : first_largest(IN(1) + q * c, c) == i % c;
            if (found || true_one) counts[found && true_one ? 0 : found ? 1 : 2]++;
        }
        for (int k = 0; k < 3; k++) put(a, 0, (i / c * 3 + k) * c + i % c, counts[k], 0);
    }
}

static void ref_threshold_counts(const struct step *s, const struct answer *a)
{
    const int64_t n = s->in[0].size[0], pixels = s->in[0].size[1], c = s->in[0].size[2];
    for (int64_t i = 0; i < n * c; i++) {
        double counts[4] = {0};
        for (int64_t q = i / c * pixels; q < (i / c + 1) * pixels; q++) {
            const int found = IN(0)[q * c + i % c] > (float)s->attr.threshold, true_one = IN(1)[q * c + i % c] > 0.5f;
            counts[found ? !true_one : 3 - true_one]++;
        }
        for (int k = 0; k < 4; k++) put(a, 0, (i / c * 4 + k) * c + i % c, counts[k], 0);
    }
}

#endif
