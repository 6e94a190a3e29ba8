/* Convolution of stride 1 by Winograd's algorithm; fastnn/ops/winograd.py has the mathematics. N batch, D H W space,
 * C channels, F filters, K = KD * C summed channels, P points (36, or 6 where only W is transformed), T tiles.
 *
 * A lane takes a block of T tiles: transforms their inputs to V (P, T, K), multiplies by the transformed weights U
 * (P, panels, K, 32) to M (P, T, some F), and transforms M to outputs, to which bias, activation or slope are applied
 * before they are stored once. V and M stay in the lane's scratch memory and, mostly, its second-level cache. An output
 * depends on its own tile alone: its bits are the same in whatever block the tile falls. */
#include "window.h"

enum {
    K_PART = 512,      /* longest chain of a product */
    TILES_MAX = 112,   /* of a block */
    FILTERS = 4 * PANEL, /* most filters of a block */
    BLOCK_FLOATS = 320 << 10, /* V and M are not larger than this ... */
    U_NEAR = 192 << 10, /* floats: more will not stay in the second-level cache beside V and M */
    LARGE_K = 192,     /* ... unless K is larger than this: then U is what has to be read again and again */
};

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

/* The same with weights that are transformed on the way: so many that, transformed, they would lie in no cache, and take
 * longer to be read than to be made. Lanes share out filters rather than tiles where these are few. */
static void winograd_convolve_weights(const struct winograd *g, float *y, const struct finish *end, const float *x,
                                      const struct weights *w, const struct lane *lane)
{
    enum { PANELS = 2, TURNED = 25 * TURNED_K * VL, U_APART = PANELS * TURNED_K * PANEL + VL };
    const int64_t panels = (g->f + PANEL - 1) / PANEL, c_floats = (g->w.c + VL - 1) / VL * VL;
    const int64_t ld_v = (g->k + VL - 1) / VL * VL, channel_blocks = (w->k + TURNED_K - 1) / TURNED_K;
    float *zeros = lane->scratch, *turned = zeros + c_floats, *u = turned + TURNED, *v = u + g->points * U_APART;
    const int64_t room = ((int64_t)(TEAM_SCRATCH / sizeof(float)) - (v - zeros)) / g->points - 2 * VL;
    int64_t most = g->flat ? 4 * TILES_MAX : TILES_MAX;
    if (most * (ld_v + PANELS * PANEL) > room) most = room / (ld_v + PANELS * PANEL);
    if (most < 1) most = 1;
    if (most > MR) most -= most % MR;
    int64_t blocks = (g->tiles + most - 1) / most, groups = 1;
    if (2 * g->tiles >= g->f) blocks = (blocks + lane->count - 1) / lane->count * lane->count;
    while (blocks * groups < lane->count && groups * 2 * PANELS <= panels) groups *= 2;

    for (int64_t i = 0; i < c_floats; i++) zeros[i] = 0.0f;
    for (int64_t task = lane->id; task < blocks * groups; task += lane->count) {
        const int64_t t0 = task / groups * g->tiles / blocks, t1 = (task / groups + 1) * g->tiles / blocks, t = t1 - t0;
        const int64_t p0 = task % groups * panels / groups, p1 = (task % groups + 1) * panels / groups;
        const int64_t apart_v = t * ld_v + VL, ld_m = PANELS * PANEL, apart_m = t * ld_m + VL;
        if (t <= 0) continue;
        const struct layout rows = {.apart = apart_v, .tile = ld_v, .depth = g->w.c, .channels = g->w.c};
        transform_inputs(g, v, &rows, x, zeros, t0, t1);
        float *m = v + g->points * apart_v;
        for (int64_t p = p0; p < p1; p += PANELS) {
            const int64_t panels_here = p1 - p < PANELS ? p1 - p : PANELS, f0 = p * PANEL;
            const int64_t f = g->f - f0 < panels_here * PANEL ? g->f - f0 : panels_here * PANEL;
            for (int64_t block = 0; block < w->depth * channel_blocks; block++) {
                const struct weights_part part = weights_part_of(w, block / channel_blocks, block % channel_blocks, p, panels_here);
                const int last = block + 1 == w->depth * channel_blocks; /* then the next filters follow */
                const struct weights_part next = last ? weights_part_of(w, 0, 0, p + panels_here, PANELS)
                    : weights_part_of(w, (block + 1) / channel_blocks, (block + 1) % channel_blocks, p, panels_here);
                for (int64_t panel = 0; panel < panels_here; panel++)
                    transform_weights(w, &part, p + panel, u + panel * TURNED_K * PANEL, U_APART, turned);
                for (int64_t point = 0; point < g->points; point++) {
                    if (!last || p + panels_here < p1) fetch_weights(w, &next, point, g->points);
                    for (int64_t panel = 0; panel < panels_here; panel++)
                        panel_product(ALONG_K, m + point * apart_m + panel * PANEL, ld_m,
                                      v + point * apart_v + part.d * w->k + part.k0, ld_v,
                                      u + point * U_APART + panel * TURNED_K * PANEL, PANEL, t,
                                      f - panel * PANEL < PANEL ? f - panel * PANEL : PANEL, part.rows, block == 0, NULL, 0);
                }
            }
            transform_outputs(g, y, end, m, ld_m, apart_m, t0, t1, f0, f);
        }
    }
}

/* The convolution with u, or with the weights themselves. */
static void winograd(const struct winograd *g, const struct step *s, const struct finish *end, const struct lane *lane)
{
    const struct tensor *weights = &s->in[1];
    if (weights->rank == 4 && weights->size[0] == g->points) {
        winograd_convolve(g, s->out[0].data, end, s->in[0].data, weights->data, lane);
    } else {
        const struct weights w = weights_of(weights, s->attr.flip);
        winograd_convolve_weights(g, s->out[0].data, end, s->in[0].data, &w, lane);
    }
}

/* ---- the ops ---- */

/* y (N, ..., F) = activation(x (N, ..., C) * w + b), u made of w */
static void kernel_winograd_conv(const struct step *s, const struct lane *lane)
{
    const struct winograd g = winograd_of(&s->in[0], &s->out[0], &s->attr);
    const struct finish end = {.bias = s->inputs > 2 ? s->in[2].data : NULL, .activation = s->attr.activation};
    winograd(&g, s, &end, lane);
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
    winograd(&g, s, &end, lane);
}

/* dx (N, ..., C) = (g * flipped w) * slope of the activation whose output is y */
static void kernel_winograd_conv_dx(const struct step *s, const struct lane *lane)
{
    const struct winograd g = winograd_of(&s->in[0], &s->out[0], &s->attr);
    const struct finish end = {.activation = s->attr.activation, .dx_of = s->in[2].data};
    winograd(&g, s, &end, lane);
}
