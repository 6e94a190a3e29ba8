/* Pooling: the largest or the mean of the pixels in each window, and the gradients. N batch, D H W space, C channels,
 * OD OH OW output. Padding is no pixel.
 *
 * Lanes of vectors are channels; where windows side by side move by one pixel, their channels are one row of lanes.
 * Where channels are few and windows move further, the pixels under each tap of some windows are first copied side by
 * side.
 *
 * Gradients: a window adds to its pixels, or writes them where no windows overlap. A thread works on a slab of the
 * input, with all windows that reach into it: each pixel sums its windows in an order that the shape fixes. */
#include "window.h"

enum {
    POOL_TASK = 16384,  /* about so many floats a task */
    POOL_SLAB = 65536,  /* a slab is not thinner than so many floats, */
    SLAB_WINDOWS = 4,   /* or than so many windows: those on its edge are looked at twice */
    TAPS_FLOATS = 4096, /* the pixels copied for some windows: they stay in the first-level cache */
    MOST_TAPS = 1024,   /* with larger windows nothing is copied */
    POOL_AHEAD = 512,   /* floats: pixels are asked for so far ahead; the machine itself stops at the end of a page */
    POOL_LINE = 16,     /* floats of a cache line */
};
_Static_assert(2 * (TAPS_FLOATS + MOST_TAPS * VL) * sizeof(float) <= TEAM_SCRATCH, "copied pixels fit in the scratch");

/* How far apart neighbours are along each axis, in floats. */
struct pool_steps { int64_t d, h, w; };

/* What a window has of the input along one axis: `count` pixels from `first` on. */
struct pool_part { int64_t first, count; };

INLINE struct pool_part pool_part_of(const struct window *w, int axis, int64_t o)
{
    const int64_t start = o * w->stride[axis] - w->before[axis], end = start + w->kernel[axis];
    const int64_t first = start > 0 ? start : 0;
    return (struct pool_part){first, (end < w->size[axis] ? end : w->size[axis]) - first};
}

/* Moves the axis `from` to the place of `to`; in its place comes one pixel under one window. */
static void pool_move(struct window *w, int to, int from)
{
    w->size[to] = w->size[from], w->out[to] = w->out[from], w->kernel[to] = w->kernel[from];
    w->stride[to] = w->stride[from], w->before[to] = w->before[from];
    w->size[from] = w->out[from] = w->kernel[from] = w->stride[from] = 1, w->before[from] = 0;
}

/* The window, with D the outermost axis that there is. W moves there only if channels fill up the lanes. */
static struct window pool_window(const struct tensor *x, const struct tensor *y, const struct attributes *attr)
{
    struct window w = window_of(x, y, attr);
    for (int axis = AXIS_H; axis <= AXIS_W && w.size[AXIS_D] == 1 && w.out[AXIS_D] == 1; axis++)
        if (axis == AXIS_H || 2 * w.c > VL) pool_move(&w, AXIS_D, axis);
    return w;
}

INLINE vf pool_join(const int average, vf a, vf b)
{
    if (average) return a + b;
    return v_top(a, b);
}

/* The first n < VL lanes of a vector, or all. */
INLINE vf pool_load(const float *p, int64_t n) { return n < VL ? v_load_part(p, n) : v_load(p); }
INLINE void pool_store(float *p, vf v, int64_t n) { n < VL ? v_store_part(p, v, n) : v_store(p, v); }

/* body(vectors, i, n) for i = 0 ... lanes - 1, some vectors at a time, in the last of which n lanes count. */
#define EACH_LANES(lanes, body)                                   \
    do {                                                          \
        int64_t i = 0;                                            \
        for (; i + 4 * VL <= (lanes); i += 4 * VL) body(4, i, VL); \
        if (i + 2 * VL <= (lanes)) { body(2, i, VL); i += 2 * VL; } \
        if (i + VL <= (lanes)) { body(1, i, VL); i += VL; }        \
        if (i < (lanes)) body(1, i, (lanes) - i);                  \
    } while (0)

/* ----------------------------------------------------------------------------------------------------- forward */

/* y (vectors) = the largest, or scale times the sum, of x over d h w taps */
INLINE void pool_vectors(const int average, const int vectors, float *y, const float *x, int64_t d, int64_t h,
                         int64_t w, const struct pool_steps *s, float scale, int64_t n)
{
    vf all[4] = {v_zero(), v_zero(), v_zero(), v_zero()}, row[4];
    for (int64_t a = 0; a < d; a++)
        for (int64_t b = 0; b < h; b++) {
            const float *p = x + a * s->d + b * s->h;
            UNROLL for (int j = 0; j < vectors; j++) row[j] = pool_load(p + j * VL, n);
            for (int64_t c = 1; c < w; c++) {
                p += s->w;
                UNROLL for (int j = 0; j < vectors; j++) row[j] = pool_join(average, row[j], pool_load(p + j * VL, n));
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
                         int64_t d, int64_t h, int64_t w, const struct pool_steps *s)
{
    const float scale = 1.0f / (float)(d * h * w);
#define POOL_SOME(vectors, i, n) pool_vectors(average, vectors, y + (i), x + (i), d, h, w, s, scale, n)
    for (int64_t o = 0; o < count; o++, x += apart, y += lanes) EACH_LANES(lanes, POOL_SOME);
#undef POOL_SOME
}

/* The same, with loops for the usual windows. */
INLINE void pool_usual(const int average, float *y, const float *x, int64_t count, int64_t apart, int64_t lanes,
                       int64_t d, int64_t h, int64_t w, const struct pool_steps *s)
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

/* to (n, c) = from (n, c); pixels lie to_step and from_step floats from each other; c < VL */
INLINE void pool_copy(float *restrict to, const float *restrict from, int64_t n, int64_t to_step, int64_t from_step,
                      int64_t c)
{
#define COPY(size) for (int64_t i = 0; i < n; i++) memcpy(to + i * to_step, from + i * from_step, size * sizeof *to)
    switch (c) {
    case 1:
        if (to_step == 1 && from_step == 2) /* of this the compiler makes vector code */
            for (int64_t i = 0; i < n; i++) to[i] = from[2 * i];
        else COPY(1);
        break;
    case 2: COPY(2); break;
    case 3: COPY(3); break;
    case 4: COPY(4); break;
    default: for (int64_t i = 0; i < n; i++) v_store_part(to + i * to_step, v_load_part(from + i * from_step, c), c);
    }
#undef COPY
}

/* Steps in an array (d,h,w, lanes). */
INLINE struct pool_steps pool_tap_steps(int64_t h, int64_t w, int64_t lanes)
{
    return (struct pool_steps){h * w * lanes, w * lanes, lanes};
}

/* taps (d,h,w, n c) = the pixels under n windows, `apart` floats from each other, the first of which begins at x */
static void pool_copy_taps(float *taps, const struct pool_steps *t, const float *x, const struct pool_steps *s,
                           int64_t d, int64_t h, int64_t w, int64_t n, int64_t apart, int64_t c)
{
    for (int64_t i = 0; i < d; i++)
        for (int64_t j = 0; j < h; j++)
            for (int64_t k = 0; k < w; k++)
                pool_copy(taps + i * t->d + j * t->h + k * t->w, x + i * s->d + j * s->h + k * s->w, n, c, apart, c);
}

/* y (OW,C) = a row of output over the d h rows of input that begin at x */
INLINE void pool_row(const int average, const struct window *w, float *y, const float *x, int64_t d, int64_t h,
                     const struct pool_steps *s, float *taps)
{
    const int64_t c = w->c, kernel = w->kernel[AXIS_W], apart = w->stride[AXIS_W] * s->w;
    int64_t lo, hi;
    pool_inside(w, &lo, &hi);
    for (int64_t o = lo ? 0 : hi; o < w->out[AXIS_W]; o = o + 1 == lo ? hi : o + 1) {
        const struct pool_part part = pool_part_of(w, AXIS_W, o);
        pool_windows(average, y + o * c, x + part.first * s->w, 1, 0, c, d, h, part.count, s);
    }
    if (lo == hi) return;
    x += lo * apart - w->before[AXIS_W] * s->w;
    const int64_t some = pool_copied(w, d * h * kernel);
    if (apart == c || !some) {
        const int64_t joined = apart == c ? hi - lo : 1; /* windows that make one row of lanes */
        pool_usual(average, y + lo * c, x, (hi - lo) / joined, apart, joined * c, d, h, kernel, s);
        return;
    }
    for (int64_t o = lo; o < hi; o += some, x += some * apart) {
        const int64_t n = hi - o < some ? hi - o : some;
        const struct pool_steps t = pool_tap_steps(h, kernel, n * c);
        pool_copy_taps(taps, &t, x, s, d, h, kernel, n, apart, c);
        pool_windows(average, y + o * c, taps, 1, 0, n * c, d, h, kernel, &t);
    }
}

/* Steps in an array (N,D,H,W,C) whose pixels lie so many floats apart. */
INLINE struct pool_steps pool_steps_of(const struct window *w, int64_t pixel)
{
    return (struct pool_steps){w->size[AXIS_H] * w->size[AXIS_W] * pixel, w->size[AXIS_W] * pixel, pixel};
}

/* y (N,OD,OH,OW,C) of x (N,D,H,W,C) */
INLINE void pool(const int average, const struct step *step, const struct lane *lane)
{
    const struct window w = pool_window(&step->in[0], &step->out[0], &step->attr);
    const struct pool_steps s = pool_steps_of(&w, pitch_of(&step->in[0]));
    const int64_t high = w.out[AXIS_H], rows = w.n * w.out[AXIS_D] * high, row = w.out[AXIS_W] * w.c;
    const int64_t some = POOL_TASK / (row * w.kernel[AXIS_W]) + 1;
    for (int64_t t = lane->id; t * some < rows; t += lane->count)
        for (int64_t r = t * some; r < rows && r < (t + 1) * some; r++) {
            const struct pool_part d = pool_part_of(&w, AXIS_D, r / high % w.out[AXIS_D]);
            const struct pool_part h = pool_part_of(&w, AXIS_H, r % high);
            const float *x = (const float *)step->in[0].data + r / high / w.out[AXIS_D] * w.size[AXIS_D] * s.d;
            pool_row(average, &w, (float *)step->out[0].data + r * row, x + d.first * s.d + h.first * s.h, d.count,
                     h.count, &s, lane->scratch);
        }
}

static void kernel_max_pool(const struct step *step, const struct lane *lane) { pool(0, step, lane); }
static void kernel_average_pool(const struct step *step, const struct lane *lane) { pool(1, step, lane); }

/* --------------------------------------------------------------------------------------------------- gradients */

/* A row of windows as its gradient needs it: x and dx from the first pixels on, whose d h rows the windows reach; the
 * first `skip` of d belong to another slab. Of averages x and y are not read. */
struct pool_dx {
    float *dx;
    const float *x, *y, *g;
    struct pool_steps dx_step, x_step;
    int64_t d, h, skip;
};

/* The same, so many floats further in x and dx, and in y and g. */
INLINE struct pool_dx pool_dx_at(const struct pool_dx *s, int64_t in, int64_t out)
{
    struct pool_dx moved = *s;
    moved.dx += in, moved.x += in, moved.y += out, moved.g += out;
    return moved;
}

/* dx (d,h,w, vectors) = [dx +] the gradient of these windows. `plain`: no NaN among y. */
INLINE void pool_dx_vectors(const int average, const int add, const int plain, const int vectors,
                            const struct pool_dx *s, int64_t d, int64_t h, int64_t w, int64_t skip, float scale,
                            int64_t i, int64_t n)
{
    vf left[4], top[4] = {v_zero(), v_zero(), v_zero(), v_zero()};
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
INLINE void pool_dx_windows(const int average, const int add, const int plain, struct pool_dx s, int64_t count,
                            int64_t apart, int64_t lanes, int64_t d, int64_t h, int64_t w, int64_t skip, float scale)
{
#define POOL_SOME(vectors, i, n) pool_dx_vectors(average, add, plain, vectors, &s, d, h, w, skip, scale, i, n)
    for (int64_t o = 0; o < count; o++, s.x += apart, s.dx += apart, s.y += lanes, s.g += lanes) {
        if (!add) /* what is added to has been cleared, and is in the cache */
            for (int64_t a = 0; a < d; a++)
                for (int64_t b = 0; b < h; b++)
                    for (int64_t q = POOL_AHEAD; q < POOL_AHEAD + apart; q += POOL_LINE) {
                        prefetch(s.dx + a * s.dx_step.d + b * s.dx_step.h + q);
                        if (!average) prefetch(s.x + a * s.x_step.d + b * s.x_step.h + q);
                    }
        EACH_LANES(lanes, POOL_SOME);
    }
#undef POOL_SOME
}

/* The same, with loops for the usual windows. */
INLINE void pool_dx_usual(const int average, const int add, int plain, struct pool_dx s, int64_t count, int64_t apart,
                          int64_t lanes, int64_t w, float scale)
{
    if (average || !plain) pool_dx_windows(average, add, 0, s, count, apart, lanes, s.d, s.h, w, s.skip, scale);
    else if (!s.skip && s.d == 2 && s.h == 1 && w == 2)
        pool_dx_windows(average, add, 1, s, count, apart, lanes, 2, 1, 2, 0, scale);
    else if (!s.skip && s.d == 3 && s.h == 1 && w == 3)
        pool_dx_windows(average, add, 1, s, count, apart, lanes, 3, 1, 3, 0, scale);
    else if (!s.skip && s.d == 2 && s.h == 2 && w == 2)
        pool_dx_windows(average, add, 1, s, count, apart, lanes, 2, 2, 2, 0, scale);
    else pool_dx_windows(average, add, 1, s, count, apart, lanes, s.d, s.h, w, s.skip, scale);
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

/* to (n, c) [+]= from (n, c); pixels of `from` lie side by side, of `to` `apart` floats from each other; c < VL */
INLINE void pool_put(const int add, float *to, const float *from, int64_t n, int64_t apart, int64_t c)
{
    if (add && apart == c)
        for (int64_t i = 0; i < n * c; i += VL)
            v_store_n(to + i, v_load_n(to + i, n * c - i) + v_load_n(from + i, n * c - i), n * c - i);
    else if (add)
        for (int64_t i = 0; i < n; i++)
            for (int64_t j = 0; j < c; j++) to[i * apart + j] += from[i * c + j];
    else pool_copy(to, from, n, apart, c, c);
}

/* The gradient of n windows side by side by way of `taps`, where the pixels under each tap lie side by side. */
INLINE void pool_dx_copied(const int average, const int add, const struct pool_dx *s, int64_t n, int64_t apart,
                           int64_t c, int64_t w, float scale, float *taps)
{
    const struct pool_steps t = pool_tap_steps(s->h, w, n * c);
    struct pool_dx copied = *s;
    copied.dx = taps, copied.dx_step = t;
    if (!average && apart != c) {
        pool_copy_taps(taps + s->d * t.d, &t, s->x, &s->x_step, s->d, s->h, w, n, apart, c);
        copied.x = taps + s->d * t.d, copied.x_step = t;
    }
    pool_dx_windows(average, 0, 0, copied, 1, 0, n * c, s->d, s->h, w, s->skip, scale);
    for (int64_t i = s->skip; i < s->d; i++)
        for (int64_t j = 0; j < s->h; j++)
            for (int64_t k = 0; k < w; k++)
                pool_put(add, s->dx + i * s->dx_step.d + j * s->dx_step.h + k * c, taps + i * t.d + j * t.h + k * t.w,
                         n, apart, c);
}

/* The gradient of one row of windows: y and g (OW,C), x and dx from the first column on. Each window has `area` pixels
 * in a column. */
INLINE void pool_dx_row(const int average, const int add, const struct window *w, const struct pool_dx *row,
                        int64_t area, float *taps)
{
    const int64_t c = w->c, kernel = w->kernel[AXIS_W], apart = w->stride[AXIS_W] * c;
    const int plain = average || pool_numbers(row->y, w->out[AXIS_W] * c);
    const float scale = 1.0f / (float)(area * kernel);
    int64_t lo, hi;
    pool_inside(w, &lo, &hi);
    for (int64_t o = lo ? 0 : hi; o < w->out[AXIS_W]; o = o + 1 == lo ? hi : o + 1) {
        const struct pool_part part = pool_part_of(w, AXIS_W, o);
        const struct pool_dx s = pool_dx_at(row, part.first * c, o * c);
        pool_dx_windows(average, add, 0, s, 1, 0, c, s.d, s.h, part.count, s.skip, 1.0f / (float)(area * part.count));
    }
    const int64_t copied = pool_copied(w, area * kernel), some = copied ? copied : hi - lo;
    for (int64_t o = lo; o < hi; o += some) {
        const struct pool_dx s = pool_dx_at(row, o * apart - w->before[AXIS_W] * c, o * c);
        const int64_t n = hi - o < some ? hi - o : some;
        if (copied) pool_dx_copied(average, add, &s, n, apart, c, kernel, scale, taps);
        else pool_dx_usual(average, add, plain, s, n, apart, c, kernel, scale);
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
INLINE void pool_dx_slab(const int average, const int add, const struct window *w, float *dx, const float *x,
                         const float *y, const float *g, int64_t from, int64_t to, float *taps)
{
    const struct pool_steps s = pool_steps_of(w, w->c);
    const int64_t stride = w->stride[AXIS_D], reach = from + w->before[AXIS_D] - w->kernel[AXIS_D] + stride;
    const int64_t high = w->out[AXIS_H], row = w->out[AXIS_W] * w->c, covered = pool_covered(w, AXIS_W) * w->c;
    int64_t done = from; /* all before is written, or cleared to add to */
    for (int64_t o = reach > 0 ? reach / stride : 0; o < w->out[AXIS_D]; o++) {
        const struct pool_part d = pool_part_of(w, AXIS_D, o);
        if (d.first >= to) break;
        const int64_t end = d.first + d.count < to ? d.first + d.count : to;
        const int64_t whole = add ? end : d.first; /* cleared as a whole up to here; then where there is no window */
        if (whole > done) {
            pool_clear(dx + done * s.d, (whole - done) * s.d);
            done = whole;
        }
        for (int64_t a = done; a < end; a++)
            for (int64_t b = 0; b < w->size[AXIS_H]; b++) {
                const int64_t start = b < pool_covered(w, AXIS_H) ? covered : 0;
                pool_clear(dx + a * s.d + b * s.h + start, s.h - start);
            }
        done = end;
        for (int64_t p = 0; p < high; p++) {
            const struct pool_part h = pool_part_of(w, AXIS_H, p);
            const int64_t at = d.first * s.d + h.first * s.h, out = (o * high + p) * row;
            const struct pool_dx windows = {dx + at, x + at, y + out, g + out, s, s, end - d.first, h.count,
                                            from > d.first ? from - d.first : 0};
            pool_dx_row(average, add, w, &windows, d.count * h.count, taps);
        }
    }
    if (to > done) pool_clear(dx + done * s.d, (to - done) * s.d);
}

/* dx (N,D,H,W,C) of g (N,OD,OH,OW,C), and for the largest of x and y shaped like them */
INLINE void pool_dx(const int average, const struct step *step, const struct lane *lane)
{
    const struct tensor *g = &step->in[0], *dx = &step->out[0];
    const struct window w = pool_window(dx, g, &step->attr);
    const int64_t depth = w.size[AXIS_D], stride = w.stride[AXIS_D], slice = pool_steps_of(&w, w.c).d, row = depth * slice;
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
        if (add) pool_dx_slab(average, 1, &w, dx_n, x_n, y_n, g_n, from, to, lane->scratch);
        else pool_dx_slab(average, 0, &w, dx_n, x_n, y_n, g_n, from, to, lane->scratch);
    }
}

static void kernel_max_pool_dx(const struct step *step, const struct lane *lane) { pool_dx(0, step, lane); }
static void kernel_average_pool_dx(const struct step *step, const struct lane *lane) { pool_dx(1, step, lane); }
