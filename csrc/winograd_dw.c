/* The weights' gradient by Winograd's algorithm, the exact adjoint of the convolution: dw = G' (sum over tiles of V' dM) G,
 * dM = A dy A'. Sizes as in winograd.c. */

enum {
    TILES_GRADIENT = 84, /* of a block, at least: dU is read and written once a block */
    GRADIENT_FLOATS = 5 << 20, /* as in fastnn/ops/winograd.py: most of dU at a time, unless V is larger */
    BLOCK_K = 16, /* rows of dU, whose points lie far apart, often by a power of two: as many are put together first */
};

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
