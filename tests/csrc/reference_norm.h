/* Normalization: of batches, of groups, of rows. Sizes in letters: N items of S places with C channels in G groups; a batch
 * is one item with all its places, in which each channel is a group; a row is an item of one place and one group. */
#ifndef FASTNN_REFERENCE_NORM_H
#define FASTNN_REFERENCE_NORM_H

#include "reference.h"

enum { SINGLE = 64 }; /* so many numbers at most are added in single precision */

struct items {
    int64_t n, s, c, groups, size; /* size = C / G */
};

static struct items batch_of(const struct tensor *x)
{
    const int64_t c = last_size(x);
    return (struct items){1, elements(x) / c, c, c, 1};
}

static struct items groups_of(const struct tensor *x, int64_t groups)
{
    const int64_t n = x->size[0], c = last_size(x);
    return (struct items){n, elements(x) / n / c, c, groups, c / groups};
}

static struct items rows_in(const struct tensor *x)
{
    const int64_t c = last_size(x);
    return (struct items){elements(x) / c, 1, c, 1, c};
}

/* Where item and group of element i of x are among (N, 2, G): of the first of the two. */
static int64_t group_at(const struct items *z, int64_t i)
{
    return i / (z->s * z->c) * 2 * z->groups + i % z->c / z->size;
}

/* m (N, 2, G): mean and variance of each group of x, by the differences from one of its numbers: equal ones have none. */
static void find_moments(double *m, const float *x, const struct items *z)
{
    const int64_t total = z->n * z->s * z->c;
    const double count = (double)(z->s * z->size);
    memset(m, 0, sizeof *m * (size_t)(z->n * 2 * z->groups));
    for (int pass = 0; pass < 2; pass++) /* the mean first */
        for (int64_t i = 0; i < total; i++) {
            const int64_t at = group_at(z, i), one = i / (z->s * z->c) * z->s * z->c + i % z->c / z->size * z->size;
            const double d = (double)x[i] - x[one] - (pass ? m[at] : 0);
            m[at + pass * z->groups] += pass ? d * d / count : d / count;
        }
    for (int64_t i = 0; i < total; i += z->s * z->c)
        for (int64_t c = 0; c < z->c; c += z->size) m[group_at(z, i + c)] += x[i + c];
}

/* Deviations are summed from a number near the mean: the mean of a sixteenth of some of the numbers, at least. So their
 * squares add up to at most 17 times those from the mean, and here is room for that number's rounding. */
static void put_moments(const struct step *s, const struct answer *a, const struct items *z)
{
    double *m = a->want[0];
    find_moments(m, IN(0), z);
    for (int64_t i = 0; i < z->n * 2 * z->groups; i++) {
        const double variance = i / z->groups % 2 ? m[i] : m[i + z->groups];
        const double size = i / z->groups % 2 ? 32 * variance : sqrt(32 * variance);
        const double mean = i / z->groups % 2 ? m[i - z->groups] : 0; /* of chunks, is put together in double precision */
        a->slack[0][i] = EPS * (2 * SINGLE * size + fabs(m[i])) + pow(32 * DBL_EPSILON * mean, 2);
    }
}
static void ref_moments(const struct step *s, const struct answer *a)
{
    const struct items z = batch_of(&s->in[0]);
    put_moments(s, a, &z);
}
static void ref_group_moments(const struct step *s, const struct answer *a)
{
    const struct items z = groups_of(&s->in[0], s->attr.groups);
    put_moments(s, a, &z);
}

/* Of element i: x - mean, and 1 / sqrt(variance + epsilon). */
struct deviation {
    double d, inv;
};

static struct deviation deviation_of(const struct step *s, const struct items *z, const float *x, const float *mean,
                                     const float *variance, int64_t i)
{
    const int64_t at = group_at(z, i);
    return (struct deviation){x[i] - (double)mean[at], 1 / sqrt(variance[at] + s->attr.epsilon)};
}

/* gamma * (x - mean) * inv + beta, and the activation */
static void put_normalized(const struct step *s, const struct answer *a, const struct items *z, const float *mean,
                           const float *variance, const float *gamma, const float *beta)
{
    for (int64_t i = 0; i < elements(&s->out[0]); i++) {
        const struct deviation v = deviation_of(s, z, IN(0), mean, variance, i);
        const double y = gamma[i % z->c] * v.d * v.inv, shift = beta[i % z->c];
        put_activated(s, a, i, y + shift, 8 * EPS * (fabs(y) + fabs(shift)));
    }
}
static void ref_batch_norm(const struct step *s, const struct answer *a)
{
    const struct items z = batch_of(&s->in[0]);
    put_normalized(s, a, &z, IN(1), IN(1) + z.groups, IN(2), IN(3));
}
static void ref_group_norm(const struct step *s, const struct answer *a)
{
    const struct items z = groups_of(&s->in[0], s->in[1].size[2]);
    put_normalized(s, a, &z, IN(1), IN(1) + z.groups, IN(2), IN(3));
}
static void ref_normalize(const struct step *s, const struct answer *a)
{
    const struct items z = batch_of(&s->in[0]);
    put_normalized(s, a, &z, IN(1), IN(2), IN(3), IN(4));
}
static void ref_normalize_dx(const struct step *s, const struct answer *a)
{
    const int64_t c = last_size(&s->in[0]);
    for (int64_t i = 0; i < elements(&s->out[0]); i++) {
        const double dx = IN(0)[i] * IN(2)[i % c] / sqrt(IN(1)[i % c] + s->attr.epsilon);
        put(a, 0, i, dx, 6 * EPS * fabs(dx));
    }
}

/* The gradient of what comes out of batch_norm: g, or 0 where relu let nothing through. */
static double gradient_at(const struct step *s, const struct items *z, int relu, int64_t i)
{
    const struct deviation v = deviation_of(s, z, IN(1), IN(2), IN(2) + z->groups, i);
    return relu && IN(3)[i % z->c] * v.d * v.inv + IN(4)[i % z->c] <= 0 ? 0 : IN(0)[i];
}

/* (N, 2, C): sums over the places of g and of g * (x - mean) * inv */
static void put_gradient_sums(const struct step *s, const struct answer *a, const struct items *z, int relu)
{
    double *sum = a->want[0], *size = a->slack[0];
    memset(sum, 0, sizeof *sum * (size_t)(z->n * 2 * z->c));
    memset(size, 0, sizeof *size * (size_t)(z->n * 2 * z->c));
    for (int64_t i = 0; i < elements(&s->in[0]); i++) {
        const struct deviation v = deviation_of(s, z, IN(1), IN(2), IN(2) + z->groups, i);
        const double g = gradient_at(s, z, relu, i), terms[] = {g, g * v.d * v.inv};
        for (int k = 0; k < 2; k++) {
            const int64_t at = (i / (z->s * z->c) * 2 + k) * z->c + i % z->c;
            sum[at] += terms[k];
            size[at] += fabs(terms[k]);
        }
    }
    for (int64_t i = 0; i < z->n * 2 * z->c; i++) size[i] = EPS * ((SINGLE + 8) * size[i] + fabs(sum[i]));
}
static void ref_batch_norm_sums(const struct step *s, const struct answer *a) /* and fused: with gamma and beta */
{
    const struct items z = batch_of(&s->in[1]);
    put_gradient_sums(s, a, &z, s->inputs > 3);
}
static void ref_group_norm_sums(const struct step *s, const struct answer *a)
{
    const struct items z = groups_of(&s->in[1], s->in[2].size[2]);
    put_gradient_sums(s, a, &z, 0);
}

/* inv * (gamma * g - mean(gamma * g) - xhat * mean(gamma * g * xhat)), the means from the sums (N, 2, C) */
static void put_gradients(const struct step *s, const struct answer *a, const struct items *z, const float *sums, int relu)
{
    const int64_t all = z->n * 2 * z->groups;
    double *mean = calloc((size_t)(2 * all), sizeof *mean), *size = mean + all; /* as moments lie: see group_at */
    for (int64_t i = 0; i < z->n * 2 * z->c; i++) {
        const int64_t at = i / z->c * z->groups + i % z->c / z->size;
        const double term = (double)IN(3)[i % z->c] * sums[i] / (double)(z->s * z->size);
        mean[at] += term;
        size[at] += fabs(term);
    }
    for (int64_t i = 0; i < elements(&s->out[0]); i++) {
        const struct deviation v = deviation_of(s, z, IN(1), IN(2), IN(2) + z->groups, i);
        const double g = IN(3)[i % z->c] * gradient_at(s, z, relu, i), xhat = v.d * v.inv;
        const int64_t at = group_at(z, i);
        put(a, 0, i, v.inv * (g - mean[at] - xhat * mean[at + z->groups]),
            16 * EPS * v.inv * (fabs(g) + size[at] + fabs(xhat) * size[at + z->groups]));
    }
    free(mean);
}
static void ref_batch_norm_dx(const struct step *s, const struct answer *a)
{
    const struct items z = batch_of(&s->in[1]);
    put_gradients(s, a, &z, IN(4), 0);
}
static void ref_fused_batch_norm_dx(const struct step *s, const struct answer *a)
{
    const struct items z = batch_of(&s->in[1]);
    put_gradients(s, a, &z, IN(5), 1);
}
static void ref_group_norm_dx(const struct step *s, const struct answer *a)
{
    const struct items z = groups_of(&s->in[1], s->in[2].size[2]);
    put_gradients(s, a, &z, IN(4), 0);
}

/* ---- rows: their moments are found in single precision ---- */

/* Of a row x (C): what is normalized, and how large it is with a mean that is rounded. */
struct row {
    double mean, inv;
};

static struct row row_of(const struct step *s, const float *x, int64_t c)
{
    double m[2];
    const struct items z = {1, 1, c, 1, c};
    find_moments(m, x, &z);
    return (struct row){m[0], 1 / sqrt(m[1] + s->attr.epsilon)};
}
static double xhat_bound(const struct row *r, double x) { return (fabs(x - r->mean) + fabs(r->mean)) * r->inv + 1; }

static void ref_layer_norm(const struct step *s, const struct answer *a)
{
    const struct items z = rows_in(&s->in[0]);
    for (int64_t n = 0; n < z.n; n++) {
        const struct row r = row_of(s, IN(0) + n * z.c, z.c);
        for (int64_t c = 0; c < z.c; c++) {
            const double gamma = IN(1)[c], beta = IN(2)[c], x = IN(0)[n * z.c + c];
            put(a, 0, n * z.c + c, gamma * (x - r.mean) * r.inv + beta,
                EPS * ((double)z.c + 16) * (fabs(gamma) * xhat_bound(&r, x) + fabs(beta)));
        }
    }
}

static void ref_layer_norm_sums(const struct step *s, const struct answer *a)
{
    const struct items z = rows_in(&s->in[1]);
    memset(a->want[0], 0, sizeof(double) * (size_t)(2 * z.c));
    memset(a->slack[0], 0, sizeof(double) * (size_t)(2 * z.c));
    for (int64_t n = 0; n < z.n; n++) {
        const struct row r = row_of(s, IN(1) + n * z.c, z.c);
        for (int64_t c = 0; c < z.c; c++) {
            const double g = IN(0)[n * z.c + c], x = IN(1)[n * z.c + c], terms = EPS * ((double)(z.n + z.c) + 16);
            a->want[0][c] += g;
            a->want[0][z.c + c] += g * (x - r.mean) * r.inv;
            a->slack[0][c] += terms * fabs(g);
            a->slack[0][z.c + c] += terms * fabs(g) * xhat_bound(&r, x);
        }
    }
}

static void ref_layer_norm_dx(const struct step *s, const struct answer *a)
{
    const struct items z = rows_in(&s->in[1]);
    for (int64_t n = 0; n < z.n; n++) {
        const float *g = IN(0) + n * z.c, *x = IN(1) + n * z.c, *gamma = IN(2);
        const struct row r = row_of(s, x, z.c);
        double first = 0, second = 0, first_size = 0, second_size = 0;
        for (int64_t c = 0; c < z.c; c++) {
            const double v = (double)gamma[c] * g[c] / (double)z.c;
            first += v;
            second += v * (x[c] - r.mean) * r.inv;
            first_size += fabs(v);
            second_size += fabs(v) * xhat_bound(&r, x[c]);
        }
        for (int64_t c = 0; c < z.c; c++) {
            const double v = (double)gamma[c] * g[c];
            put(a, 0, n * z.c + c, r.inv * (v - first - (x[c] - r.mean) * r.inv * second),
                EPS * ((double)z.c + 16) * r.inv * (fabs(v) + first_size + xhat_bound(&r, x[c]) * second_size));
        }
    }
}

/* The floats of memory that the ops ask for: as chunk_memory in fastnn/ops/norm.py. */
static int64_t norm_workspace(const struct items *z)
{
    int64_t chunks = 32;
    if (chunks > z->s / 16) chunks = z->s / 16;
    if (chunks > z->s * z->c / 32768) chunks = z->s * z->c / 32768;
    if (chunks < 1) chunks = 1;
    return z->n * chunks * ((5 * z->c + 15) / 16 * 16);
}

#endif
