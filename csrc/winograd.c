/* Convolution of stride 1 by Winograd's algorithm; fastnn/ops/winograd.py has the mathematics. N batch, D H W space,
 * C channels, F filters, K = KD * C summed channels, P points (36, or 6 where only W is transformed), T tiles.
 *
 * A lane takes a block of T tiles: transforms their inputs to V (P, T, K), multiplies by the transformed weights U
 * (P, panels, K, 32) to M (P, T, some F), and transforms M to outputs, to which bias, activation or slope are applied
 * before they are stored once. V and M stay in the lane's scratch memory and, mostly, its second-level cache. An output
 * depends on its own tile alone: its bits are the same in whatever block the tile falls. */
#include "window.h"

enum {
    POINTS = 6,        /* along each transformed axis */
    PANEL = 32,        /* filters side by side in U */
    K_PART = 512,      /* longest chain of a product */
    TILES_MAX = 112,   /* of a block */
    TILES_GRADIENT = 84, /* of a block of the weights' gradient, at least: dU is read and written once a block */
    GRADIENT_FLOATS = 5 << 20, /* as in fastnn/ops/winograd.py: most of dU at a time, unless V is larger */
    FILTERS = 4 * PANEL, /* most filters of a block */
    BLOCK_FLOATS = 320 << 10, /* V and M are not larger than this ... */
    U_NEAR = 192 << 10, /* floats: more will not stay in the second-level cache beside V and M */
    LARGE_K = 192,     /* ... unless K is larger than this: then U is what has to be read again and again */
};

#define ROOT_HALF 0.70710678f
#define ROOT_2 1.41421356f

struct winograd {
    struct window w;   /* its out and kernel are those of the convolution */
    int64_t k, f, ldy; /* ldy: from one pixel of y to the next */
    int64_t tile[MAX_SPACE];  /* outputs of a tile along each axis */
    int64_t count[MAX_SPACE]; /* tiles along each axis */
    int64_t tiles;     /* of all images */
    int flat;          /* only W is transformed */
    int pool;          /* of each 2 x 2 outputs (flat: 2) only the largest is stored */
    int points;
};

/* x (N, ..., C), y (N, ..., F): shapes only */
static struct winograd winograd_of(const struct tensor *x, const struct tensor *y, const struct attributes *attr)
{
    struct winograd g = {.w = window_of(x, y, attr)};
    g.k = g.w.kernel[AXIS_D] * g.w.c;
    g.f = columns_of(y);
    g.ldy = pitch_of(y);
    g.flat = g.w.kernel[AXIS_H] == 1;
    g.points = g.flat ? POINTS : POINTS * POINTS;
    g.tiles = g.w.n;
    for (int a = 0; a < MAX_SPACE; a++) {
        g.tile[a] = a == AXIS_D || (a == AXIS_H && g.flat) ? 1 : POINTS + 1 - g.w.kernel[a];
        g.count[a] = (g.w.out[a] + g.tile[a] - 1) / g.tile[a];
        g.tiles *= g.count[a];
    }
    return g;
}

/* Image, and first output along each axis, of tile t. */
static void tile_place(const struct winograd *g, int64_t t, int64_t *n, int64_t *at)
{
    for (int a = AXIS_W; a >= AXIS_D; a--) {
        at[a] = t % g->count[a] * g->tile[a];
        t /= g->count[a];
    }
    *n = t;
}

/* ---- transforms of six vectors ---- */

/* t = B' d */
INLINE void transform_input(vf *t, const vf *d)
{
    const vf even = v_fma(v_set(-2.0f), d[2], d[4]), odd = v_fma(v_set(-2.0f), d[1], d[3]);
    const vf even_2 = v_fma(v_set(-0.5f), d[2], d[4]), odd_2 = v_fma(v_set(-0.5f), d[1], d[3]);
    t[0] = v_fma(v_set(-2.5f), d[2], d[0]) + d[4];
    t[1] = v_fma(v_set(ROOT_HALF), odd, even);
    t[2] = v_fma(v_set(-ROOT_HALF), odd, even);
    t[3] = v_fma(v_set(ROOT_2), odd_2, even_2);
    t[4] = v_fma(v_set(-ROOT_2), odd_2, even_2);
    t[5] = v_fma(v_set(-2.5f), d[3], d[1]) + d[5];
}

/* y (m) = A' t */
INLINE void transform_output(const int m, vf *y, const vf *t)
{
    const vf sum = t[1] + t[2], difference = t[1] - t[2], sum_2 = t[3] + t[4], difference_2 = t[3] - t[4];
    y[0] = t[0] + sum + sum_2;
    y[1] = v_fma(v_set(ROOT_2), difference_2, v_set(ROOT_HALF) * difference);
    if (m == 2) {
        y[1] = y[1] + t[5];
    } else {
        y[2] = v_fma(v_set(0.5f), sum, v_set(2.0f) * sum_2);
        y[3] = v_fma(v_set(2.0f * ROOT_2), difference_2, v_fma(v_set(0.5f * ROOT_HALF), difference, t[5]));
    }
}

/* t = A y (m) */
INLINE void transform_gradient(const int m, vf *t, const vf *y)
{
    vf even = y[0], even_2 = y[0], odd = v_set(ROOT_HALF) * y[1], odd_2 = v_set(ROOT_2) * y[1];
    if (m == 4) {
        even = v_fma(v_set(0.5f), y[2], even);
        even_2 = v_fma(v_set(2.0f), y[2], even_2);
        odd = v_fma(v_set(0.5f * ROOT_HALF), y[3], odd);
        odd_2 = v_fma(v_set(2.0f * ROOT_2), y[3], odd_2);
    }
    t[0] = y[0];
    t[1] = even + odd;
    t[2] = even - odd;
    t[3] = even_2 + odd_2;
    t[4] = even_2 - odd_2;
    t[5] = y[m - 1];
}

/* ---- tiles ---- */

/* Whole vectors, or the first n lanes of one: `whole` is a constant. */
INLINE vf load_lanes(const int whole, const float *p, int64_t n) { return whole ? v_load(p) : v_load_n(p, n); }
INLINE void store_lanes(const int whole, float *p, vf v, int64_t n)
{
    if (whole) v_store(p, v);
    else v_store_n(p, v, n);
}

/* One vector of channels (n of them) of one tile to V: row i, column j at from[i * 6 + j] + c, V's points `apart` */
INLINE void input_vector(const int flat, const int whole, float *v, int64_t apart, const float *const *from, int64_t c,
                         int64_t n)
{
    vf d[POINTS], t[POINTS], half[POINTS][POINTS];
    if (flat) {
        UNROLL for (int j = 0; j < POINTS; j++) d[j] = load_lanes(whole, from[j] + c, n);
        transform_input(t, d);
        UNROLL for (int j = 0; j < POINTS; j++) v_store(v + j * apart + c, t[j]);
        return;
    }
    UNROLL for (int j = 0; j < POINTS; j++) {
        UNROLL for (int h = 0; h < POINTS; h++) d[h] = load_lanes(whole, from[h * POINTS + j] + c, n);
        transform_input(t, d);
        UNROLL for (int h = 0; h < POINTS; h++) half[h][j] = t[h];
    }
    UNROLL for (int h = 0; h < POINTS; h++) {
        transform_input(t, half[h]);
        UNROLL for (int j = 0; j < POINTS; j++) v_store(v + (h * POINTS + j) * apart + c, t[j]);
    }
}

/* Channels c0 .. c1 - 1, v being that of channel 0. Rows of V have room for whole vectors. */
INLINE void input_tile(const int flat, float *v, int64_t apart, const float *const *from, int64_t c0, int64_t c1)
{
    int64_t i = c0;
    for (; i + VL <= c1; i += VL) input_vector(flat, 1, v, apart, from, i, VL);
    if (i < c1) input_vector(flat, 0, v, apart, from, i, c1 - i);
}

static void input_tile_flat(float *v, int64_t apart, const float *const *from, int64_t c0, int64_t c1)
{
    input_tile(1, v, apart, from, c0, c1);
}
static void input_tile_square(float *v, int64_t apart, const float *const *from, int64_t c0, int64_t c1)
{
    input_tile(0, v, apart, from, c0, c1);
}

/* The inputs of tile (n, at) at depth kd, zeros outside of the image. */
static void tile_inputs(const struct winograd *g, const float **from, const float *x, const float *zeros, int64_t n,
                        const int64_t *at, int64_t kd)
{
    const struct window *w = &g->w;
    const int64_t d = at[AXIS_D] + kd - w->before[AXIS_D], top = at[AXIS_H] - w->before[AXIS_H];
    const int64_t left = at[AXIS_W] - w->before[AXIS_W];
    const int inside_d = d >= 0 && d < w->size[AXIS_D];
    for (int i = 0; i < (g->flat ? 1 : POINTS); i++) {
        const int64_t h = top + i;
        const int inside = inside_d && h >= 0 && h < w->size[AXIS_H];
        const float *row = x + (((n * w->size[AXIS_D] + d) * w->size[AXIS_H] + h) * w->size[AXIS_W] + left) * w->c;
        for (int j = 0; j < POINTS; j++)
            from[i * POINTS + j] = inside && left + j >= 0 && left + j < w->size[AXIS_W] ? row + j * w->c : zeros;
    }
}

/* How V lies: points `apart`, tiles `tile`, depths `depth`, and blocks of `channels` channels `block`. */
struct layout {
    int64_t apart, tile, depth, channels, block;
};

/* V of tiles t0 .. t1 */
static void transform_inputs(const struct winograd *g, float *v, const struct layout *l, const float *x,
                             const float *zeros, int64_t t0, int64_t t1)
{
    const int64_t c = g->w.c;
    for (int64_t t = t0; t < t1; t++) {
        int64_t n, at[MAX_SPACE];
        const float *from[POINTS * POINTS];
        tile_place(g, t, &n, at);
        for (int64_t kd = 0; kd < g->w.kernel[AXIS_D]; kd++) {
            tile_inputs(g, from, x, zeros, n, at, kd);
            for (int64_t c0 = 0; c0 < c; c0 += l->channels) {
                float *to = v + (t - t0) * l->tile + kd * l->depth + c0 / l->channels * l->block - c0;
                const int64_t c1 = c - c0 < l->channels ? c : c0 + l->channels;
                if (g->flat) input_tile_flat(to, l->apart, from, c0, c1);
                else input_tile_square(to, l->apart, from, c0, c1);
            }
        }
    }
}

/* One tile's outputs on their way out: y and gate point to the first one, rows of pixels lie `pitch` apart, pixels `pixel`;
 * high x wide of them are there. */
struct outlet {
    float *y;
    const float *bias, *gate;
    int64_t pitch, pixel, high, wide;
    int relu;
};

/* half (m; POINTS) of one vector of filters, from i on, of m (P, ., filters), points `apart`: flat m itself, else A' m */
INLINE void output_columns(const int flat, const int m, vf (*half)[POINTS], const float *from, int64_t apart, int64_t i)
{
    vf t[POINTS], column[4];
    UNROLL for (int j = 0; j < POINTS; j++) {
        if (flat) {
            half[0][j] = v_load(from + j * apart + i);
            continue;
        }
        UNROLL for (int h = 0; h < POINTS; h++) t[h] = v_load(from + (h * POINTS + j) * apart + i);
        transform_output(m, column, t);
        UNROLL for (int h = 0; h < m; h++) half[h][j] = column[h];
    }
}

/* One vector of filters (n of them from i on) from m (P, ., filters), points `apart`. The constant `whole`: the tile and the
 * vector are. */
INLINE void output_vector(const int flat, const int m, const int whole, const struct outlet *o, const float *from,
                          int64_t apart, int64_t i, int64_t n)
{
    vf half[4][POINTS];
    output_columns(flat, m, half, from, apart, i);
    const vf shift = o->bias ? load_lanes(whole, o->bias + i, n) : v_zero();
    for (int h = 0; h < (flat ? 1 : m); h++) {
        vf row[4];
        if (!whole && h >= o->high) break;
        transform_output(m, row, half[h]);
        UNROLL for (int j = 0; j < m; j++) {
            const int64_t at = h * o->pitch + j * o->pixel + i;
            if (!whole && j >= o->wide) break;
            vf value = row[j] + shift;
            if (o->relu) value = v_max(v_zero(), value);
            if (o->gate) value = v_select(v_less(v_zero(), load_lanes(whole, o->gate + at, n)), value, v_zero());
            store_lanes(whole, o->y + at, value, n);
        }
    }
}

/* The same, but the largest of 2 x 2 outputs (flat: 2) is stored. */
INLINE void pooled_vector(const int flat, const int m, const int whole, const struct outlet *o, const float *from,
                          int64_t apart, int64_t i, int64_t n)
{
    const int high = flat ? 1 : 2;
    vf half[4][POINTS], row[2][4];
    output_columns(flat, m, half, from, apart, i);
    const vf shift = o->bias ? load_lanes(whole, o->bias + i, n) : v_zero();
    for (int h = 0; h < (flat ? 1 : m); h += 2) {
        if (!whole && h + high > o->high) break;
        UNROLL for (int r = 0; r < high; r++) {
            transform_output(m, row[r], half[h + r]);
            UNROLL for (int j = 0; j < m; j++) {
                row[r][j] = row[r][j] + shift;
                if (o->relu) row[r][j] = v_max(v_zero(), row[r][j]);
            }
        }
        UNROLL for (int j = 0; j < m; j += 2) {
            if (!whole && j + 2 > o->wide) break;
            vf most = v_top(row[0][j], row[0][j + 1]);
            if (!flat) most = v_top(most, v_top(row[1][j], row[1][j + 1]));
            store_lanes(whole, o->y + h / 2 * o->pitch + j / 2 * o->pixel + i, most, n);
        }
    }
}

INLINE void output_tile(const int flat, const int m, const int pool, const struct outlet *o, const float *from,
                        int64_t apart, int64_t filters)
{
    int64_t i = 0;
    if ((flat || o->high >= m) && o->wide >= m)
        for (; i + VL <= filters; i += VL)
            pool ? pooled_vector(flat, m, 1, o, from, apart, i, VL) : output_vector(flat, m, 1, o, from, apart, i, VL);
    for (; i < filters; i += VL)
        pool ? pooled_vector(flat, m, 0, o, from, apart, i, filters - i)
             : output_vector(flat, m, 0, o, from, apart, i, filters - i);
}

typedef void output_tile_kernel(const struct outlet *o, const float *from, int64_t apart, int64_t filters);
#define OUTPUT_TILE(name, flat, m, pool)                                                                             \
    static void output_tile_##name(const struct outlet *o, const float *from, int64_t apart, int64_t filters)      \
    {                                                                                                                \
        output_tile(flat, m, pool, o, from, apart, filters);                                                         \
    }
OUTPUT_TILE(square_4, 0, 4, 0)
OUTPUT_TILE(square_2, 0, 2, 0)
OUTPUT_TILE(flat_4, 1, 4, 0)
OUTPUT_TILE(flat_2, 1, 2, 0)
OUTPUT_TILE(square_4_pool, 0, 4, 1)
OUTPUT_TILE(square_2_pool, 0, 2, 1)
OUTPUT_TILE(flat_4_pool, 1, 4, 1)
OUTPUT_TILE(flat_2_pool, 1, 2, 1)
#undef OUTPUT_TILE

static output_tile_kernel *const output_tiles[2][2][2] = { /* pool, flat, of two outputs */
    {{output_tile_square_4, output_tile_square_2}, {output_tile_flat_4, output_tile_flat_2}},
    {{output_tile_square_4_pool, output_tile_square_2_pool}, {output_tile_flat_4_pool, output_tile_flat_2_pool}},
};

/* Outputs of tiles t0 .. t1, filters f0 .. f0 + filters - 1, from m (P, T, ld) */
static void transform_outputs(const struct winograd *g, float *y, const struct finish *end, const float *m, int64_t ld,
                              int64_t apart, int64_t t0, int64_t t1, int64_t f0, int64_t filters)
{
    const struct window *w = &g->w;
    const int relu = end->activation == ACT_relu;
    output_tile_kernel *const run = output_tiles[g->pool][g->flat][g->tile[AXIS_W] == 2];
    const int64_t by_w = g->pool ? 2 : 1, by_h = g->pool && !g->flat ? 2 : 1; /* outputs of the sum for one of y */
    const int64_t pitch = w->out[AXIS_W] / by_w * g->ldy;
    for (int64_t t = t0; t < t1; t++) {
        int64_t n, at[MAX_SPACE];
        tile_place(g, t, &n, at);
        const int64_t first = ((n * w->out[AXIS_D] + at[AXIS_D]) * (w->out[AXIS_H] / by_h) + at[AXIS_H] / by_h) * pitch
                              + at[AXIS_W] / by_w * g->ldy + f0;
        const struct outlet o = {
            .y = y + first,
            .bias = end->bias ? end->bias + f0 : NULL,
            .gate = relu && end->dx_of ? end->dx_of + first : NULL,
            .pitch = pitch,
            .pixel = g->ldy,
            .high = w->out[AXIS_H] - at[AXIS_H],
            .wide = w->out[AXIS_W] - at[AXIS_W],
            .relu = relu && !end->dx_of,
        };
        run(&o, m + (t - t0) * ld, apart, filters);
        if (relu || !end->activation) continue;
        for (int64_t h = 0; h < o.high && h < g->tile[AXIS_H]; h++)
            for (int64_t j = 0; j < o.wide && j < g->tile[AXIS_W]; j++) {
                const int64_t at_pixel = first + h * pitch + j * g->ldy;
                if (end->dx_of) activate_dx_rows(end->activation, y + at_pixel, end->dx_of + at_pixel, filters);
                else activate_rows(end->activation, y + at_pixel, filters);
            }
    }
}

/* ---- the products ---- */

/* c (rows, 32 or less of a panel) [+]= a (rows, k) b (k, 32): rows side by side along k (ALONG_K) or not (ALONG_ROWS).
 * Brings `lines` cache lines from `fetch` on closer, as far as there are steps to do it in. */
static void panel_product(int kind, float *c, int64_t ldc, const float *a, int64_t stride, const float *b, int64_t ldb,
                          int64_t rows, int64_t columns, int64_t k, int first, const float *fetch, int64_t lines)
{
    const int64_t tall = (rows + MR - 1) / MR;
    for (int64_t number = 0, i = 0, high; number < tall; number++, i += high) {
        high = rows / tall + (number < rows % tall);
        for (int64_t column = 0; column < columns; column += NR) {
            const int64_t left = columns - column < NR ? columns - column : NR;
            const struct tile t = {
                .k = k,
                .a = kind == ALONG_ROWS ? a + i : a + i * stride,
                .stride = stride,
                .b = b + column,
                .ldb = ldb,
                .c = c + i * ldc + column,
                .ldc = ldc,
                .last = VL,
                .first = first,
                .far = kind == ALONG_ROWS,
                .fetch = lines > 0 ? fetch : NULL,
            };
            tiles[kind][(left + VL - 1) / VL - 1][high - 1](&t);
            fetch += k * CACHE_LINE;
            lines -= k;
        }
    }
}

/* Blocks of tiles and filters, one after the other, dealt out to the lanes. */
static void winograd_convolve(const struct winograd *g, float *y, const struct finish *end, const float *x,
                              const float *u, const struct lane *lane)
{
    const int64_t panels = (g->f + PANEL - 1) / PANEL, c_floats = (g->w.c + VL - 1) / VL * VL;
    const int64_t ld_v = (g->k + VL - 1) / VL * VL;
    int64_t filters = panels * PANEL < FILTERS ? panels * PANEL : FILTERS;
    int64_t most = BLOCK_FLOATS / (g->points * (ld_v + filters));
    if (g->k > LARGE_K || most > TILES_MAX) most = TILES_MAX;
    if (g->flat && most > 0) most = g->k > LARGE_K ? 4 * TILES_MAX : BLOCK_FLOATS / (g->points * (ld_v + filters));
    const int64_t room = ((int64_t)(TEAM_SCRATCH / sizeof(float)) - c_floats) / g->points - 2 * VL;
    if (most * (ld_v + filters) > room) most = room / (ld_v + filters);
    if (most < 1) most = 1;
    if (most > MR) most -= most % MR;

    int64_t blocks = (g->tiles + most - 1) / most, groups = 1;
    blocks = (blocks + lane->count - 1) / lane->count * lane->count; /* the same for each lane, if it can be */
    if (blocks * MR > g->tiles) blocks = (g->tiles + MR - 1) / MR < lane->count ? (g->tiles + MR - 1) / MR : (g->tiles + most - 1) / most;
    while (blocks * groups < lane->count && groups * 2 <= panels) groups *= 2;

    const int far = g->points * panels * g->k * PANEL > U_NEAR; /* U is: its next panel is fetched meanwhile */
    float *zeros = lane->scratch, *v = zeros + c_floats;
    for (int64_t i = 0; i < c_floats; i++) zeros[i] = 0.0f;
    for (int64_t task = lane->id; task < blocks * groups; task += lane->count) {
        const int64_t t0 = task / groups * g->tiles / blocks, t1 = (task / groups + 1) * g->tiles / blocks;
        const int64_t p0 = task % groups * panels / groups, p1 = (task % groups + 1) * panels / groups, t = t1 - t0;
        const int64_t apart_v = t * ld_v + VL;
        if (t <= 0) continue;
        const struct layout rows = {.apart = apart_v, .tile = ld_v, .depth = g->w.c, .channels = g->w.c};
        transform_inputs(g, v, &rows, x, zeros, t0, t1);
        float *m = v + g->points * apart_v;
        for (int64_t p = p0; p < p1; p += filters / PANEL) {
            const int64_t panels_here = p1 - p < filters / PANEL ? p1 - p : filters / PANEL;
            const int64_t f0 = p * PANEL, f = g->f - f0 < panels_here * PANEL ? g->f - f0 : panels_here * PANEL;
            const int64_t ld_m = panels_here * PANEL, apart_m = t * ld_m + VL;
            for (int64_t point = 0; point < g->points; point++) {
                for (int64_t panel = 0; panel < panels_here; panel++) {
                    const int64_t columns = f - panel * PANEL < PANEL ? f - panel * PANEL : PANEL;
                    const float *b = u + (point * panels + p + panel) * g->k * PANEL;
                    const float *next = u + ((point + 1 < g->points ? point + 1 : 0) * panels + p) * g->k * PANEL;
                    const int64_t parts = (g->k + K_PART - 1) / K_PART;
                    for (int64_t part = 0; part < parts; part++) {
                        const int64_t k0 = part * g->k / parts, k = (part + 1) * g->k / parts - k0;
                        panel_product(ALONG_K, m + point * apart_m + panel * PANEL, ld_m,
                                      v + point * apart_v + k0, ld_v,
                                      b + k0 * PANEL, PANEL, t, columns, k, part == 0,
                                      panel + 1 < panels_here ? b + g->k * PANEL : next,
                                      parts == 1 && far ? g->k * PANEL / CACHE_LINE : 0);
                    }
                }
            }
            transform_outputs(g, y, end, m, ld_m, apart_m, t0, t1, f0, f);
        }
    }
}

/* ---- the ops ---- */

/* y (N, ..., F) = activation(x (N, ..., C) * w + b), u made of w */
static void kernel_winograd_conv(const struct step *s, const struct lane *lane)
{
    const struct winograd g = winograd_of(&s->in[0], &s->out[0], &s->attr);
    const struct finish end = {.bias = s->inputs > 2 ? s->in[2].data : NULL, .activation = s->attr.activation};
    winograd_convolve(&g, s->out[0].data, &end, s->in[0].data, s->in[1].data, lane);
}

/* The same, y the largest of each 2 x 2 of them, or 2 where only W is transformed; linear or relu */
static void kernel_winograd_conv_pool(const struct step *s, const struct lane *lane)
{
    struct tensor all = s->out[0];
    const struct tensor *x = &s->in[0];
    const int space = x->rank - 2;
    for (int a = 0; a < space; a++) {
        const int axis = MAX_SPACE - space + a;
        all.size[1 + a] = x->size[1 + a] + s->attr.before[axis] + s->attr.after[axis] - s->attr.kernel[axis] + 1;
    }
    struct winograd g = winograd_of(x, &all, &s->attr);
    g.pool = 1;
    const struct finish end = {.bias = s->inputs > 2 ? s->in[2].data : NULL, .activation = s->attr.activation};
    winograd_convolve(&g, s->out[0].data, &end, x->data, s->in[1].data, lane);
}

/* dx (N, ..., C) = (g * flipped w) * slope of the activation whose output is y */
static void kernel_winograd_conv_dx(const struct step *s, const struct lane *lane)
{
    const struct winograd g = winograd_of(&s->in[0], &s->out[0], &s->attr);
    const struct finish end = {.activation = s->attr.activation, .dx_of = s->in[2].data};
    winograd_convolve(&g, s->out[0].data, &end, s->in[0].data, s->in[1].data, lane);
}

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

/* Rows that are worked on together: of dU, whose points lie far apart, often by a power of two, so that a block of them is
 * put together in the scratch memory; and of w, where its rows become columns. */
enum { BLOCK_K = 16, TURNED_K = 64 };

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

/* u (P, panels, KD * C, 32) = G w G'; with flip of w turned round, C and F exchanged */
static void kernel_winograd_weights(const struct step *s, const struct lane *lane)
{
    const struct tensor *w = &s->in[0];
    const int flip = s->attr.flip;
    int64_t kernel[MAX_SPACE];
    kernel_sizes(kernel, w);
    const int64_t depth = kernel[AXIS_D], taps_h = kernel[AXIS_H], taps_w = kernel[AXIS_W], taps = taps_h * taps_w;
    const int64_t c = w->size[w->rank - 2], f = w->size[w->rank - 1]; /* as they lie in w */
    const int64_t k = flip ? f : c, columns = flip ? c : f, panels = (columns + PANEL - 1) / PANEL;
    const int64_t blocks = (k + TURNED_K - 1) / TURNED_K;
    const int64_t apart = panels * depth * k * PANEL, from_tap = c * f;
    const float *from = w->data;
    float *u = s->out[0].data, *turned = lane->scratch;
    float matrix[POINTS][5];
    kernel_matrix(matrix, (int)taps_w);
    for (int64_t task = lane->id; task < depth * blocks * panels; task += lane->count) {
        const int64_t panel = task % panels, d = task / panels / blocks, k0 = task / panels % blocks * TURNED_K;
        const int64_t rows = k - k0 < TURNED_K ? k - k0 : TURNED_K;
        if (task + lane->count < depth * blocks * panels) { /* the lines of the next task: they lie far apart */
            const int64_t next = task + lane->count, nd = next / panels / blocks;
            const int64_t row = next / panels % blocks * TURNED_K, column = next % panels * PANEL;
            for (int64_t tap = 0; tap < taps; tap++) {
                const float *at = from + ((flip ? depth - 1 - nd : nd) * taps + tap) * from_tap;
                for (int64_t i = 0; i < (flip ? PANEL : TURNED_K); i++) {
                    if (flip) {
                        if (column + i < c) prefetch(at + (column + i) * f + row);
                    } else if (row + i < c) {
                        prefetch(at + (row + i) * f + column);
                        prefetch(at + (row + i) * f + column + PANEL / 2);
                    }
                }
            }
        }
        for (int64_t i = 0; i < PANEL; i += VL) {
            const int64_t column = panel * PANEL + i, left = columns - column;
            const float *at = flip ? from + ((depth - 1 - d) * taps + taps - 1) * from_tap + column * f + k0
                                   : from + d * taps * from_tap + k0 * f + column;
            if (flip) turn_block(turned, at, taps, from_tap, f, left > 0 ? left : 0, rows);
            for (int64_t row = 0; row < rows; row++) {
                vf g[25];
                for (int64_t tap = 0; tap < taps; tap++) {
                    if (flip) g[tap] = v_load(turned + (tap * TURNED_K + row) * VL);
                    else g[tap] = left > 0 ? v_load_n(at + tap * from_tap + row * f, left) : v_zero();
                }
                weight_vectors(taps_h, taps_w, u + ((panel * depth + d) * k + k0 + row) * PANEL + i, apart, g, matrix);
            }
        }
    }
}

/* One vector of filters (n of them from i on) of one tile to dM, points `apart`; g points to the tile's first gradient. */
INLINE void gradient_vector(const int flat, const int m, const int whole, float *to, int64_t apart, const float *g,
                            int64_t pitch, int64_t f, int64_t high, int64_t wide, int64_t i, int64_t n)
{
    vf y[4], t[POINTS], half[POINTS][4];
    UNROLL for (int j = 0; j < m; j++) {
        if (flat) {
            half[0][j] = whole || j < wide ? load_lanes(whole, g + j * f + i, n) : v_zero();
            continue;
        }
        UNROLL for (int h = 0; h < m; h++)
            y[h] = whole || (h < high && j < wide) ? load_lanes(whole, g + h * pitch + j * f + i, n) : v_zero();
        transform_gradient(m, t, y);
        UNROLL for (int h = 0; h < POINTS; h++) half[h][j] = t[h];
    }
    for (int h = 0; h < (flat ? 1 : POINTS); h++) {
        transform_gradient(m, t, half[h]);
        UNROLL for (int j = 0; j < POINTS; j++) v_store(to + (h * POINTS + j) * apart + i, t[j]);
    }
}

INLINE void gradient_tile(const int flat, const int m, float *to, int64_t apart, const float *g, int64_t pitch,
                          int64_t f, int64_t high, int64_t wide, int64_t filters)
{
    int64_t i = 0;
    if ((flat || high >= m) && wide >= m)
        for (; i + VL <= filters; i += VL) gradient_vector(flat, m, 1, to, apart, g, pitch, f, high, wide, i, VL);
    for (; i < filters; i += VL) gradient_vector(flat, m, 0, to, apart, g, pitch, f, high, wide, i, filters - i);
}

#define GRADIENT_TILE(name, flat, m)                                                                          \
    static void gradient_tile_##name(float *to, int64_t apart, const float *g, int64_t pitch, int64_t f,      \
                                     int64_t high, int64_t wide, int64_t filters)                             \
    {                                                                                                         \
        gradient_tile(flat, m, to, apart, g, pitch, f, high, wide, filters);                                  \
    }
GRADIENT_TILE(flat_4, 1, 4)
GRADIENT_TILE(flat_2, 1, 2)
GRADIENT_TILE(square_4, 0, 4)
GRADIENT_TILE(square_2, 0, 2)
#undef GRADIENT_TILE

typedef void gradient_tile_kernel(float *to, int64_t apart, const float *g, int64_t pitch, int64_t f, int64_t high,
                                  int64_t wide, int64_t filters);
static gradient_tile_kernel *const gradient_tiles[2][2] = {{gradient_tile_square_4, gradient_tile_square_2},
                                                           {gradient_tile_flat_4, gradient_tile_flat_2}};

/* dM (P, T, ld) = A dY A' of tiles t0 .. t1, filters f0 .. f0 + filters - 1 */
static void transform_gradients(const struct winograd *g, float *to, int64_t ld, int64_t apart, const float *dy,
                                int64_t t0, int64_t t1, int64_t f0, int64_t filters)
{
    const struct window *w = &g->w;
    gradient_tile_kernel *const run = gradient_tiles[g->flat][g->tile[AXIS_W] == 2];
    const int64_t pitch = w->out[AXIS_W] * g->f;
    for (int64_t t = t0; t < t1; t++) {
        int64_t n, at[MAX_SPACE];
        tile_place(g, t, &n, at);
        const float *from = dy + ((n * w->out[AXIS_D] + at[AXIS_D]) * w->out[AXIS_H] + at[AXIS_H]) * pitch
                            + at[AXIS_W] * g->f + f0;
        run(to + (t - t0) * ld, apart, from, pitch, g->f, w->out[AXIS_H] - at[AXIS_H], w->out[AXIS_W] - at[AXIS_W], filters);
    }
}

/* dw (at to_tap * element) = G' dU G for one vector, dU's points BLOCK_K * PANEL apart; the first n lanes of it */
INLINE void weight_gradient(const int high, const int taps, float *dw, int64_t to_tap, const float *du,
                            float (*matrix)[5], int64_t n)
{
    vf half[5][POINTS];
    UNROLL for (int j = 0; j < POINTS; j++) {
        if (high == 1) {
            half[0][j] = v_load(du + j * (BLOCK_K * PANEL));
            continue;
        }
        vf column[POINTS];
        UNROLL for (int i = 0; i < POINTS; i++) column[i] = v_load(du + (i * POINTS + j) * (BLOCK_K * PANEL));
        UNROLL for (int h = 0; h < high; h++) {
            half[h][j] = v_set(matrix[0][h]) * column[0];
            UNROLL for (int i = 1; i < POINTS; i++) half[h][j] = v_fma(v_set(matrix[i][h]), column[i], half[h][j]);
        }
    }
    for (int h = 0; h < high; h++)
        for (int k = 0; k < taps; k++) {
            vf sum = v_set(matrix[0][k]) * half[h][0];
            UNROLL for (int j = 1; j < POINTS; j++) sum = v_fma(v_set(matrix[j][k]), half[h][j], sum);
            v_store_n(dw + (h * taps + k) * to_tap, sum, n);
        }
}

/* dw (KD, KH, KW, C, F), its panels q0 .. q1 - 1, = G' dU G, dU (parts; P, these panels, K, 32) summed over the parts in
 * order */
static void winograd_gradient_end(const struct winograd *g, float *dw, const float *du, int64_t parts, int64_t q0,
                                  int64_t q1, const struct lane *lane)
{
    const int64_t panels = q1 - q0, apart = panels * g->k * PANEL, c = g->w.c;
    const int64_t taps_w = g->w.kernel[AXIS_W], taps_h = g->w.kernel[AXIS_H], blocks = (c + BLOCK_K - 1) / BLOCK_K;
    float matrix[POINTS][5], *block = lane->scratch;
    kernel_matrix(matrix, (int)taps_w);
    for (int64_t task = lane->id; task < g->w.kernel[AXIS_D] * blocks * panels; task += lane->count) {
        const int64_t panel = task % panels, d = task / panels / blocks, c0 = task / panels % blocks * BLOCK_K;
        const int64_t rows = c - c0 < BLOCK_K ? c - c0 : BLOCK_K;
        for (int64_t point = 0; point < g->points; point++) {
            const float *from = du + point * apart + (panel * g->k + d * c + c0) * PANEL;
            float *to = block + point * BLOCK_K * PANEL;
            for (int64_t i = 0; i < rows * PANEL; i += VL) {
                vf sum = v_load(from + i);
                for (int64_t part = 1; part < parts; part++) sum = sum + v_load(from + part * g->points * apart + i);
                v_store(to + i, sum);
            }
        }
        for (int64_t row = 0; row < rows; row++)
            for (int64_t i = 0; i < PANEL && (q0 + panel) * PANEL + i < g->f; i += VL) {
                const int64_t column = (q0 + panel) * PANEL + i, n = g->f - column;
                float *to = dw + (d * taps_h * taps_w * c + c0 + row) * g->f + column;
                const float *at = block + row * PANEL + i;
                if (taps_h == 1 && taps_w == 3) weight_gradient(1, 3, to, c * g->f, at, matrix, n);
                else if (taps_h == 1) weight_gradient(1, 5, to, c * g->f, at, matrix, n);
                else if (taps_w == 3) weight_gradient(3, 3, to, c * g->f, at, matrix, n);
                else weight_gradient(5, 5, to, c * g->f, at, matrix, n);
            }
    }
}

/* Panels q0 .. q1 - 1 of dU (parts; P, these panels, K, 32): the sum over tiles, in `parts` parts */
static void winograd_gradient_sums(const struct winograd *whole_g, const struct step *s, int64_t parts, int64_t q0,
                                   int64_t q1, const struct lane *lane)
{
    const struct winograd g = *whole_g;
    const float *x = s->in[0].data, *dy = s->in[1].data;
    const int64_t panels = (g.f + PANEL - 1) / PANEL, c_floats = (g.w.c + VL - 1) / VL * VL;
    const int64_t blocks_c = (g.w.c + PANEL - 1) / PANEL, depth = g.w.kernel[AXIS_D], apart_u = (q1 - q0) * g.k * PANEL;
    int64_t groups = 1; /* of filters */
    while (parts * groups < lane->count && groups * 2 <= q1 - q0) groups *= 2;
    const int64_t room = ((int64_t)(TEAM_SCRATCH / sizeof(float)) - c_floats) / g.points - 2 * VL;
    const int64_t whole = (depth * blocks_c + panels) * PANEL; /* not what a group of filters takes: the blocks must not depend on lanes */
    int64_t most = BLOCK_FLOATS / (g.points * whole);
    if (most < TILES_GRADIENT) most = TILES_GRADIENT;
    if (most * whole > room) most = room / whole > 1 ? room / whole : 1;
    float *du = s->workspace, *zeros = lane->scratch, *v = zeros + c_floats;
    for (int64_t i = 0; i < c_floats; i++) zeros[i] = 0.0f;
    for (int64_t task = lane->id; task < parts * groups; task += lane->count) {
        const int64_t part = task / groups, group = task % groups;
        const int64_t first = part * g.tiles / parts, last = (part + 1) * g.tiles / parts;
        const int64_t p0 = q0 + group * (q1 - q0) / groups, p1 = q0 + (group + 1) * (q1 - q0) / groups;
        const int64_t width = (p1 - p0) * PANEL;
        float *to = du + part * g.points * apart_u;
        const int64_t blocks = last > first ? (last - first + most - 1) / most : 1;
        for (int64_t block = 0; block < blocks; block++) {
            const int64_t t0 = first + block * (last - first) / blocks, t1 = first + (block + 1) * (last - first) / blocks;
            const int64_t t = t1 - t0, apart_v = depth * blocks_c * t * PANEL + VL, apart_m = t * width + VL;
            const struct layout panelled = {.apart = apart_v, .tile = PANEL, .depth = blocks_c * t * PANEL, .channels = PANEL,
                                            .block = t * PANEL};
            float *m = v + g.points * apart_v;
            transform_inputs(&g, v, &panelled, x, zeros, t0, t1);
            for (int64_t panel = p0; panel < p1; panel++)
                transform_gradients(&g, m + (panel - p0) * t * PANEL, PANEL, apart_m, dy, t0, t1, panel * PANEL,
                                    g.f - panel * PANEL < PANEL ? g.f - panel * PANEL : PANEL);
            for (int64_t point = 0; point < g.points; point++)
                for (int64_t panel = p0; panel < p1; panel++) {
                    const int64_t columns = g.f - panel * PANEL < PANEL ? g.f - panel * PANEL : PANEL;
                    for (int64_t part_k = 0; part_k < depth * blocks_c; part_k++) { /* both factors are in the first-level cache */
                        const int64_t c0 = part_k % blocks_c * PANEL, rows = g.w.c - c0 < PANEL ? g.w.c - c0 : PANEL;
                        const int64_t row = part_k / blocks_c * g.w.c + c0;
                        panel_product(ALONG_ROWS, to + point * apart_u + ((panel - q0) * g.k + row) * PANEL, PANEL,
                                      v + point * apart_v + part_k * t * PANEL, PANEL,
                                      m + point * apart_m + (panel - p0) * t * PANEL, PANEL, rows, columns, t, block == 0, NULL, 0);
                    }
                }
        }
    }
}

/* dw (*kernel, C, F) from x (N, ..., C) and dy (N, ..., F), some panels at a time, as _dw_workspace in fastnn/ops/winograd.py */
static void kernel_winograd_conv_dw(const struct step *s, const struct lane *lane)
{
    const struct winograd g = winograd_of(&s->in[0], &s->in[1], &s->attr);
    const int64_t panels = (g.f + PANEL - 1) / PANEL;
    int64_t parts = 65536 / (g.k * g.f), band = 1;
    parts = parts < 1 ? 1 : parts > 8 ? 8 : parts;
    const int64_t most = 3 * g.points * g.k * g.tiles > GRADIENT_FLOATS ? 3 * g.points * g.k * g.tiles : GRADIENT_FLOATS;
    while (band < panels && parts * g.points * g.k * PANEL * band * 2 <= most) band *= 2;
    for (int64_t q0 = 0; q0 < panels; q0 += band) {
        const int64_t q1 = q0 + band < panels ? q0 + band : panels;
        if (q0) team_barrier(lane);
        winograd_gradient_sums(&g, s, parts, q0, q1, lane);
        team_barrier(lane);
        winograd_gradient_end(&g, s->out[0].data, s->workspace, parts, q0, q1, lane);
    }
}
