/* Convolution in groups of few filters: the lanes of a vector hold filters of several groups, a "bundle".
 *
 * Lane f * G + i has filter f of group i of the bundle's G, a power of 2. So the numbers that a bundle's groups read side by
 * side, channel c of each, have to be repeated over the lanes, which a load does. For that the channels of a pixel are put
 * in this order as the band is copied, and outputs are put back into theirs before they are stored. Where three elements of
 * the window lie side by side, an input is loaded once for all of them.
 *
 * Each output is one chain of multiply-adds in the order of the window's rows, whatever tile it falls in. */

#if defined(ISA_AVX512) || defined(ISA_NEON)
enum { BUNDLE_ROWS = 14 }; /* and 3 of weights and an input in 32 registers */
#elif defined(ISA_AVX2)
enum { BUNDLE_ROWS = 12 }; /* in 16 */
#else
enum { BUNDLE_ROWS = 8 };
#endif

enum {
    PANEL_FLOATS = PACKED_FLOATS / 8, /* most weights of a bundle */
    BUNDLE_CHANNELS = 256,            /* about so many are copied at a time: they lie side by side */
    BUNDLE_BAND = 128 << 10,          /* floats of a block's inputs: they stay in the second-level cache */
    BUNDLE_PIXELS = 512,              /* of a block whose gradients are packed */
    BUNDLE_LEVELS = VL == 16 ? 5 : VL == 8 ? 4 : VL == 4 ? 3 : 1, /* G = 1, 2, 4 ... VL */
};

/* ---- tiles ---- */

struct bundle_tile {
    const float *a; /* the inputs of output 0, or of row 0 of the weights */
    int64_t stride; /* from output to output */
    const int64_t *segment;
    int64_t segments, k; /* pieces of the window begin at a + segment[i]; k numbers a piece, of G floats each */
    const float *b;      /* panel; in a gradient what comes from the outputs, one vector each */
    float *sums;
    int64_t lines, a_line, width; /* gradient: so many rows of outputs */
};

/* sums (outputs, VL) = the outputs of a bundle; taps of a row of the window are taken together */
INLINE void bundle_outputs(const int side, const int taps, const int outputs, const struct bundle_tile *t)
{
    vf sum[BUNDLE_ROWS];
    const float *b = t->b;
    const int64_t stride = t->stride;
    UNROLL for (int i = 0; i < outputs; i++) sum[i] = v_zero();
    for (int64_t segment = 0; segment < t->segments; segment++) {
        const float *row[(BUNDLE_ROWS + 4) / 3];
        UNROLL for (int i = 0; i < outputs + taps - 1; i += 3) row[i / 3] = t->a + t->segment[segment] + i * stride;
        for (int64_t k = t->k; k > 0; k--, b += taps * VL) {
            vf w[3];
            UNROLL for (int j = 0; j < taps; j++) w[j] = v_load(b + j * VL);
            UNROLL for (int i = 0; i < outputs + taps - 1; i++) {
                const vf x = v_repeat(side, row[i / 3] + i % 3 * stride);
                UNROLL for (int j = 0; j < taps; j++)
                    if (i >= j && i - j < outputs) sum[i - j] = v_fma(x, w[j], sum[i - j]);
            }
            UNROLL for (int i = 0; i < outputs + taps - 1; i += 3) row[i / 3] += side;
        }
    }
    UNROLL for (int i = 0; i < outputs; i++) v_store(t->sums + i * VL, sum[i]);
}

/* sums (rows, VL) += the gradients of a bundle's weights */
INLINE void bundle_gradient(const int side, const int rows, const struct bundle_tile *t)
{
    vf sum[BUNDLE_ROWS];
    const float *b = t->b;
    const int64_t stride = t->stride;
    UNROLL for (int i = 0; i < rows; i++) sum[i] = v_zero();
    for (int64_t line = 0; line < t->lines; line++) {
        const float *a = t->a + line * t->a_line;
        for (int64_t q = t->width; q > 0; q--, a += stride, b += VL) {
            const vf g = v_load(b);
            UNROLL for (int i = 0; i < rows; i++) sum[i] = v_fma(v_repeat(side, a + i * side), g, sum[i]);
        }
    }
    UNROLL for (int i = 0; i < rows; i++) v_store(t->sums + i * VL, v_load(t->sums + i * VL) + sum[i]);
}

typedef void bundle_kernel(const struct bundle_tile *t);

#define TILE(side, rows)                                                                                             \
    static void outputs_##side##_1_##rows(const struct bundle_tile *t) { bundle_outputs(side, 1, rows, t); }         \
    static void outputs_##side##_3_##rows(const struct bundle_tile *t) { bundle_outputs(side, 3, rows, t); }         \
    static void gradient_##side##_##rows(const struct bundle_tile *t) { bundle_gradient(side, rows, t); }
#define SINGLE(side, rows) outputs_##side##_1_##rows,
#define TRIPLE(side, rows) outputs_##side##_3_##rows,
#define GRADIENT(side, rows) gradient_##side##_##rows,
#define ROWS8(X, s) X(s, 1) X(s, 2) X(s, 3) X(s, 4) X(s, 5) X(s, 6) X(s, 7) X(s, 8)
#define ROWS12(X, s) ROWS8(X, s) X(s, 9) X(s, 10) X(s, 11) X(s, 12)
#define ROWS14(X, s) ROWS12(X, s) X(s, 13) X(s, 14)
#if defined(ISA_AVX512) || defined(ISA_NEON)
#define ROWS ROWS14
#elif defined(ISA_AVX2)
#define ROWS ROWS12
#else
#define ROWS ROWS8
#endif
#define NAMES(side) {{ROWS(SINGLE, side)}, {ROWS(TRIPLE, side)}, {ROWS(GRADIENT, side)}},
ROWS(TILE, 1)
#if VL >= 4
ROWS(TILE, 2) ROWS(TILE, 4)
#endif
#if VL >= 8
ROWS(TILE, 8)
#endif
#if VL >= 16
ROWS(TILE, 16)
#endif

/* bundle_tiles[log2(G)][what][rows - 1] */
enum { BUNDLE_SINGLE, BUNDLE_TRIPLE, BUNDLE_GRADIENT, BUNDLE_KINDS };
static bundle_kernel *const bundle_tiles[BUNDLE_LEVELS][BUNDLE_KINDS][BUNDLE_ROWS] = {
    NAMES(1)
#if VL >= 4
    NAMES(2) NAMES(4)
#endif
#if VL >= 8
    NAMES(8)
#endif
#if VL >= 16
    NAMES(16)
#endif
};

#undef TILE
#undef SINGLE
#undef TRIPLE
#undef GRADIENT
#undef ROWS8
#undef ROWS12
#undef ROWS14
#undef ROWS
#undef NAMES

/* ---- bundles ---- */

struct bundles {
    const struct correlation *p; /* the first group's */
    int64_t groups, count;       /* of all; bundles */
    int64_t side, level;         /* G and log2(G) */
    int64_t f, c;                /* of a group */
    int triple;
    vi in, out, back; /* lane c * G + i of the inputs, lane i * f + ... of the outputs, and from these to the lanes of sums */
    vi part;          /* where channels of all groups are more than a vector: lane / G */
    vm of[VL];        /* lanes of group i */
};

static vi lanes_of(const int32_t *lane)
{
    vi v;
    memcpy(&v, lane, sizeof v);
    return v;
}

static struct bundles bundles_of(const struct correlation *p, int64_t groups)
{
    const struct axis *w = &p->axis[AXIS_W];
    struct bundles k = {.p = p, .groups = groups, .side = 1, .f = p->f, .c = p->c,
                        .triple = w->taps == 3 && w->step == 1 && w->spacing == 1};
    for (; 2 * k.side * k.f <= VL && k.side < groups; k.level++) k.side *= 2;
    k.count = (groups + k.side - 1) / k.side;
    int32_t in[VL], out[VL], back[VL], part[VL];
    float group[VL];
    for (int64_t l = 0; l < VL; l++) {
        const int64_t i = l % k.side, place = l / k.side;
        in[l] = (int32_t)(place < k.c && k.side * k.c <= VL ? i * k.c + place : 0);
        back[l] = (int32_t)(place < k.f ? i * k.f + place : 0);
        out[l] = (int32_t)(l / k.f < k.side ? l % k.f * k.side + l / k.f : 0);
        part[l] = (int32_t)place;
        group[l] = (float)i;
    }
    k.in = lanes_of(in), k.out = lanes_of(out), k.back = lanes_of(back), k.part = lanes_of(part);
    for (int64_t i = 0; i < k.side; i++) k.of[i] = v_equal(v_set((float)i), v_load(group));
    return k;
}

static int64_t groups_in(const struct bundles *k, int64_t bundle) /* the last one may have fewer */
{
    return k->groups - bundle * k->side < k->side ? k->groups - bundle * k->side : k->side;
}

static int64_t window_taps(const struct correlation *p)
{
    return p->axis[AXIS_D].taps * p->axis[AXIS_H].taps * p->axis[AXIS_W].taps;
}

/* How blocks are cut if the inputs of so many bundles are copied at a time. */
static struct cut cut_bundles(const struct bundles *k, int64_t bundles, int64_t floats)
{
    struct correlation all = *k->p;
    all.c = bundles * k->side * k->c;
    return cut_blocks(&all, floats);
}

/* Whether groups, of which this is the first, are done side by side. */
static int groups_fit(const struct correlation *p, int64_t groups)
{
    if (groups == 1 || p->f < 1 || p->f > VL || p->c < 1 || window_taps(p) * p->c * VL > PANEL_FLOATS) return 0;
    const struct bundles k = bundles_of(p, groups);
    return cut_bundles(&k, 1, BUNDLE_BAND).rows > 0;
}

/* ---- the band ---- */

/* Inputs of a block: (bundles, taps along D, rows, pixels, c, G); distances in floats. */
struct distances {
    int64_t pixel, line, plane, bundle;
};

static struct distances distances_of(const struct bundles *k, const struct block *b)
{
    const struct axis *d = &k->p->axis[AXIS_D], *h = &k->p->axis[AXIS_H], *w = &k->p->axis[AXIS_W];
    struct distances s = {.pixel = k->side * k->c};
    s.line = reach(w, b->w1 - b->w0) * s.pixel;
    s.plane = reach(h, b->h1 - b->h0) * s.line;
    s.bundle = (d->taps * s.plane + 2 * VL) / VL * VL; /* a store may go too far by less than a vector */
    return s;
}

/* to (c, G) = from (groups, c); what is written too much behind it is put right by the next pixel */
INLINE void copy_pixel(const struct bundles *k, float *to, const float *from, int64_t groups)
{
    if (k->side == 1) {
        for (int64_t c = 0; c < k->c; c += VL) v_store(to + c, v_load_n(from + c, k->c - c));
    } else if (k->side * k->c <= VL) {
        v_store(to, v_pick(v_load_n(from, groups * k->c), k->in));
    } else {
        const int64_t most = VL / k->side;
        for (int64_t c = 0; c < k->c; c += most) {
            vf v = v_zero();
            for (int64_t i = 0; i < groups; i++)
                v = v_select(k->of[i], v_pick(v_load_n(from + i * k->c + c, k->c - c < most ? k->c - c : most), k->part), v);
            v_store(to + c * k->side, v);
        }
    }
}

/* Copies rows i0 .. i1 - 1 of the inputs of a block for bundles first .. end - 1. */
static void take_rows(const struct bundles *k, const struct block *b, const struct distances *s, int64_t first, int64_t end,
                      int64_t i0, int64_t i1, float *memory)
{
    const struct correlation *p = k->p;
    const struct axis *d = &p->axis[AXIS_D], *h = &p->axis[AXIS_H], *w = &p->axis[AXIS_W];
    const int64_t w0 = b->w0 * w->step + w->first, width = reach(w, b->w1 - b->w0);
    for (int64_t j = 0; j < d->taps; j++) {
        for (int64_t i = i0; i < i1; i++) {
            const float *from = input_row(p, b->n, b->d * d->step + d->first + j * d->spacing, b->h0 * h->step + h->first + i);
            float *to = memory + j * s->plane + i * s->line;
            int64_t low, high;
            pixels_there(from, w0, width, w->size, &low, &high);
            for (int64_t n = 0; n < end - first; n++)
                memset(to + n * s->bundle, 0, (size_t)(low * s->pixel) * sizeof *to);
            for (int64_t q = low; q < high; q++)
                for (int64_t n = first; n < end; n++)
                    copy_pixel(k, to + (n - first) * s->bundle + q * s->pixel,
                               from + (w0 + q) * p->ldx + n * k->side * k->c, groups_in(k, n));
            for (int64_t n = 0; n < end - first; n++)
                memset(to + n * s->bundle + high * s->pixel, 0, (size_t)((width - high) * s->pixel) * sizeof *to);
        }
    }
}

/* Where the pieces of the window begin; returns how many they are. */
static int64_t list_segments(const struct bundles *k, const struct distances *s, int64_t *segment)
{
    const struct axis *d = &k->p->axis[AXIS_D], *h = &k->p->axis[AXIS_H], *w = &k->p->axis[AXIS_W];
    const int joined = w->spacing == 1 && w->taps > 0; /* a row of the window lies side by side */
    int64_t n = 0;
    for (int64_t jd = 0; jd < d->taps; jd++)
        for (int64_t jh = 0; jh < h->taps; jh++)
            for (int64_t jw = 0; jw < (joined ? 1 : w->taps); jw++)
                segment[n++] = jd * s->plane + jh * h->spacing * s->line + jw * w->spacing * s->pixel;
    return n;
}

/* ---- outputs ---- */

/* panel = the weights of a bundle in the order in which a tile takes them */
static void pack_bundle(const struct bundles *k, int64_t bundle, float *panel)
{
    const struct correlation *p = k->p;
    const int64_t taps = window_taps(p), first = bundle * k->side, groups = groups_in(k, bundle);
    for (int64_t t = 0; t < taps; t++) {
        const float *from = tap_weights(p, t);
        for (int64_t c = 0; c < k->c; c++) {
            float *to = panel + (k->triple ? (t / 3 * k->c + c) * 3 + t % 3 : t * k->c + c) * VL;
            float lanes[VL] = {0};
            if (!p->turned) {
                v_store(to, v_pick(v_load_n(from + c * p->ldw + first * k->f, groups * k->f), k->back));
                continue;
            }
            for (int64_t f = 0; f < k->f; f++)
                for (int64_t i = 0; i < groups; i++) lanes[f * k->side + i] = from[f * p->ldw + (first + i) * k->c + c];
            v_store(to, v_load(lanes));
        }
    }
}

/* y (outputs, columns of ldc) = sums, in their order, and what comes after the sum; `at` is the first one's place */
static void finish_bundle(const struct bundles *k, const float *sums, int64_t outputs, int64_t at, int64_t ldc, int64_t f0,
                          int64_t columns)
{
    const struct finish *end = &k->p->end;
    const int relu = end->activation == ACT_relu;
    const vf bias = end->bias ? v_load_n(end->bias + f0, columns) : v_zero();
    float *y = k->p->y + at;
    const float *dx_of = end->dx_of ? end->dx_of + at : NULL;
    for (int64_t i = 0; i < outputs; i++) {
        vf v = v_pick(v_load(sums + i * VL), k->out);
        if (end->bias) v = v + bias;
        if (relu && !dx_of) v = v_max(v_zero(), v);
        if (relu && dx_of) v = v_select(v_less(v_zero(), v_load_n(dx_of + i * ldc, columns)), v, v_zero());
        v_store_n(y + i * ldc, v, columns);
        if (relu || end->activation == ACT_linear) continue;
        if (dx_of) activate_dx_rows(end->activation, y + i * ldc, dx_of + i * ldc, columns);
        else activate_rows(end->activation, y + i * ldc, columns);
    }
}

/* The outputs of a block of a bundle. */
static void correlate_bundle(const struct bundles *k, const struct block *b, const struct distances *s, int64_t bundle,
                             struct bundle_tile t)
{
    const struct correlation *p = k->p;
    const struct axis *d = &p->axis[AXIS_D], *h = &p->axis[AXIS_H], *w = &p->axis[AXIS_W];
    const int64_t width = b->w1 - b->w0, tall = (width + BUNDLE_ROWS - 1) / BUNDLE_ROWS, ldc = w->to_step * p->ldy;
    const int64_t f0 = bundle * k->side * k->f, columns = groups_in(k, bundle) * k->f;
    const float *band = t.a;
    float sums[BUNDLE_ROWS * VL];
    t.sums = sums;
    t.stride = w->step * s->pixel;
    for (int64_t row = b->h0; row < b->h1; row++) {
        const int64_t y_row = ((b->n * p->y_size[AXIS_D] + b->d * d->to_step + d->to_first) * p->y_size[AXIS_H]
                               + row * h->to_step + h->to_first) * p->y_size[AXIS_W];
        for (int64_t number = 0, q = 0, high; number < tall; number++, q += high) {
            high = width / tall + (number < width % tall);
            const int64_t at = (y_row + (b->w0 + q) * w->to_step + w->to_first) * p->ldy + f0;
            const int64_t on = at + h->to_step * p->y_size[AXIS_W] * p->ldy;
            for (int64_t i = 0; i < high; i++) {
                prefetch_far(p->y + on + i * ldc);
                if (p->end.dx_of) prefetch_far(p->end.dx_of + on + i * ldc);
            }
            t.a = band + (row - b->h0) * h->step * s->line + q * t.stride;
            bundle_tiles[k->level][k->triple ? BUNDLE_TRIPLE : BUNDLE_SINGLE][high - 1](&t);
            finish_bundle(k, sums, high, at, ldc, f0, columns);
        }
    }
}

static int64_t at_a_time(const struct bundles *k) /* bundles, unless that leaves too few rows for a block */
{
    int64_t n = BUNDLE_CHANNELS / (k->side * k->c) > 1 ? BUNDLE_CHANNELS / (k->side * k->c) : 1;
    if (n > k->count) n = k->count;
    while (n > 1 && cut_bundles(k, n, BUNDLE_BAND).rows < 8 && cut_bundles(k, n, BUNDLE_BAND).rows < k->p->axis[AXIS_H].out) n = (n + 1) / 2;
    return n;
}

static void correlate_groups(const struct correlation *p, int64_t groups, const struct lane *lane)
{
    const struct axis *d = &p->axis[AXIS_D], *h = &p->axis[AXIS_H], *w = &p->axis[AXIS_W];
    const struct bundles k = bundles_of(p, groups);
    if (p->n * d->out * h->out * w->out == 0) return;
    const int64_t ranges = (k.count + at_a_time(&k) - 1) / at_a_time(&k), panel_floats = window_taps(p) * k.c * VL;
    struct cut cut = cut_bundles(&k, (k.count + ranges - 1) / ranges, BUNDLE_BAND);
    while (cut.rows > 4 && p->n * d->out * ((h->out + cut.rows - 1) / cut.rows) * ranges < 2 * lane->count)
        cut.rows = (cut.rows + 1) / 2;
    const int64_t high = (h->out + cut.rows - 1) / cut.rows, wide = (w->out + cut.width - 1) / cut.width;
    float *memory = lane->scratch, *packed = memory + BUNDLE_BAND + 3 * VL * BUNDLE_CHANNELS;
    int64_t *segment = (int64_t *)(packed + PACKED_FLOATS);
    const int once = k.count * panel_floats <= PACKED_FLOATS;
    int ready = 0;
    for (int64_t task = lane->id; task < p->n * d->out * high * wide * ranges; task += lane->count) {
        int64_t t = task / ranges;
        const int64_t first = task % ranges * k.count / ranges, end = (task % ranges + 1) * k.count / ranges;
        struct block b;
        b.w0 = t % wide * w->out / wide, b.w1 = (t % wide + 1) * w->out / wide, t /= wide;
        b.h0 = t % high * h->out / high, b.h1 = (t % high + 1) * h->out / high, t /= high;
        b.d = t % d->out, b.n = t / d->out;
        const struct distances s = distances_of(&k, &b);
        const int joined = w->spacing == 1 && w->taps > 0;
        struct bundle_tile tile = {.segment = segment, .segments = list_segments(&k, &s, segment),
                                   .k = joined && !k.triple ? w->taps * k.c : k.c};
        for (; once && ready < k.count; ready++) pack_bundle(&k, ready, packed + ready * panel_floats);
        int64_t taken = 0;
        for (int64_t row = b.h0; row < b.h1; row++) {
        const int64_t needed = reach(h, row - b.h0 + 1);
        take_rows(&k, &b, &s, first, end, taken, needed, memory);
        taken = needed;
        for (int64_t bundle = first; bundle < end; bundle++) {
            struct block one = b; one.h0 = row; one.h1 = row + 1;
            tile.b = packed + (once ? bundle * panel_floats : 0);
            if (!once) pack_bundle(&k, bundle, packed);
            tile.a = memory + (bundle - first) * s.bundle + (row - b.h0) * h->step * s.line;
            correlate_bundle(&k, &one, &s, bundle, tile);
        }}
    }
}

/* ---- the weights' gradient ---- */

/* to (bundles, rows, width, VL) = the gradients of a block for bundles first .. last - 1, in the order of their lanes */
static void pack_gradients(const struct bundles *k, const struct block *b, int64_t first, int64_t last, float *to)
{
    const struct correlation *p = k->p;
    const int64_t pixels = (b->h1 - b->h0) * (b->w1 - b->w0);
    for (int64_t row = b->h0; row < b->h1; row++) {
        const int64_t at = ((b->n * p->y_size[AXIS_D] + b->d) * p->y_size[AXIS_H] + row) * p->y_size[AXIS_W];
        for (int64_t q = b->w0; q < b->w1; q++, to += VL)
            for (int64_t n = first; n < last; n++) {
                const int64_t f0 = n * k->side * k->f, columns = groups_in(k, n) * k->f;
                v_store(to + (n - first) * pixels * VL, v_pick(v_load_n(p->y + (at + q) * p->ldy + f0, columns), k->back));
            }
    }
}

/* dw (outputs, F) of all groups, of which p is the first; its y are the gradients. The sum over pixels is cut into parts, the
 * later ones in `workspace`. */
static void gradient_groups(const struct correlation *p, int64_t groups, int64_t parts, float *dw, float *workspace,
                            const struct lane *lane)
{
    const struct axis *d = &p->axis[AXIS_D], *h = &p->axis[AXIS_H], *w = &p->axis[AXIS_W];
    const struct bundles k = bundles_of(p, groups);
    const int64_t outputs = window_taps(p) * k.c, rows = p->n * d->out * h->out;
    const int joined = w->spacing == 1 && w->taps > 0;
    struct cut cut = cut_bundles(&k, at_a_time(&k), BUNDLE_BAND);
    if (cut.width > BUNDLE_PIXELS) cut.width = BUNDLE_PIXELS;
    if (cut.rows * cut.width > BUNDLE_PIXELS) cut.rows = BUNDLE_PIXELS / (cut.width + !cut.width);
    int64_t ranges = (k.count + at_a_time(&k) - 1) / at_a_time(&k);
    while (parts * ranges < lane->count && ranges * 2 <= k.count) ranges *= 2;
    const int64_t run = joined ? w->taps * k.c : k.c, tiles_of_run = (run + BUNDLE_ROWS - 1) / BUNDLE_ROWS;
    float *memory = lane->scratch, *packed = memory + BUNDLE_BAND + 3 * VL * BUNDLE_CHANNELS;
    float *sums = packed + BUNDLE_PIXELS * VL * (BUNDLE_CHANNELS+1);
    int64_t *segment = (int64_t *)(sums + PACKED_FLOATS);
    for (int64_t task = lane->id; task < parts * ranges; task += lane->count) {
        const int64_t part = task / ranges, range = task % ranges;
        const int64_t first = range * k.count / ranges, last = (range + 1) * k.count / ranges;
        memset(sums, 0, (size_t)((last - first) * outputs * VL) * sizeof *sums);
        const int64_t end = (part + 1) * rows / parts;
        for (int64_t row = part * rows / parts; row < end;) {
            struct block b = {.n = row / h->out / d->out, .d = row / h->out % d->out, .h0 = row % h->out};
            b.h1 = b.h0 + cut.rows < h->out ? b.h0 + cut.rows : h->out;
            if (b.h1 - b.h0 > end - row) b.h1 = b.h0 + end - row;
            row += b.h1 - b.h0;
            for (b.w0 = 0; b.w0 < w->out; b.w0 = b.w1) {
                b.w1 = b.w0 + cut.width < w->out ? b.w0 + cut.width : w->out;
                const struct distances s = distances_of(&k, &b);
                const int64_t segments = list_segments(&k, &s, segment);
                struct bundle_tile t = {.stride = w->step * s.pixel, .b = packed, .lines = b.h1 - b.h0,
                                        .a_line = h->step * s.line, .width = b.w1 - b.w0};
                take_rows(&k, &b, &s, first, last, 0, reach(h, b.h1 - b.h0), memory);
                pack_gradients(&k, &b, first, last, packed);
                for (int64_t bundle = first; bundle < last; bundle++) {
                    t.b = packed + (bundle - first) * (b.h1 - b.h0) * (b.w1 - b.w0) * VL;
                    t.sums = sums + (bundle - first) * outputs * VL;
                    for (int64_t i = 0; i < segments; i++) {
                        const float *a = memory + (bundle - first) * s.bundle + segment[i];
                        for (int64_t number = 0, high; number < tiles_of_run; number++) {
                            high = run / tiles_of_run + (number < run % tiles_of_run);
                            t.a = a;
                            bundle_tiles[k.level][BUNDLE_GRADIENT][high - 1](&t);
                            t.sums += high * VL;
                            a += high * k.side;
                        }
                    }
                }
            }
        }
        float *to = part ? workspace + (part - 1) * outputs * p->ldw : dw;
        for (int64_t bundle = first; bundle < last; bundle++)
            for (int64_t i = 0; i < outputs; i++)
                v_store_n(to + i * p->ldw + bundle * k.side * k.f,
                          v_pick(v_load(sums + ((bundle - first) * outputs + i) * VL), k.out), groups_in(&k, bundle) * k.f);
    }
}
