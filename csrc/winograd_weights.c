/* Weights made ready for Winograd's algorithm: U = G w G'. Sizes as in winograd.c. */
#include "window.h"

enum {
    POINTS = 6,    /* along each transformed axis */
    PANEL = 32,    /* filters side by side in U */
    TURNED_K = 64, /* rows of w that are transformed together */
};

#define ROOT_HALF 0.70710678f
#define ROOT_2 1.41421356f

/* The numbers of G (6, taps). */
static void kernel_matrix(float (*to)[5], int taps)
{
    const float point[5] = {0.0f, ROOT_HALF, -ROOT_HALF, ROOT_2, -ROOT_2}, scale[5] = {1.0f, -1.0f / 1.5f, -1.0f / 1.5f, 1.0f / 6.0f, 1.0f / 6.0f};
    const float squares[5] = {0.0f, 0.5f, 0.5f, 2.0f, 2.0f};
    for (int i = 0; i < 5; i++) {
        const float odd = point[i] * scale[i];
        to[i][0] = scale[i];
        to[i][1] = odd;
        for (int k = 2; k < taps; k++) to[i][k] = to[i][k - 2] * squares[i];
    }
    for (int k = 0; k < taps; k++) to[5][k] = k == taps - 1 ? 1.0f : 0.0f;
}

/* to (6) = G g of one vector of weights g (taps). Points 1 and 2, 3 and 4 differ in their sign: so do the odd powers. */
INLINE void weight_points(const int taps, vf *to, const vf *g, float (*matrix)[5])
{
    to[0] = g[0];
    UNROLL for (int i = 1; i < 5; i += 2) {
        vf even = v_set(matrix[i][0]) * g[0], odd = v_set(matrix[i][1]) * g[1];
        UNROLL for (int k = 2; k < taps; k += 2) even = v_fma(v_set(matrix[i][k]), g[k], even);
        UNROLL for (int k = 3; k < taps; k += 2) odd = v_fma(v_set(matrix[i][k]), g[k], odd);
        to[i] = even + odd;
        to[i + 1] = even - odd;
    }
    to[5] = g[taps - 1];
}

/* u (points; `apart`) = G g G' of one vector of weights g (high, taps); flat: high = 1 and g is transformed along W only */
INLINE void weight_vector(const int high, const int taps, float *u, int64_t apart, const vf *g, float (*matrix)[5])
{
    vf half[POINTS][5], column[5], points[POINTS];
    UNROLL for (int k = 0; k < taps; k++) {
        UNROLL for (int h = 0; h < high; h++) column[h] = g[h * taps + k];
        if (high > 1) weight_points(high, points, column, matrix);
        else points[0] = column[0];
        for (int i = 0; i < (high == 1 ? 1 : POINTS); i++) half[i][k] = points[i];
    }
    for (int i = 0; i < (high == 1 ? 1 : POINTS); i++) {
        weight_points(taps, points, half[i], matrix);
        UNROLL for (int j = 0; j < POINTS; j++) v_store(u + (i * POINTS + j) * apart, points[j]);
    }
}

static void weight_vectors(int64_t high, int64_t taps, float *u, int64_t apart, const vf *g, float (*matrix)[5])
{
    if (high == 1 && taps == 3) weight_vector(1, 3, u, apart, g, matrix);
    else if (high == 1) weight_vector(1, 5, u, apart, g, matrix);
    else if (taps == 3) weight_vector(3, 3, u, apart, g, matrix);
    else weight_vector(5, 5, u, apart, g, matrix);
}

/* to (taps, TURNED_K, VL) = w (taps, columns, k) from `from` on, each tap turned round: columns side by side. */
static void turn_block(float *to, const float *from, int64_t taps, int64_t from_tap, int64_t ld, int64_t columns,
                       int64_t rows)
{
    for (int64_t tap = 0; tap < taps; tap++, from -= from_tap, to += TURNED_K * VL) {
        int64_t row = 0;
        for (; columns >= VL && row + VL <= rows; row += VL) {
            const float *line[VL];
            vf turned[VL];
            for (int i = 0; i < VL; i++) line[i] = from + i * ld + row;
            v_load_transposed(turned, line);
            UNROLL for (int j = 0; j < VL; j++) v_store(to + (row + j) * VL, turned[j]);
        }
        for (; row < rows; row++)
            for (int64_t i = 0; i < VL; i++) to[row * VL + i] = i < columns ? from[i * ld + row] : 0.0f;
    }
}

/* Weights w (KD, KH, KW, C, F) as a convolution sees them: with flip it sums over F, and its filters are C. */
struct weights {
    const float *w;
    int64_t depth, taps_h, taps_w, c, f, k, columns; /* k: summed at each depth */
    int flip;
    float matrix[POINTS][5];
};

static struct weights weights_of(const struct tensor *w, int flip)
{
    int64_t kernel[MAX_SPACE];
    kernel_sizes(kernel, w);
    struct weights s = {.w = w->data, .depth = kernel[AXIS_D], .taps_h = kernel[AXIS_H], .taps_w = kernel[AXIS_W],
                        .c = w->size[w->rank - 2], .f = w->size[w->rank - 1], .flip = flip};
    s.k = flip ? s.f : s.c;
    s.columns = flip ? s.c : s.f;
    kernel_matrix(s.matrix, (int)s.taps_w);
    return s;
}

/* Some of the weights: `rows` <= TURNED_K of the summed channels from k0 on at depth d, and some panels. */
struct weights_part {
    int64_t d, k0, rows, panel, panels;
};

/* Block number `block` of TURNED_K channels at depth d. */
static struct weights_part weights_part_of(const struct weights *w, int64_t d, int64_t block, int64_t panel, int64_t panels)
{
    const int64_t k0 = block * TURNED_K, left = w->k - k0;
    return (struct weights_part){d, k0, left < TURNED_K ? left : TURNED_K, panel, panels};
}

/* The lines of memory that a part lies in, `number` of `all` parts of them, are asked for. */
static void fetch_weights(const struct weights *w, const struct weights_part *p, int64_t number, int64_t all)
{
    const int64_t column = p->panel * PANEL, width = p->panels * PANEL < w->columns - column ? p->panels * PANEL : w->columns - column;
    const int64_t taps = w->taps_h * w->taps_w, lines = taps * (w->flip ? width : p->rows), floats = w->flip ? p->rows : width;
    for (int64_t i = number * lines / all; i < (number + 1) * lines / all; i++) {
        const int64_t tap = i % taps + (w->flip ? w->depth - 1 - p->d : p->d) * taps, line = i / taps;
        const float *at = w->w + tap * w->c * w->f + (w->flip ? (column + line) * w->f + p->k0 : (p->k0 + line) * w->f + column);
        for (int64_t j = 0; j < floats; j += CACHE_LINE) prefetch(at + j);
    }
}

/* u (P of `apart`, rows, 32) = G w G' of one panel of a part; `turned` is scratch memory. */
static void transform_weights(const struct weights *w, const struct weights_part *p, int64_t panel, float *u, int64_t apart,
                              float *turned)
{
    const int64_t taps = w->taps_h * w->taps_w, from_tap = w->c * w->f;
    for (int64_t i = 0; i < PANEL; i += VL) {
        const int64_t column = panel * PANEL + i, left = w->columns - column;
        const float *at = w->flip ? w->w + ((w->depth - p->d) * taps - 1) * from_tap + column * w->f + p->k0
                                  : w->w + p->d * taps * from_tap + p->k0 * w->f + column;
        if (w->flip) turn_block(turned, at, taps, from_tap, w->f, left > 0 ? left : 0, p->rows);
        for (int64_t row = 0; row < p->rows; row++) {
            vf g[25];
            for (int64_t tap = 0; tap < taps; tap++) {
                if (w->flip) g[tap] = v_load(turned + (tap * TURNED_K + row) * VL);
                else g[tap] = left > 0 ? v_load_n(at + tap * from_tap + row * w->f, left) : v_zero();
            }
            weight_vectors(w->taps_h, w->taps_w, u + row * PANEL + i, apart, g, (float (*)[5])w->matrix);
        }
    }
}

/* u (P, panels, KD * C, 32) = G w G'; with flip of w turned round, C and F exchanged */
static void kernel_winograd_weights(const struct step *s, const struct lane *lane)
{
    const struct weights w = weights_of(&s->in[0], s->attr.flip);
    const int64_t panels = (w.columns + PANEL - 1) / PANEL, blocks = (w.k + TURNED_K - 1) / TURNED_K;
    const int64_t apart = panels * w.depth * w.k * PANEL, tasks = w.depth * blocks * panels;
    for (int64_t task = lane->id; task < tasks; task += lane->count) {
        const int64_t next = task + lane->count;
        if (next < tasks) { /* its lines lie far apart */
            const struct weights_part part = weights_part_of(&w, next / panels / blocks, next / panels % blocks, next % panels, 1);
            fetch_weights(&w, &part, 0, 1);
        }
        const struct weights_part part = weights_part_of(&w, task / panels / blocks, task / panels % blocks, task % panels, 1);
        float *u = (float *)s->out[0].data + ((part.panel * w.depth + part.d) * w.k + part.k0) * PANEL;
        transform_weights(&w, &part, part.panel, u, apart, lane->scratch);
    }
}
