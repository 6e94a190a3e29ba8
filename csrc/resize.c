/* Up-sampling and its gradients. N batch; D H W sizes of the smaller array, OD OH OW of the larger one; C channels. A line
 * is what lies along W: W * C floats side by side. The window's kernel, KD KH KW, is the factors. */

#include "stream.h"

/* ---- up-sampling by repetition ---- */

/* to (W, k, C) = each place of from (W, C) k times. A vector of fewer channels spills over into places that are written
 * after it. */
INLINE void repeat_places(const int64_t k, float *to, const float *from, int64_t w, int64_t c, int stream)
{
    if (c == 1 && k == 2) {
        for (int64_t i = 0; i < w; i++) to[2 * i] = to[2 * i + 1] = from[i];
        return;
    }
    for (int64_t i = 0; i < w; i++, from += c) {
        if (c < VL) {
            const vf v = v_load_n(from, (w - i) * c);
            for (int64_t r = 0; r < k; r++, to += c) v_store_n(to, v, ((w - i) * k - r) * c);
            continue;
        }
        if (stream) {
            for (int64_t j = 0; j < c; j += LINE_FLOATS)
                for (int64_t r = 0; r < k; r++)
                    UNROLL for (int l = 0; l < LINE; l++) v_stream(to + r * c + j + l * VL, v_load(from + j + l * VL));
        } else {
            for (int64_t j = 0; j < c; j += VL) {
                const int64_t at = j + VL <= c ? j : c - VL; /* the last vector reaches back */
                const vf v = v_load(from + at);
                for (int64_t r = 0; r < k; r++) v_store(to + r * c + at, v);
            }
        }
        to += k * c;
    }
}

/* y (N, D, KD, H, KH, W, KW, C) = x (N, D, H, W, C) */
static void kernel_upsample_nearest(const struct step *step, const struct lane *lane)
{
    const struct window w = window_of(&step->in[0], &step->out[0], &step->attr);
    const int64_t kd = w.kernel[AXIS_D], kh = w.kernel[AXIS_H], kw = w.kernel[AXIS_W];
    const int64_t width = w.size[AXIS_W] * w.c, wide = w.out[AXIS_W] * w.c;
    const int stream = streams(&step->out[0], w.c);
    const float *x = step->in[0].data;
    float *y = step->out[0].data;
    EACH_LINE(w.n * w.size[AXIS_D] * w.size[AXIS_H], kd * kh * wide) {
        const int64_t plane = line / w.size[AXIS_H], h = line % w.size[AXIS_H];
        float *first = y + (plane * kd * w.out[AXIS_H] + h * kh) * wide;
        for (int64_t i = 0; i < kd * kh; i++) {
            float *to = first + (i / kh * w.out[AXIS_H] + i % kh) * wide;
            if (i && w.c < VL) copy_row(to, first, wide);
            else if (kw == 2) repeat_places(2, to, x + line * width, w.size[AXIS_W], w.c, stream);
            else repeat_places(kw, to, x + line * width, w.size[AXIS_W], w.c, stream);
        }
    }
    if (stream) stream_end();
}

enum { STRIP = 4096 }; /* floats of a line that are worked on at a time where channels are few: they stay in the cache */

/* sum (n) = the sum of kd * kh lines of g, kd planes apart */
INLINE void sum_lines(float *sum, const float *g, int64_t n, int64_t kd, int64_t kh, int64_t plane, int64_t ld)
{
    for (int64_t i = 0; i < n; i += VL) {
        vf total = v_load_n(g + i, n - i);
        for (int64_t r = 1; r < kd * kh; r++) total = total + v_load_n(g + r / kh * plane + r % kh * ld + i, n - i);
        v_store_n(sum + i, total, n - i);
    }
}

/* dx (N, D, H, W, C) = sums of g (N, D, KD, H, KH, W, KW, C): along D and H first, then along W */
static void kernel_upsample_nearest_dx(const struct step *step, const struct lane *lane)
{
    const struct window w = window_of(&step->out[0], &step->in[0], &step->attr);
    const int64_t kd = w.kernel[AXIS_D], kh = w.kernel[AXIS_H], kw = w.kernel[AXIS_W], c = w.c;
    const int64_t wide = w.out[AXIS_W] * c, plane = w.out[AXIS_H] * wide;
    const int64_t strip = kw * c <= STRIP ? STRIP / (kw * c) : 1;
    float *sum = lane->scratch;
    EACH_LINE(w.n * w.size[AXIS_D] * w.size[AXIS_H], kd * kh * wide) {
        const int64_t first = line / w.size[AXIS_H] * kd * w.out[AXIS_H] + line % w.size[AXIS_H] * kh;
        const float *g = (const float *)step->in[0].data + first * wide;
        float *dx = (float *)step->out[0].data + line * w.size[AXIS_W] * c;
        for (int64_t at = 0; at < w.size[AXIS_W]; at += strip, dx += strip * c, g += strip * kw * c) {
            const int64_t places = w.size[AXIS_W] - at < strip ? w.size[AXIS_W] - at : strip;
            if (kw * c > STRIP || c >= VL) {
                for (int64_t i = 0; i < places; i++)
                    for (int64_t j = 0; j < c; j += VL) {
                        vf total = v_zero();
                        for (int64_t q = 0; q < kw; q++) {
                            const float *column = g + (i * kw + q) * c + j;
                            vf v = v_load_n(column, c - j);
                            for (int64_t r = 1; r < kd * kh; r++)
                                v = v + v_load_n(column + r / kh * plane + r % kh * wide, c - j);
                            total = total + v;
                        }
                        v_store_n(dx + i * c + j, total, c - j);
                    }
                continue;
            }
            sum_lines(sum, g, places * kw * c, kd, kh, plane, wide);
            if (c == 1 && kw == 2) {
                for (int64_t i = 0; i < places; i++) dx[i] = sum[2 * i] + sum[2 * i + 1];
                continue;
            }
            for (int64_t i = 0; i < places; i++) {
                vf total = v_load(sum + i * kw * c);
                for (int64_t q = 1; q < kw; q++) total = total + v_load(sum + (i * kw + q) * c);
                v_store_n(dx + i * c, total, (places - i) * c);
            }
        }
    }
}

/* ---- up-sampling by interpolation ----
 *
 * Along an axis, k outputs lie between the centres of the inputs i and i + 1, the cell i: those from i * k + k / 2 on. The
 * cells -1 and size - 1 are the outer halves of the edges; there both inputs are the edge's. */

enum { MOST_SHARES = 128 }; /* a table has so many; larger factors compute theirs on the way */

/* The share that input i + 1 has in output p of a cell. */
INLINE float cell_share(int64_t p, int64_t k)
{
    return (float)(((double)p + (k % 2 ? 0.0 : 0.5)) / (double)k);
}

/* The shares in use: `table` (k) if there is room in it. */
INLINE const float *cell_shares(float *table, int64_t k)
{
    if (k > MOST_SHARES) return NULL;
    for (int64_t p = 0; p < k; p++) table[p] = cell_share(p, k);
    return table;
}

struct cell {
    int64_t low, high;   /* the two inputs */
    int64_t first;       /* the output p = 0, which may lie outside */
    int64_t start, stop; /* the p's that lie inside */
};

INLINE struct cell cell_of(int64_t i, int64_t k, int64_t size)
{
    const int64_t first = i * k + k / 2, left = size * k - first;
    return (struct cell){.low = i < 0 ? 0 : i, .high = i + 1 < size ? i + 1 : size - 1, .first = first,
                         .start = first < 0 ? -first : 0, .stop = left < k ? left : k};
}

INLINE vf blend(vf low, vf high, float share) { return v_fma(high, v_set(share), low * v_set(1.0f - share)); }

/* One cell (rows) by one cell (columns) of y (OH, OW, C), where x is (H, W, C). Constants: `many`, the vectors worked on
 * together; `twice`, where the factors are 2, the cells lie inside and C is at least VL. */
INLINE void blend_cell(const int many, const int twice, float *y, const float *x, const struct window *w,
                       const struct cell *rows, const struct cell *columns, const float *down, const float *across, int stream)
{
    const int64_t c = w->c, width = w->size[AXIS_W] * c, wide = w->out[AXIS_W] * c;
    const int64_t kh = w->kernel[AXIS_H], kw = w->kernel[AXIS_W];
    const int64_t p0 = twice ? 0 : rows->start, p1 = twice ? 2 : rows->stop;
    const int64_t q0 = twice ? 0 : columns->start, q1 = twice ? 2 : columns->stop;
    const float *top = x + rows->low * width, *bottom = x + rows->high * width;
    y += rows->first * wide + columns->first * c;
    for (int64_t j = 0; j < c; j += many * VL) {
        const int64_t n = twice || many > 1 ? VL : c - j;
        const int64_t at = !twice || j + VL <= c ? j : c - VL; /* the last vector reaches back, or is a part */
        const int64_t left = columns->low * c + at, right = columns->high * c + at;
        vf a[LINE], b[LINE], d[LINE], e[LINE], upper[LINE], lower[LINE];
        UNROLL for (int l = 0; l < many; l++) {
            a[l] = v_load_n(top + left + l * VL, n);
            b[l] = v_load_n(top + right + l * VL, n);
            d[l] = v_load_n(bottom + left + l * VL, n);
            e[l] = v_load_n(bottom + right + l * VL, n);
        }
        for (int64_t q = q0; q < q1; q++) {
            const float share = twice ? 0.25f + 0.5f * (float)q : across ? across[q] : cell_share(q, kw);
            UNROLL for (int l = 0; l < many; l++) {
                upper[l] = blend(a[l], b[l], share);
                lower[l] = blend(d[l], e[l], share);
            }
            for (int64_t p = p0; p < p1; p++) {
                const float part = twice ? 0.25f + 0.5f * (float)p : down ? down[p] : cell_share(p, kh);
                UNROLL for (int l = 0; l < many; l++) {
                    const vf v = blend(upper[l], lower[l], part);
                    if (n >= VL) v_put(y + p * wide + q * c + at + l * VL, v, stream);
                    else v_store_part(y + p * wide + q * c + at + l * VL, v, n);
                }
            }
        }
    }
}

/* to = the outputs of the cells at .. at + cells - 1 along the line x (W, C) of few channels. Returns how many floats. */
INLINE int64_t blend_line(float *to, const float *x, const struct window *w, int64_t at, int64_t cells, const float *across)
{
    const int64_t c = w->c, k = w->kernel[AXIS_W], size = w->size[AXIS_W];
    float *place = to;
    for (int64_t i = at; i < at + cells; i++) {
        const struct cell cell = cell_of(i, k, size);
        if (c == 1 && k == 2 && i >= 0) { /* all cells that lie inside */
            const int64_t stop = at + cells < size ? at + cells : size - 1;
            for (; i < stop; i++, place += 2) {
                place[0] = x[i] * 0.75f + x[i + 1] * 0.25f;
                place[1] = x[i] * 0.25f + x[i + 1] * 0.75f;
            }
            if (i == at + cells) break;
            *place++ = x[i];
            continue;
        }
        if (c == 1) {
            for (int64_t q = cell.start; q < cell.stop; q++)
                *place++ = x[cell.low] * (1.0f - across[q]) + x[cell.high] * across[q];
            continue;
        }
        const vf low = v_load_n(x + cell.low * c, (size - cell.low) * c);
        const vf high = v_load_n(x + cell.high * c, (size - cell.high) * c);
        for (int64_t q = cell.start; q < cell.stop; q++, place += c) v_store(place, blend(low, high, across[q]));
    }
    return place - to;
}

/* Few channels: lines are made longer first, in strips that stay in the cache, and then blended. */
static void bilinear_lines(const struct step *step, const struct lane *lane, const struct window *w)
{
    const int64_t c = w->c, kh = w->kernel[AXIS_H], kw = w->kernel[AXIS_W], height = w->size[AXIS_H];
    const int64_t width = w->size[AXIS_W] * c, wide = w->out[AXIS_W] * c;
    const int64_t strip = STRIP / (kw * c), rows = w->n * (height + 1), block = COPY_FLOATS / (kh * wide + 1) + 1;
    float table[MOST_SHARES], *line[2] = {lane->scratch, (float *)lane->scratch + STRIP + VL};
    const float *x = step->in[0].data, *across = cell_shares(table, kw);
    float *y = step->out[0].data;
    for (int64_t first = lane->id * block; first < rows; first += lane->count * block)
        for (int64_t at = -1; at < w->size[AXIS_W]; at += strip) {
            const int64_t cells = w->size[AXIS_W] - at < strip ? w->size[AXIS_W] - at : strip;
            const int64_t start = at < 0 ? 0 : (at * kw + kw / 2) * c;
            int64_t made[2] = {-1, -1}, floats = 0; /* which lines of x are in line[] */
            for (int64_t row = first; row < rows && row < first + block; row++) {
                const int64_t n = row / (height + 1);
                const struct cell cell = cell_of(row % (height + 1) - 1, kh, height);
                const int64_t low = n * height + cell.low, high = n * height + cell.high, keep = made[1] == low;
                if (made[keep] != low) floats = blend_line(line[keep], x + low * width, w, at, cells, across);
                made[keep] = low;
                if (made[!keep] != high) floats = blend_line(line[!keep], x + high * width, w, at, cells, across);
                made[!keep] = high;
                for (int64_t p = cell.start; p < cell.stop; p++) {
                    const float share = cell_share(p, kh), *upper = line[keep], *lower = line[!keep];
                    float *to = y + (n * w->out[AXIS_H] + cell.first + p) * wide + start;
                    for (int64_t i = 0; i < floats; i += VL)
                        v_store_n(to + i, blend(v_load(upper + i), v_load(lower + i), share), floats - i);
                }
            }
        }
}

/* y (N, H, KH, W, KW, C) = x (N, H, W, C) interpolated, along W first */
static void kernel_upsample_bilinear(const struct step *step, const struct lane *lane)
{
    const struct window w = window_of(&step->in[0], &step->out[0], &step->attr);
    const int64_t kh = w.kernel[AXIS_H], kw = w.kernel[AXIS_W], height = w.size[AXIS_H];
    const int64_t image = height * w.size[AXIS_W] * w.c;
    float tables[2][MOST_SHARES];
    const float *x = step->in[0].data, *down = cell_shares(tables[0], kh), *across = cell_shares(tables[1], kw);
    float *y = step->out[0].data;
    if (w.c < VL && across && kw * w.c <= STRIP) {
        bilinear_lines(step, lane, &w);
        return;
    }
    const int twice = kh == 2 && kw == 2 && w.c >= VL, stream = streams(&step->out[0], w.c);
    EACH_LINE(w.n * (height + 1), kh * w.out[AXIS_W] * w.c) {
        const int64_t n = line / (height + 1), row = line % (height + 1) - 1;
        const struct cell rows = cell_of(row, kh, height);
        for (int64_t i = -1; i < w.size[AXIS_W]; i++) {
            const struct cell columns = cell_of(i, kw, w.size[AXIS_W]);
            const int inside = row >= 0 && row + 1 < height && i >= 0 && i + 1 < w.size[AXIS_W];
            const float *from = x + n * image;
            float *to = y + n * image * kh * kw;
            if (stream && LINE > 1) {
                if (twice && inside) blend_cell(LINE, 1, to, from, &w, &rows, &columns, down, across, 1);
                else blend_cell(LINE, 0, to, from, &w, &rows, &columns, down, across, 1);
            } else {
                if (twice && inside) blend_cell(1, 1, to, from, &w, &rows, &columns, down, across, stream);
                else blend_cell(1, 0, to, from, &w, &rows, &columns, down, across, stream);
            }
        }
    }
    if (stream) stream_end();
}

/* The rows of outputs that input i is part of, and its share in each: `table` if there is room in it. */
struct back {
    int64_t i, k, size, start, stop;
    const float *share;
};

INLINE float back_share(const struct back *b, int64_t o)
{
    const int64_t cell = (o + b->k - b->k / 2) / b->k - 1;
    const float share = cell_share(o - cell * b->k - b->k / 2, b->k);
    if (cell == b->i) return b->i + 1 == b->size ? 1.0f : 1.0f - share;
    return cell < 0 ? 1.0f : share;
}

INLINE struct back back_of(int64_t i, int64_t k, int64_t size, float *table)
{
    const int64_t start = (i - 1) * k + k / 2, stop = (i + 1) * k + k / 2;
    struct back b = {.i = i, .k = k, .size = size, .start = start < 0 ? 0 : start,
                     .stop = stop < size * k ? stop : size * k};
    if (k > MOST_SHARES) return b;
    for (int64_t o = b.start; o < b.stop; o++) table[o - b.start] = back_share(&b, o);
    b.share = table;
    return b;
}

/* sum (nv vectors) = the weighted sum of a column of rows of g (.., ld) */
INLINE void back_column(const int nv, vf *sum, const float *g, int64_t ld, int64_t last, const struct back *rows)
{
    UNROLL for (int v = 0; v < nv; v++) sum[v] = v_zero();
    for (int64_t o = rows->start; o < rows->stop; o++) {
        const vf share = v_set(rows->share ? rows->share[o - rows->start] : back_share(rows, o));
        UNROLL for (int v = 0; v < nv; v++)
            sum[v] = v_fma(v_load_n(g + o * ld + v * VL, v + 1 < nv ? VL : last), share, sum[v]);
    }
}

/* dx (W, nv vectors of C) = the weighted sums of the rows of g (.., OW, C), then of the columns. nv is a constant. */
INLINE void back_line(const int nv, float *dx, const float *g, const struct window *w, int64_t last, const struct back *rows,
                      const float *across)
{
    const int64_t c = w->c, k = w->kernel[AXIS_W], size = w->size[AXIS_W], wide = w->out[AXIS_W] * c;
    vf here[4], next[4], sum[4];
    UNROLL for (int v = 0; v < nv; v++) next[v] = v_zero();
    for (int64_t i = -1; i < size; i++) {
        const struct cell cell = cell_of(i, k, size);
        UNROLL for (int v = 0; v < nv; v++) {
            here[v] = next[v];
            next[v] = v_zero();
        }
        for (int64_t q = cell.start; q < cell.stop; q++) {
            const float share = across ? across[q] : cell_share(q, k);
            const vf left = v_set(i + 1 == size ? 1.0f : 1.0f - share), right = v_set(i < 0 ? 1.0f : share);
            back_column(nv, sum, g + (cell.first + q) * c, wide, last, rows);
            UNROLL for (int v = 0; v < nv; v++) {
                here[v] = v_fma(sum[v], left, here[v]);
                next[v] = v_fma(sum[v], right, next[v]);
            }
        }
        if (i < 0) continue;
        UNROLL for (int v = 0; v < nv; v++) v_store_n(dx + i * c + v * VL, here[v], v + 1 < nv ? VL : last);
    }
}

/* The same for few channels: sums of rows in strips that stay in the cache, then sums of columns. */
INLINE void back_line_narrow(float *dx, const float *g, const struct window *w, const struct back *rows, const float *across,
                             float *sums)
{
    const int64_t c = w->c, k = w->kernel[AXIS_W], size = w->size[AXIS_W], wide = w->out[AXIS_W] * c;
    const int64_t strip = STRIP / (k * c);
    for (int64_t at = 0; at < size; at += strip) {
        const int64_t end = at + strip < size ? at + strip : size;
        const int64_t start = at ? cell_of(at - 1, k, size).first : 0, stop = cell_of(end - 1, k, size).first + k;
        const int64_t floats = ((stop < size * k ? stop : size * k) - start) * c;
        for (int64_t j = 0; j < floats; j += 4 * VL) {
            vf sum[4];
            const int64_t left = floats - j;
            if (left >= 4 * VL) {
                back_column(4, sum, g + start * c + j, wide, VL, rows);
                UNROLL for (int v = 0; v < 4; v++) v_store(sums + j + v * VL, sum[v]);
            } else {
                for (int64_t v = 0; v < left; v += VL) {
                    back_column(1, sum, g + start * c + j + v, wide, left - v, rows);
                    v_store(sums + j + v, sum[0]);
                }
            }
        }
        for (int64_t i = at; i < end; i++) {
            vf total = v_zero();
            float only = 0.0f;
            if (c == 1 && k == 2 && i > 0) { /* all places that lie inside */
                const int64_t inside = end < size ? end : size - 1;
                const float *column = sums - start;
                for (; i < inside; i++)
                    dx[i] = (column[2 * i - 1] + column[2 * i + 2]) * 0.25f + (column[2 * i] + column[2 * i + 1]) * 0.75f;
                if (i == end) break;
            }
            for (int64_t side = i - 1; side <= i; side++) {
                const struct cell cell = cell_of(side, k, size);
                const float *column = sums + (cell.first - start) * c;
                for (int64_t q = cell.start; q < cell.stop; q++) {
                    const float share = side < i ? (i ? across[q] : 1.0f) : i + 1 == size ? 1.0f : 1.0f - across[q];
                    if (c == 1) only += column[q] * share;
                    else total = v_fma(v_load(column + q * c), v_set(share), total);
                }
            }
            if (c == 1) dx[i] = only;
            else v_store_n(dx + i * c, total, (size - i) * c); /* spills over into places that are written after it */
        }
    }
}

/* dx (N, H, W, C) from g (N, H, KH, W, KW, C): the adjoint */
static void kernel_upsample_bilinear_dx(const struct step *step, const struct lane *lane)
{
    const struct window w = window_of(&step->out[0], &step->in[0], &step->attr);
    const int64_t c = w.c, kh = w.kernel[AXIS_H], kw = w.kernel[AXIS_W], height = w.size[AXIS_H];
    const int64_t wide = w.out[AXIS_W] * c;
    float table[MOST_SHARES], weights[2 * MOST_SHARES];
    const float *across = cell_shares(table, kw);
    EACH_LINE(w.n * height, kh * wide) {
        const float *g = (const float *)step->in[0].data + line / height * kh * height * wide;
        float *dx = (float *)step->out[0].data + line * w.size[AXIS_W] * c;
        const struct back rows = back_of(line % height, kh, height, weights);
        if (c < VL && across && kw * c <= STRIP) {
            back_line_narrow(dx, g, &w, &rows, across, lane->scratch);
            continue;
        }
        for (int64_t j = 0; j < c; j += 4 * VL) {
            const int64_t left = c - j < 4 * VL ? c - j : 4 * VL, nv = (left + VL - 1) / VL, last = left - (nv - 1) * VL;
            if (nv == 4) back_line(4, dx + j, g + j, &w, last, &rows, across);
            else if (nv == 3) back_line(3, dx + j, g + j, &w, last, &rows, across);
            else if (nv == 2) back_line(2, dx + j, g + j, &w, last, &rows, across);
            else back_line(1, dx + j, g + j, &w, last, &rows, across);
        }
    }
}
