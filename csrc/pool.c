/* Pooling: the largest or the mean of the pixels in each window, and the gradients. N batch, D H W space, C channels, KD KH
 * KW window, OD OH OW output. Padding is no pixel.
 *
 * The lanes of a vector are channels; where windows side by side move by one pixel their channels are one row of lanes.
 * Where channels are few and windows move further, the pixels under each tap of some windows are first copied side by side.
 *
 * Gradients: a window adds to its pixels, or writes them where no windows overlap. A lane works on a slab of the
 * input, over all windows that reach into it, so that each pixel sums its windows in one order however the slabs lie. */
#include "window.h"

enum {
    POOL_TASK = 16384,  /* about so many floats a task */
    POOL_SLAB = 65536,  /* a slab is not thinner than so many floats, */
    SLAB_WINDOWS = 4,   /* or than so many windows: those on its edge are looked at twice */
    TAPS_FLOATS = 4096, /* the pixels copied for some windows: they stay in the first-level cache */
    MOST_TAPS = 1024,   /* with larger windows nothing is copied */
    POOL_AHEAD = 512,   /* so many floats ahead of their use, pixels are asked for: pages that follow each other are */
    POOL_LINE = 16,     /* far apart in memory, so that the machine itself asks too late; floats of a cache line */
    SUM_PIXELS = 64,    /* of a chain of sums */
    SUM_CHANNELS = 4096,
};
_Static_assert(2 * (TAPS_FLOATS + MOST_TAPS * VL) * sizeof(float) <= TEAM_SCRATCH, "the pixels copied fit in the scratch");
_Static_assert(3 * (SUM_CHANNELS + 8 * VL) * sizeof(float) <= TEAM_SCRATCH, "so do the sums");

/* How far apart neighbours are along each axis, in floats. */
struct steps { int64_t d, h, w; };

/* What a window has of the input along one axis: `count` pixels from `first` on. */
struct part { int64_t first, count; };

INLINE struct part pool_part(const struct window *w, int axis, int64_t o)
{
    const int64_t start = o * w->stride[axis] - w->before[axis], end = start + w->kernel[axis];
    const int64_t first = start > 0 ? start : 0;
    return (struct part){first, (end < w->size[axis] ? end : w->size[axis]) - first};
}

/* Moves the axis `from` to the place of `to`; in its place comes one pixel under one window. */
static void pool_move(struct window *w, int to, int from)
{
    w->size[to] = w->size[from], w->out[to] = w->out[from], w->kernel[to] = w->kernel[from];
    w->stride[to] = w->stride[from], w->before[to] = w->before[from];
    w->size[from] = w->out[from] = w->kernel[from] = w->stride[from] = 1, w->before[from] = 0;
}

/* The window, with D the outermost axis that there is. W goes there only if channels fill up the lanes: else it is better
 * where it is. */
static struct window pool_window(const struct tensor *x, const struct tensor *y, const struct attributes *attr)
{
    struct window w = window_of(x, y, attr);
    for (int axis = AXIS_H; axis <= AXIS_W && w.size[AXIS_D] == 1 && w.out[AXIS_D] == 1; axis++)
        if (axis == AXIS_H || 2 * w.c > VL) pool_move(&w, AXIS_D, axis);
    return w;
}

/* The larger, of equals m; NaN where either is. */
INLINE vf v_top(vf m, vf x) { return v_select(v_equal(x, x), v_max(x, m), x); }

INLINE vf pool_join(const int average, vf a, vf b)
{
    if (average) return a + b;
    return v_top(a, b);
}

/* The first n < VL lanes of a vector, or all. */
INLINE vf pool_load(const float *p, int64_t n) { return n < VL ? v_load_part(p, n) : v_load(p); }
INLINE void pool_store(float *p, vf v, int64_t n) { n < VL ? v_store_part(p, v, n) : v_store(p, v); }

/* For i = 0, VL ... lanes: `body` on `vectors` vectors, in the last of which `n` lanes count. */
#define EACH_LANES(lanes, body)                                                              \
    do {                                                                                     \
        int64_t i = 0;                                                                       \
        for (; i + 4 * VL <= (lanes); i += 4 * VL) { enum { vectors = 4 }; const int64_t n = VL; body; } \
        if (i + 2 * VL <= (lanes)) { enum { vectors = 2 }; const int64_t n = VL; body; i += 2 * VL; }   \
        if (i + VL <= (lanes)) { enum { vectors = 1 }; const int64_t n = VL; body; i += VL; }            \
        if (i < (lanes)) { enum { vectors = 1 }; const int64_t n = (lanes) - i; body; }                  \
    } while (0)

/* ----------------------------------------------------------------------------------------------------- forward */

/* y (vectors) = the largest, or scale times the sum, of x over d h w taps */
INLINE void pool_vectors(const int average, const int vectors, float *y, const float *x, int64_t d, int64_t h, int64_t w,
                         const struct steps *s, float scale, int64_t n)
{
    vf all[4] = {v_zero(), v_zero(), v_zero(), v_zero()}, row[4];
    for (int64_t a = 0; a < d; a++)
        for (int64_t b = 0; b < h; b++) {
            const float *p = x + a * s->d + b * s->h;
            UNROLL for (int j = 0; j < vectors; j++) row[j] = pool_load(p + j * VL, n);
            for (int64_t c = 1; c < w; c++) {
                p += s->w;
                UNROLL for (int j = 0; j < vectors; j++) {
                    row[j] = pool_join(average, row[j], pool_load(p + j * VL, n));
                }
            }
            UNROLL for (int j = 0; j < vectors; j++) {
                if (a + b) row[j] = pool_join(average, all[j], row[j]);
                all[j] = row[j];
            }
        }
    UNROLL for (int j = 0; j < vectors; j++) {
        if (average) all[j] = all[j] * v_set(scale);
        pool_store(y + j * VL, all[j], n);
    }
}

/* y (count, lanes), of windows `apart` floats from each other. */
INLINE void pool_windows(const int average, float *y, const float *x, int64_t count, int64_t apart, int64_t lanes,
                         int64_t d, int64_t h, int64_t w, const struct steps *s)
{
    const float scale = 1.0f / (float)(d * h * w);
    for (int64_t o = 0; o < count; o++, x += apart, y += lanes)
        EACH_LANES(lanes, pool_vectors(average, vectors, y + i, x + i, d, h, w, s, scale, n));
}

/* The same, with loops for the usual windows. */
INLINE void pool_usual(const int average, float *y, const float *x, int64_t count, int64_t apart, int64_t lanes, int64_t d,
                       int64_t h, int64_t w, const struct steps *s)
{
    if (d == 2 && h == 1 && w == 2) pool_windows(average, y, x, count, apart, lanes, 2, 1, 2, s);
    else if (d == 3 && h == 1 && w == 3) pool_windows(average, y, x, count, apart, lanes, 3, 1, 3, s);
    else if (d == 2 && h == 2 && w == 2) pool_windows(average, y, x, count, apart, lanes, 2, 2, 2, s);
    else pool_windows(average, y, x, count, apart, lanes, d, h, w, s);
}

/* The windows of a row that lie inside: from *lo to *hi - 1. */
INLINE void pool_inside(const struct window *w, int64_t *lo, int64_t *hi)
{
    const int64_t room = w->size[AXIS_W] + w->before[AXIS_W] - w->kernel[AXIS_W], s = w->stride[AXIS_W];
    *hi = room < 0 ? 0 : room / s + 1 < w->out[AXIS_W] ? room / s + 1 : w->out[AXIS_W];
    *lo = (w->before[AXIS_W] + s - 1) / s < *hi ? (w->before[AXIS_W] + s - 1) / s : *hi;
}

/* For how many windows side by side the pixels under their taps are copied; 0: that does not pay. */
INLINE int64_t pool_copied(const struct window *w, int64_t taps)
{
    return 2 * w->c > VL || taps > MOST_TAPS ? 0 : TAPS_FLOATS / (taps * w->c) + 1;
}

/* to (n, c) = pixels `apart` floats from each other; c < VL */
INLINE void copy_pixels(float *restrict to, const float *restrict from, int64_t n, int64_t to_apart, int64_t from_apart, int64_t c)
{
#define COPY(size) for (int64_t i = 0; i < n; i++) memcpy(to + i * to_apart, from + i * from_apart, size * sizeof(float))
    switch (c) {
    case 1:
        if (to_apart == 1 && from_apart == 2) /* of this the compiler makes vector code */
            for (int64_t i = 0; i < n; i++) to[i] = from[2 * i];
        else COPY(1);
        break;
    case 2: COPY(2); break;
    case 3: COPY(3); break;
    case 4: COPY(4); break;
    default: for (int64_t i = 0; i < n; i++) v_store_part(to + i * to_apart, v_load_part(from + i * from_apart, c), c);
    }
#undef COPY
}

/* y (OW,C) = a row of output over the d h rows of input that begin at x */
INLINE void pool_row(const int average, const struct window *w, float *y, const float *x, int64_t d, int64_t h,
                     const struct steps *s, float *taps)
{
    const int64_t c = w->c, kernel = w->kernel[AXIS_W], apart = w->stride[AXIS_W] * c;
    int64_t lo, hi;
    pool_inside(w, &lo, &hi);
    for (int64_t o = lo ? 0 : hi; o < w->out[AXIS_W]; o = o + 1 == lo ? hi : o + 1) {
        const struct part part = pool_part(w, AXIS_W, o);
        pool_windows(average, y + o * c, x + part.first * c, 1, 0, c, d, h, part.count, s);
    }
    if (lo == hi) return;
    x += lo * apart - w->before[AXIS_W] * c;
    const int64_t some = pool_copied(w, d * h * kernel);
    if (apart == c) pool_usual(average, y + lo * c, x, 1, 0, (hi - lo) * c, d, h, kernel, s);
    else if (!some) pool_usual(average, y + lo * c, x, hi - lo, apart, c, d, h, kernel, s);
    else
        for (int64_t o = lo; o < hi; o += some, x += some * apart) {
            const int64_t n = hi - o < some ? hi - o : some;
            const struct steps t = {h * kernel * n * c, kernel * n * c, n * c};
            for (int64_t a = 0; a < d; a++)
                for (int64_t b = 0; b < h; b++)
                    for (int64_t k = 0; k < kernel; k++)
                        copy_pixels(taps + a * t.d + b * t.h + k * t.w, x + a * s->d + b * s->h + k * c, n, c, apart, c);
            pool_usual(average, y + o * c, taps, 1, 0, n * c, d, h, kernel, &t);
        }
}

/* Steps in an array (N,D,H,W,C). */
INLINE struct steps pool_steps(const struct window *w)
{
    return (struct steps){w->size[AXIS_H] * w->size[AXIS_W] * w->c, w->size[AXIS_W] * w->c, w->c};
}

/* y (N,OD,OH,OW,C) of x (N,D,H,W,C) */
INLINE void pool(const int average, const struct step *step, const struct lane *lane)
{
    const struct window w = pool_window(&step->in[0], &step->out[0], &step->attr);
    const struct steps s = pool_steps(&w);
    const int64_t high = w.out[AXIS_H], rows = w.n * w.out[AXIS_D] * high, row = w.out[AXIS_W] * w.c;
    const int64_t some = POOL_TASK / (row * w.kernel[AXIS_W]) + 1;
    for (int64_t t = lane->id; t * some < rows; t += lane->count)
        for (int64_t r = t * some; r < rows && r < (t + 1) * some; r++) {
            const struct part d = pool_part(&w, AXIS_D, r / high % w.out[AXIS_D]), h = pool_part(&w, AXIS_H, r % high);
            const float *x = (const float *)step->in[0].data + r / high / w.out[AXIS_D] * w.size[AXIS_D] * s.d;
            pool_row(average, &w, (float *)step->out[0].data + r * row, x + d.first * s.d + h.first * s.h, d.count, h.count,
                     &s, lane->scratch);
        }
}

static void kernel_max_pool(const struct step *step, const struct lane *lane) { pool(0, step, lane); }
static void kernel_average_pool(const struct step *step, const struct lane *lane) { pool(1, step, lane); }

/* --------------------------------------------------------------------------------------------------- gradients */

/* A row of windows as its gradient needs it: x and dx from the first pixels on, whose d h rows the windows reach; the
 * first `skip` of d belong to another slab. Of averages x and y are not read. */
struct spread {
    float *dx;
    const float *x, *y, *g;
    struct steps dx_step, x_step;
    int64_t d, h, skip;
};

/* dx (d,h,w, vectors) = [dx +] the gradient of these windows. `plain`: no NaN among y. */
INLINE void spread_vectors(const int average, const int add, const int plain, const int vectors, const struct spread *s,
                           int64_t d, int64_t h, int64_t w, int64_t skip, float scale, int64_t i, int64_t n)
{
    vf left[4], top[4];
    UNROLL for (int j = 0; j < vectors; j++) {
        left[j] = pool_load(s->g + i + j * VL, n);
        if (average) left[j] = left[j] * v_set(scale);
        else top[j] = pool_load(s->y + i + j * VL, n);
    }
    for (int64_t a = 0; a < d; a++)
        for (int64_t b = 0; b < h; b++)
            for (int64_t c = 0; c < w; c++) {
                float *dx = s->dx + a * s->dx_step.d + b * s->dx_step.h + c * s->dx_step.w + i;
                const float *x = s->x + a * s->x_step.d + b * s->x_step.h + c * s->x_step.w + i;
                UNROLL for (int j = 0; j < vectors; j++) {
                    vf mine = left[j];
                    if (!average) {
                        const vf v = pool_load(x + j * VL, n);
                        const vm wins = v_equal(v, top[j]);
                        vf others = left[j];
                        if (plain) mine = v_zero();
                        else {
                            const vm number = v_equal(v, v);
                            mine = v_select(number, v_zero(), left[j]);
                            others = v_select(number, left[j], v_zero());
                        }
                        mine = v_select(wins, left[j], mine);
                        left[j] = v_select(wins, v_zero(), others);
                    }
                    if (a < skip) continue;
                    if (add) mine = pool_load(dx + j * VL, n) + mine;
                    pool_store(dx + j * VL, mine, n);
                }
            }
}

/* For `count` windows side by side, `apart` floats from each other in x and dx. */
INLINE void spread_windows(const int average, const int add, const int plain, struct spread s, int64_t count, int64_t apart,
                           int64_t lanes, int64_t d, int64_t h, int64_t w, int64_t skip, float scale)
{
    for (int64_t o = 0; o < count; o++, s.x += apart, s.dx += apart, s.y += lanes, s.g += lanes) {
        if (!add) /* what is added to has been cleared, and is in the cache */
            for (int64_t a = 0; a < d; a++)
                for (int64_t b = 0; b < h; b++)
                    for (int64_t q = 0; q < apart; q += POOL_LINE) {
                        prefetch(s.dx + a * s.dx_step.d + b * s.dx_step.h + q + POOL_AHEAD);
                        if (!average) prefetch(s.x + a * s.x_step.d + b * s.x_step.h + q + POOL_AHEAD);
                    }
        EACH_LANES(lanes, spread_vectors(average, add, plain, vectors, &s, d, h, w, skip, scale, i, n));
    }
}

/* The same, with loops for the usual windows. */
INLINE void spread_usual(const int average, const int add, int plain, struct spread s, int64_t count, int64_t apart,
                         int64_t lanes, int64_t w, float scale)
{
    if (!average && !plain) spread_windows(average, add, 0, s, count, apart, lanes, s.d, s.h, w, s.skip, scale);
    else if (!s.skip && s.d == 2 && s.h == 1 && w == 2)
        spread_windows(average, add, 1, s, count, apart, lanes, 2, 1, 2, 0, scale);
    else if (!s.skip && s.d == 3 && s.h == 1 && w == 3)
        spread_windows(average, add, 1, s, count, apart, lanes, 3, 1, 3, 0, scale);
    else if (!s.skip && s.d == 2 && s.h == 2 && w == 2)
        spread_windows(average, add, 1, s, count, apart, lanes, 2, 2, 2, 0, scale);
    else spread_windows(average, add, 1, s, count, apart, lanes, s.d, s.h, w, s.skip, scale);
}

/* Whether no number of y (n) is NaN. */
static int pool_numbers(const float *y, int64_t n)
{
    vf odd = v_zero();
    for (int64_t i = 0; i < n; i += VL) {
        const vf v = v_load_n(y + i, n - i);
        odd = v_select(v_equal(v, v), odd, v_set(1.0f));
    }
    return v_largest(odd) == 0.0f;
}

/* to (n, c) [+]= from (n, c), whose pixels lie side by side; those of `to` are `apart` floats from each other. c < VL */
INLINE void put_pixels(const int add, float *to, const float *from, int64_t n, int64_t apart, int64_t c)
{
    if (add && apart == c)
        for (int64_t i = 0; i < n * c; i += VL)
            v_store_n(to + i, v_load_n(to + i, n * c - i) + v_load_n(from + i, n * c - i), n * c - i);
    else if (add)
        for (int64_t i = 0; i < n; i++)
            for (int64_t j = 0; j < c; j++) to[i * apart + j] += from[i * c + j];
    else copy_pixels(to, from, n, apart, c, c);
}

/* One row of windows: y and g (OW,C) from its first window on, x and dx from its first column on. Each window has `area`
 * pixels in a column. */
INLINE void spread_row(const int average, const int add, const struct window *w, const struct spread *row, int64_t area,
                       float *taps)
{
    const int64_t c = w->c, kernel = w->kernel[AXIS_W], apart = w->stride[AXIS_W] * c;
    const int plain = average || pool_numbers(row->y, w->out[AXIS_W] * c);
    struct spread s = *row;
    int64_t lo, hi;
    pool_inside(w, &lo, &hi);
    for (int64_t o = lo ? 0 : hi; o < w->out[AXIS_W]; o = o + 1 == lo ? hi : o + 1) {
        const struct part part = pool_part(w, AXIS_W, o);
        s.x = row->x + part.first * c, s.dx = row->dx + part.first * c, s.y = row->y + o * c, s.g = row->g + o * c;
        spread_windows(average, add, plain, s, 1, 0, c, s.d, s.h, part.count, s.skip, 1.0f / (float)(area * part.count));
    }
    const float scale = 1.0f / (float)(area * kernel);
    const int64_t some = pool_copied(w, area * kernel);
    for (int64_t o = lo; o < hi; o += some) {
        const int64_t n = some && some < hi - o ? some : hi - o, first = o * apart - w->before[AXIS_W] * c;
        s.x = row->x + first, s.dx = row->dx + first, s.y = row->y + o * c, s.g = row->g + o * c;
        if (!some) {
            spread_usual(average, add, plain, s, n, apart, c, kernel, scale);
            break;
        }
        const struct steps t = {s.h * kernel * n * c, kernel * n * c, n * c};
        struct spread copied = s;
        copied.dx = taps, copied.dx_step = t;
        if (!average && apart != c) {
            float *x = taps + s.d * t.d;
            for (int64_t a = 0; a < s.d; a++)
                for (int64_t b = 0; b < s.h; b++)
                    for (int64_t k = 0; k < kernel; k++)
                        copy_pixels(x + a * t.d + b * t.h + k * t.w, s.x + a * s.x_step.d + b * s.x_step.h + k * c, n, c, apart, c);
            copied.x = x, copied.x_step = t;
        }
        spread_usual(average, 0, plain, copied, 1, 0, n * c, kernel, scale);
        for (int64_t a = s.skip; a < s.d; a++)
            for (int64_t b = 0; b < s.h; b++)
                for (int64_t k = 0; k < kernel; k++)
                    put_pixels(add, s.dx + a * s.dx_step.d + b * s.dx_step.h + k * c, taps + a * t.d + b * t.h + k * t.w, n, apart, c);
    }
}

/* How much of an axis is covered by windows that touch each other, from its beginning on; 0 if they leave gaps. */
INLINE int64_t pool_covered(const struct window *w, int axis)
{
    const int64_t end = (w->out[axis] - 1) * w->stride[axis] - w->before[axis] + w->kernel[axis];
    if (w->out[axis] > 1 && w->stride[axis] > w->kernel[axis]) return 0;
    return end < w->size[axis] ? end : w->size[axis];
}

INLINE void pool_clear(float *p, int64_t n) { memset(p, 0, (size_t)n * sizeof *p); }

/* dx: the pixels from d = from to d = to - 1 of one row of the batch. g and y (OD,OH,OW,C), x and dx (D,H,W,C) */
INLINE void spread_slab(const int average, const int add, const struct window *w, float *dx, const float *x, const float *y,
                        const float *g, int64_t from, int64_t to, float *taps)
{
    const struct steps s = pool_steps(w);
    const int64_t stride = w->stride[AXIS_D], reach = from + w->before[AXIS_D] - w->kernel[AXIS_D] + stride;
    const int64_t high = w->out[AXIS_H], row = w->out[AXIS_W] * w->c, covered = pool_covered(w, AXIS_W) * w->c;
    int64_t done = from; /* all before is written, or cleared to add to */
    for (int64_t o = reach > 0 ? reach / stride : 0; o < w->out[AXIS_D]; o++) {
        const struct part d = pool_part(w, AXIS_D, o);
        if (d.first >= to) break;
        const int64_t end = d.first + d.count < to ? d.first + d.count : to;
        const int64_t whole = add ? end : d.first; /* what is cleared as a whole; the rest where there is no window */
        if (whole > done) pool_clear(dx + done * s.d, (whole - done) * s.d);
        if (whole > done) done = whole;
        for (int64_t a = done; a < end; a++)
            for (int64_t b = 0; b < w->size[AXIS_H]; b++) {
                const int64_t start = b < pool_covered(w, AXIS_H) ? covered : 0;
                pool_clear(dx + a * s.d + b * s.h + start, s.h - start);
            }
        done = end;
        for (int64_t p = 0; p < high; p++) {
            const struct part h = pool_part(w, AXIS_H, p);
            const int64_t at = d.first * s.d + h.first * s.h, out = (o * high + p) * row;
            const struct spread windows = {dx + at, x + at, y + out, g + out, s, s, end - d.first, h.count,
                                           from > d.first ? from - d.first : 0};
            spread_row(average, add, w, &windows, d.count * h.count, taps);
        }
    }
    if (to > done) pool_clear(dx + done * s.d, (to - done) * s.d);
}

/* dx (N,D,H,W,C) of g (N,OD,OH,OW,C), and for the largest of x and y shaped like them */
INLINE void spread(const int average, const struct step *step, const struct lane *lane)
{
    const struct tensor *g = &step->in[0], *dx = &step->out[0];
    const struct window w = pool_window(dx, g, &step->attr);
    const int64_t depth = w.size[AXIS_D], stride = w.stride[AXIS_D], slice = pool_steps(&w).d, row = depth * slice;
    const int64_t out = w.out[AXIS_D] * w.out[AXIS_H] * w.out[AXIS_W] * w.c;
    const float *x = average ? dx->data : step->in[1].data, *y = average ? g->data : step->in[2].data;
    int64_t windows = POOL_SLAB / (slice * stride) + 1;
    if (stride < w.kernel[AXIS_D] && windows < SLAB_WINDOWS * (w.kernel[AXIS_D] / stride))
        windows = SLAB_WINDOWS * (w.kernel[AXIS_D] / stride);
    const int64_t thick = windows * stride < depth ? windows * stride : depth, slabs = (depth + thick - 1) / thick;
    int add = 0;
    for (int a = 0; a < MAX_SPACE; a++) add |= w.out[a] > 1 && w.stride[a] < w.kernel[a];
    for (int64_t t = lane->id; t < w.n * slabs; t += lane->count) {
        const int64_t n = t / slabs, from = t % slabs * thick, to = from + thick < depth ? from + thick : depth;
        float *dx_n = (float *)dx->data + n * row;
        const float *x_n = x + n * row, *y_n = y + n * out, *g_n = (const float *)g->data + n * out;
        if (add) spread_slab(average, 1, &w, dx_n, x_n, y_n, g_n, from, to, lane->scratch);
        else spread_slab(average, 0, &w, dx_n, x_n, y_n, g_n, from, to, lane->scratch);
    }
}

static void kernel_max_pool_dx(const struct step *step, const struct lane *lane) { spread(0, step, lane); }
static void kernel_average_pool_dx(const struct step *step, const struct lane *lane) { spread(1, step, lane); }

/* ------------------------------------------------------------------------------------------------ whole images */

/* sum (lanes) [+]= pixels of x `apart` floats from each other; or the largest of both */
INLINE void whole_add(const int average, float *sum, const float *x, const int pixels, int64_t apart, int64_t lanes)
{
    for (int64_t i = 0; i < lanes; i += VL) {
        vf v[8];
        UNROLL for (int j = 0; j < pixels; j++) v[j] = v_load_n(x + j * apart + i, lanes - i);
        UNROLL for (int half = pixels / 2; half; half /= 2)
            UNROLL for (int j = 0; j < half; j++) v[j] = pool_join(average, v[j], v[j + half]);
        v_store_n(sum + i, pool_join(average, v_load(sum + i), v[0]), lanes - i);
    }
}

/* total + lost (lanes) += sum, which becomes 0: what rounding takes from the total is kept (Knuth's sum of two) */
INLINE void whole_total(float *total, float *lost, float *sum, int64_t lanes)
{
    for (int64_t i = 0; i < lanes; i += VL) {
        const vf a = v_load(total + i), b = v_load(sum + i), t = a + b, part = t - a;
        v_store(lost + i, v_load(lost + i) + ((a - (t - part)) + (b - part)));
        v_store(total + i, t);
        v_store(sum + i, v_zero());
    }
}

/* y (C) of x (pixels, C), of which only `c` channels are looked at. Where channels are few, some pixels count as one. */
INLINE void whole(const int average, float *y, const float *x, int64_t pixels, int64_t apart, int64_t c, float *scratch)
{
    const int64_t some = c < VL ? 4 * VL / c : 1, lanes = some * c, rest = pixels % some * c, space = lanes + VL;
    float *sum = scratch, *total = sum + space, *lost = total + space;
    for (int64_t i = 0; i < space; i++) sum[i] = average ? 0.0f : -INFINITY, total[i] = lost[i] = 0.0f;
    const int64_t count = pixels / some;
    apart *= some;
    for (int64_t p = 0; p < count; p += SUM_PIXELS) {
        const int64_t end = p + SUM_PIXELS < count ? p + SUM_PIXELS : count;
        int64_t q = p;
        for (; q + 8 <= end; q += 8) whole_add(average, sum, x + q * apart, 8, apart, lanes);
        for (; q < end; q++) whole_add(average, sum, x + q * apart, 1, apart, lanes);
        if (average) whole_total(total, lost, sum, lanes);
    }
    if (rest) whole_add(average, sum, x + count * apart, 1, apart, rest);
    if (average) whole_total(total, lost, sum, lanes);
    for (int64_t j = 0; j < c; j++) {
        double all = average ? 0.0 : sum[j];
        for (int64_t i = j; i < lanes; i += c)
            if (average) all += lost[i] == lost[i] ? (double)total[i] + lost[i] : total[i]; /* of infinity NaN is lost */
            else if (sum[i] > all || sum[i] != sum[i]) all = sum[i];
        y[j] = (float)(average ? all / (double)pixels : all);
    }
}

/* y (N,C) of x (N,D,H,W,C) */
INLINE void pool_whole(const int average, const struct step *step, const struct lane *lane)
{
    const struct tensor *y = &step->out[0];
    const int64_t n = y->size[0], c = y->size[1], parts = (c + SUM_CHANNELS - 1) / SUM_CHANNELS;
    if (n == 0) return;
    const int64_t pixels = elements(&step->in[0]) / (n * c);
    for (int64_t t = lane->id; t < n * parts; t += lane->count) {
        const int64_t row = t / parts, first = t % parts * SUM_CHANNELS;
        const int64_t some = c - first < SUM_CHANNELS ? c - first : SUM_CHANNELS;
        whole(average, (float *)y->data + row * c + first, (const float *)step->in[0].data + row * pixels * c + first, pixels, c,
              some, lane->scratch);
    }
}

static void kernel_global_max_pool(const struct step *step, const struct lane *lane) { pool_whole(0, step, lane); }
static void kernel_global_average_pool(const struct step *step, const struct lane *lane) { pool_whole(1, step, lane); }

/* dx (pixels, vectors) = g where x is the first to be y, else 0 */
INLINE void whole_vectors(const int vectors, float *dx, const float *x, const float *y, const float *g, int64_t pixels,
                          int64_t c, int64_t n)
{
    vf left[4], top[4];
    UNROLL for (int j = 0; j < vectors; j++) left[j] = pool_load(g + j * VL, n), top[j] = pool_load(y + j * VL, n);
    for (int64_t p = 0; p < pixels; p++, x += c, dx += c)
        UNROLL for (int j = 0; j < vectors; j++) {
            const vf v = pool_load(x + j * VL, n);
            const vm wins = v_equal(v, top[j]), number = v_equal(v, v);
            pool_store(dx + j * VL, v_select(wins, left[j], v_select(number, v_zero(), left[j])), n);
            left[j] = v_select(wins, v_zero(), v_select(number, left[j], v_zero()));
        }
}

/* dx (N,D,H,W,C) of g, y (N,C) and x */
static void kernel_global_max_pool_dx(const struct step *step, const struct lane *lane)
{
    const struct tensor *y = &step->in[2];
    const int64_t n = y->size[0], c = y->size[1], parts = (c + 4 * VL - 1) / (4 * VL);
    if (n == 0) return;
    const int64_t pixels = elements(&step->out[0]) / (n * c);
    for (int64_t t = lane->id; t < n * parts; t += lane->count) {
        const int64_t at = t / parts * c + t % parts * 4 * VL, of_x = at + t / parts * (pixels - 1) * c;
        const int64_t lanes = c - t % parts * 4 * VL < 4 * VL ? c - t % parts * 4 * VL : 4 * VL;
        float *dx = (float *)step->out[0].data + of_x;
        const float *g = step->in[0].data, *x = (const float *)step->in[1].data + of_x;
        EACH_LANES(lanes, whole_vectors(vectors, dx + i, x + i, (const float *)y->data + at + i, g + at + i, pixels, c, n));
    }
}

/* dx (N,D,H,W,C) = g (N,C) / pixels */
static void kernel_global_average_pool_dx(const struct step *step, const struct lane *lane)
{
    const struct tensor *g = &step->in[0];
    const int64_t n = g->size[0], c = g->size[1];
    if (n == 0) return;
    const int64_t pixels = elements(&step->out[0]) / (n * c), some = POOL_TASK / c + 1, parts = (pixels + some - 1) / some;
    const vf divisor = v_set((float)pixels);
    for (int64_t t = lane->id; t < n * parts; t += lane->count) {
        const int64_t row = t / parts, first = t % parts * some, count = pixels - first < some ? pixels - first : some;
        const float *from = (const float *)g->data + row * c;
        float *dx = (float *)step->out[0].data + (row * pixels + first) * c;
        EACH_1(dx, from, c, x / divisor);
        for (int64_t p = 1; p < count; p *= 2) /* what is there, once more behind it */
            memcpy(dx + p * c, dx, (size_t)((count - p < p ? count - p : p) * c) * sizeof *dx);
    }
}
