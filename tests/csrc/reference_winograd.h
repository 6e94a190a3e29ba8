/* Winograd's algorithm: direct sums, and how far off it may be, by its own magnitudes: the same transforms with absolute values.
 * Sizes in letters: N batch, C channels, F filters, KD KH KW kernel, T tiles. */
#ifndef FASTNN_REFERENCE_WINOGRAD_H
#define FASTNN_REFERENCE_WINOGRAD_H

#include "reference_window.h"

/* A' (m, points), G (points, taps), B' (points, points) along one axis; one output of one input where there is one tap. */
struct transform {
    int m, points, taps;
    double a[4][6], g[6][5], b[6][6];
};

/* coefficients (n + 1) of the polynomial with these roots but the one left out, the constant first */
static void polynomial(double *coefficients, const double *roots, int n, int without)
{
    int degree = 0;
    memset(coefficients, 0, sizeof *coefficients * 6);
    coefficients[0] = 1;
    for (int i = 0; i < n; i++) {
        if (i == without) continue;
        degree++;
        for (int k = degree; k >= 0; k--) coefficients[k] = (k ? coefficients[k - 1] : 0) - roots[i] * coefficients[k];
    }
}

static struct transform transform_of(int64_t taps)
{
    const double points[5] = {0, sqrt(0.5), -sqrt(0.5), sqrt(2), -sqrt(2)};
    struct transform t = {1, 1, 1, {{1}}, {{1}}, {{1}}};
    if (taps == 1) return t;
    memset(&t, 0, sizeof t);
    t.m = 7 - (int)taps;
    t.points = 6;
    t.taps = (int)taps;
    for (int j = 0; j < 5; j++) {
        double others = 1;
        for (int i = 0; i < 5; i++) others *= i == j ? 1 : points[j] - points[i];
        for (int i = 0; i < t.m; i++) t.a[i][j] = i ? pow(points[j], i) : 1;
        for (int k = 0; k < t.taps; k++) t.g[j][k] = (k ? pow(points[j], k) : 1) / others;
        polynomial(t.b[j], points, 5, j);
    }
    polynomial(t.b[5], points, 5, -1);
    t.a[t.m - 1][5] = t.g[5][t.taps - 1] = 1;
    return t;
}

/* Filters in panels of 32. */
static int64_t panels_of(int64_t filters) { return (filters + 31) / 32; }

/* u (P, panels, KD * C, 32) = G w G' of w (*kernel, C, F), and the sums of absolute values. With `flip`, of w turned round, C
 * and F exchanged. */
static void transform_weights(double *u, double *size, const struct tensor *w, int flip)
{
    const struct volume kernel = kernel_of(w);
    const struct transform high = transform_of(kernel.h), wide = transform_of(kernel.w);
    const int64_t f = last_size(w), c = w->size[w->rank - 2], rows = flip ? f : c, columns = flip ? c : f;
    const int64_t panels = panels_of(columns), k = kernel.d * rows, taps = kernel.h * kernel.w;
    memset(u, 0, sizeof *u * (size_t)(high.points * wide.points * panels * k * 32));
    memset(size, 0, sizeof *size * (size_t)(high.points * wide.points * panels * k * 32));
    for (int point = 0; point < high.points * wide.points; point++) {
        double g[25];
        for (int64_t t = 0; t < taps; t++)
            g[t] = high.g[point / wide.points][t / kernel.w] * wide.g[point % wide.points][t % kernel.w];
        for (int64_t i = 0; i < k * columns; i++) {
            const int64_t d = i / columns / rows, row = i / columns % rows, column = i % columns;
            const int64_t at = ((point * panels + column / 32) * k + d * rows + row) * 32 + column % 32;
            for (int64_t t = 0; t < taps; t++) {
                const int64_t tap = flip ? (kernel.d - 1 - d) * taps + taps - 1 - t : d * taps + t;
                const int64_t from = flip ? (tap * c + column) * f + row : (tap * c + row) * f + column;
                const double term = g[t] * ((const float *)w->data)[from];
                u[at] += term;
                size[at] += fabs(term);
            }
        }
    }
}

static void ref_winograd_weights(const struct step *s, const struct answer *a)
{
    transform_weights(a->want[0], a->slack[0], &s->in[0], s->attr.flip);
    for (int64_t i = 0; i < elements(&s->out[0]); i++) a->slack[0][i] *= 24 * EPS; /* two sums of five, and their factors */
}

/* ---- tiles ---- */

/* Tiles of the outputs of a step whose images x go in, and outputs or their gradients y. */
struct tiling {
    struct volume x, y;
    struct transform high, wide;
    int64_t depth, th, tw, tiles;
    int points;
};

static struct tiling tiling_of(const struct tensor *x, const struct tensor *y, const struct volume *kernel)
{
    struct tiling t = {volume_of(x), volume_of(y), transform_of(kernel->h), transform_of(kernel->w), kernel->d, 0, 0, 0, 0};
    t.th = (t.y.h + t.high.m - 1) / t.high.m;
    t.tw = (t.y.w + t.wide.m - 1) / t.wide.m;
    t.tiles = t.y.n * t.y.d * t.th * t.tw;
    t.points = t.high.points * t.wide.points;
    return t;
}

/* v (points, KD * C) = |B'| |d| |B| of a tile */
static void input_size(double *v, const struct step *s, const struct tiling *t, const float *x, int64_t tile)
{
    const int64_t top = tile / t->tw % t->th * t->high.m, left = tile % t->tw * t->wide.m;
    const int64_t plane = tile / t->tw / t->th % t->y.d, n = tile / t->tw / t->th / t->y.d, k = t->depth * t->x.c;
    memset(v, 0, sizeof *v * (size_t)(t->points * k));
    for (int64_t i = 0; i < t->depth * t->points; i++) { /* a pixel of a tile has the place of a point */
        const int64_t d = under(s, 0, plane, i / t->points), row = i % t->points / t->wide.points, column = i % t->wide.points;
        const int64_t h = under(s, 1, top, row), w = under(s, 2, left, column);
        if (d < 0 || d >= t->x.d || h < 0 || h >= t->x.h || w < 0 || w >= t->x.w) continue;
        const float *from = x + (((n * t->x.d + d) * t->x.h + h) * t->x.w + w) * t->x.c;
        for (int point = 0; point < t->points; point++) {
            const double b = t->high.b[point / t->wide.points][row] * t->wide.b[point % t->wide.points][column];
            for (int64_t c = 0; c < t->x.c; c++) v[point * k + i / t->points * t->x.c + c] += fabs(b * from[c]);
        }
    }
}

/* The number in y of output (p, q) of a tile; -1 if it is none. */
static int64_t output_of(const struct tiling *t, int64_t tile, int p, int q)
{
    const int64_t h = tile / t->tw % t->th * t->high.m + p, w = tile % t->tw * t->wide.m + q;
    return h < t->y.h && w < t->y.w ? (tile / t->tw / t->th * t->y.h + h) * t->y.w + w : -1;
}

/* The weights (*kernel, C, F) of which the step under test has the transformed ones, or that it has itself. */
static const struct tensor *plain_weights;

/* u (points, panels, K, 32) = |U|, as the step under test is given it, or |G| |w| |G'|. */
static void weights_size(double *u, const struct step *s, int points, int64_t numbers)
{
    double *exact = malloc(sizeof *exact * (size_t)numbers);
    if (s->in[1].rank == 4 && s->in[1].size[0] == points)
        for (int64_t i = 0; i < numbers; i++) u[i] = fabs(IN(1)[i]);
    else transform_weights(exact, u, plain_weights, 0);
    free(exact);
}

/* size (N, ..., F) = |A'| (|U| . |V|) |A|, summed over channels */
static void output_size(double *size, const struct step *s, const struct tiling *t)
{
    const int64_t k = t->depth * t->x.c, f = t->y.c, panels = panels_of(f);
    double *v = malloc(sizeof *v * (size_t)(t->points * k)), *u = malloc(sizeof *u * (size_t)(t->points * panels * k * 32));
    double *m = malloc(sizeof *m * (size_t)f);
    weights_size(u, s, t->points, t->points * panels * k * 32);
    memset(size, 0, sizeof *size * (size_t)elements(&s->out[0]));
    for (int64_t tile = 0; tile < t->tiles; tile++) {
        input_size(v, s, t, IN(0), tile);
        for (int point = 0; point < t->points; point++) {
            memset(m, 0, sizeof *m * (size_t)f);
            for (int64_t i = 0; i < k; i++)
                for (int64_t j = 0; j < f; j++)
                    m[j] += v[point * k + i] * u[((point * panels + j / 32) * k + i) * 32 + j % 32];
            for (int p = 0; p < t->high.m; p++)
                for (int q = 0; q < t->wide.m; q++) {
                    const int64_t at = output_of(t, tile, p, q);
                    const double a = fabs(t->high.a[p][point / t->wide.points] * t->wide.a[q][point % t->wide.points]);
                    for (int64_t j = 0; at >= 0 && j < f; j++) size[at * f + j] += a * m[j];
                }
        }
    }
    free(m);
    free(u);
    free(v);
}

/* A chain over the channels between two transforms, each two sums of at most six numbers with factors; and the weights'. */
static double winograd_terms(const struct tiling *t) { return (double)(t->depth * t->x.c) + 56; }

static void ref_winograd_conv(const struct step *s, const struct answer *a) /* and winograd_conv_dx */
{
    const struct tensor *x = &s->in[0], *y = &s->out[0];
    const struct volume kernel = kernel_of(plain_weights);
    const struct tiling t = tiling_of(x, y, &kernel);
    double *sums = malloc(sizeof *sums * (size_t)elements(y));
    add_products(s, x, plain_weights, y, 1, OF_Y, a->want[0], sums);
    output_size(a->slack[0], s, &t);
    const int of_gradient = s->inputs > 2 && s->in[2].rank == y->rank;
    for (int64_t i = 0; i < elements(y); i++) {
        const double b = s->inputs > 2 && !of_gradient ? IN(2)[i % t.y.c] : 0;
        const double error = EPS * winograd_terms(&t) * (a->slack[0][i] + fabs(b));
        if (of_gradient) put_sloped(s, a, i, a->want[0][i], IN(2)[i], error);
        else put_activated(s, a, i, a->want[0][i] + b, error);
    }
    free(sums);
}

/* The largest of 2 x 2 outputs of the convolution, of 2 where it has one row; as far off as any of them may be. */
static void ref_winograd_conv_pool(const struct step *s, const struct answer *a)
{
    struct step before = *s;
    struct tensor *all = &before.out[0];
    const struct volume kernel = kernel_of(plain_weights);
    const int space = all->rank - 2, high = kernel.h > 1 ? 2 : 1;
    for (int i = 0; i < space; i++) {
        const int axis = MAX_SPACE - space + i;
        const int64_t taps = axis == 0 ? kernel.d : axis == 1 ? kernel.h : kernel.w;
        all->size[1 + i] = s->in[0].size[1 + i] + s->attr.before[axis] + s->attr.after[axis] - taps + 1;
    }
    const struct volume from = volume_of(all), to = volume_of(&s->out[0]);
    struct answer whole = *a;
    whole.want[0] = malloc(sizeof **whole.want * (size_t)elements(all));
    whole.slack[0] = malloc(sizeof **whole.slack * (size_t)elements(all));
    ref_winograd_conv(&before, &whole);
    for (int64_t i = 0; i < elements(&s->out[0]); i++) {
        const int64_t f = i % to.c, w = i / to.c % to.w, h = i / to.c / to.w % to.h, plane = i / to.c / to.w / to.h;
        a->want[0][i] = -INFINITY;
        a->slack[0][i] = 0;
        for (int64_t p = 0; p < high; p++)
            for (int64_t q = 0; q < 2; q++) {
                const int64_t at = ((plane * from.h + h * high + p) * from.w + 2 * w + q) * from.c + f;
                a->want[0][i] = fmax(a->want[0][i], whole.want[0][at]);
                a->slack[0][i] = fmax(a->slack[0][i], whole.slack[0][at]);
            }
    }
    free(whole.want[0]);
    free(whole.slack[0]);
}

/* m (points, F) = |A| |dy| |A'| of a tile */
static void gradient_size(double *m, const struct tiling *t, const float *dy, int64_t tile)
{
    memset(m, 0, sizeof *m * (size_t)(t->points * t->y.c));
    for (int p = 0; p < t->high.m; p++)
        for (int q = 0; q < t->wide.m; q++) {
            const int64_t at = output_of(t, tile, p, q);
            for (int point = 0; at >= 0 && point < t->points; point++)
                for (int64_t j = 0; j < t->y.c; j++)
                    m[point * t->y.c + j] += fabs(t->high.a[p][point / t->wide.points] * t->wide.a[q][point % t->wide.points]
                                                  * dy[at * t->y.c + j]);
        }
}

/* A sum over the tiles in parts, between transforms: G' [sum of V . M] G. */
static void ref_winograd_conv_dw(const struct step *s, const struct answer *a)
{
    const struct tensor *w = &s->out[0];
    const struct volume kernel = kernel_of(w);
    const struct tiling t = tiling_of(&s->in[0], &s->in[1], &kernel);
    const int64_t c = t.x.c, f = t.y.c, k = t.depth * c;
    double *v = malloc(sizeof *v * (size_t)(t.points * k)), *m = malloc(sizeof *m * (size_t)(t.points * f));
    double *du = calloc((size_t)(t.points * k * f), sizeof *du), *size = a->slack[0];
    add_products(s, &s->in[0], w, &s->in[1], 1, OF_W, a->want[0], size);
    for (int64_t tile = 0; tile < t.tiles; tile++) {
        input_size(v, s, &t, IN(0), tile);
        gradient_size(m, &t, IN(1), tile);
        for (int64_t i = 0; i < t.points * k; i++)
            for (int64_t j = 0; j < f; j++) du[i * f + j] += v[i] * m[i / k * f + j];
    }
    memset(size, 0, sizeof *size * (size_t)elements(w));
    for (int64_t i = 0; i < elements(w); i++) {
        const int64_t tap = i / f / c % (kernel.h * kernel.w), d = i / f / c / (kernel.h * kernel.w);
        for (int point = 0; point < t.points; point++)
            size[i] += fabs(t.high.g[point / t.wide.points][tap / kernel.w] * t.wide.g[point % t.wide.points][tap % kernel.w])
                       * du[(point * k + d * c + i / f % c) * f + i % f];
        size[i] *= EPS * ((double)t.tiles + 8 + 48);
    }
    free(v);
    free(m);
    free(du);
}

/* The floats of memory that the op asks for: as in fastnn/ops/winograd.py. */
static int64_t winograd_dw_workspace(const struct tensor *x, const struct tensor *w)
{
    const struct volume kernel = kernel_of(w);
    const int64_t k = kernel.d * last_size(x), f = last_size(w), points = kernel.h > 1 ? 36 : 6;
    int64_t parts = 65536 / (k * f);
    parts = parts < 1 ? 1 : parts > 8 ? 8 : parts;
    return points * parts * k * panels_of(f) * 32;
}

#endif
