/* Convolution in groups of few filters: the lanes of a vector hold filters of several groups, a "bundle" of G groups.
 *
 * Lane f * G + i has filter f of group i; G is a power of 2. What the groups of a bundle read side by side, channel c of
 * each, is G numbers that are repeated over the lanes, which a load does by itself. For that the channels of a pixel are
 * brought into this order when they are copied to a band, with the zeros around it, and outputs into theirs before they are
 * stored. Where three elements of the window lie side by side and registers are many, an input is loaded once for all three.
 *
 * Each output is one chain of multiply-adds in the order of the window's rows, whatever tile it falls in. */

#include "grouped_tile.h"

enum {
    BUNDLE_FLOATS = 128 << 10,        /* of a block's inputs, or of its gradients: they stay in the second-level cache */
    BUNDLE_CHANNELS = 256,            /* about so many are copied at a time: they lie side by side */
    PANEL_FLOATS = PACKED_FLOATS / 8, /* most weights of a bundle */
    BUNDLE_SPACE = BUNDLE_FLOATS + VL * BUNDLE_CHANNELS,
};
_Static_assert(sizeof(float) * (2 * BUNDLE_SPACE + (size_t)PACKED_FLOATS) + sizeof(int64_t) * PANEL_FLOATS / VL
               <= TEAM_SCRATCH, "they fit in the scratch");

/* ---- bundles ---- */

struct bundles {
    const struct correlation *p;     /* of the first group */
    int64_t groups, count;           /* all groups; bundles */
    int64_t side, level;             /* G and log2(G) */
    int64_t f, c;                    /* of a group */
    int64_t taps, panel;             /* elements of the window; floats of a bundle's weights */
    int joined, triple;              /* a row of the window lies side by side; it has three elements, outputs one apart */
    vi to_sums, to_outputs, to_band; /* from (i, f) in memory to (f, i) in lanes; back; from (i, c) to (c, i) */
    vi part;                         /* where channels of all groups are more than a vector: lane / G */
    vm of[VL];                       /* lanes of group i */
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
    struct bundles k = {.p = p, .groups = groups, .side = 1, .f = p->f, .c = p->c};
    k.taps = p->axis[AXIS_D].taps * p->axis[AXIS_H].taps * w->taps;
    k.panel = k.taps * k.c * VL;
    k.joined = w->spacing == 1 || w->taps == 1;
    k.triple = TRIPLE_ROWS > 0 && w->spacing == 1 && w->taps == 3 && w->step == 1;
    for (; 2 * k.side * k.f <= VL && k.side < groups; k.level++) k.side *= 2;
    k.count = (groups + k.side - 1) / k.side;
    int32_t to_sums[VL], to_outputs[VL], to_band[VL], part[VL];
    float group[VL];
    for (int64_t l = 0; l < VL; l++) { /* lanes that are not used hold anything */
        const int64_t i = l % k.side, place = l / k.side;
        to_sums[l] = (int32_t)(place < k.f ? i * k.f + place : 0);
        to_outputs[l] = (int32_t)(l / k.f < k.side ? l % k.f * k.side + l / k.f : 0);
        to_band[l] = (int32_t)(place < k.c && k.side * k.c <= VL ? i * k.c + place : 0);
        part[l] = (int32_t)place;
        group[l] = (float)i;
    }
    k.to_sums = lanes_of(to_sums), k.to_outputs = lanes_of(to_outputs);
    k.to_band = lanes_of(to_band), k.part = lanes_of(part);
    for (int64_t i = 0; i < k.side; i++) k.of[i] = v_equal(v_set((float)i), v_load(group));
    return k;
}

static int64_t groups_in(const struct bundles *k, int64_t bundle) /* the last one may have fewer */
{
    return k->groups - bundle * k->side < k->side ? k->groups - bundle * k->side : k->side;
}

/* How blocks are cut if the inputs of so many bundles are copied at a time. */
static struct cut cut_bundles(const struct bundles *k, int64_t bundles)
{
    struct correlation all = *k->p;
    all.c = bundles * k->side * k->c;
    return cut_blocks(&all, BUNDLE_FLOATS);
}

/* Whether groups, of which this is the first, are done side by side. */
static int groups_fit(const struct correlation *p, int64_t groups)
{
    if (groups == 1 || p->f < 1 || p->f > VL || p->c < 1) return 0;
    const struct bundles k = bundles_of(p, groups);
    return k.panel <= PANEL_FLOATS && cut_bundles(&k, 1).rows > 0;
}

/* Into how many ranges bundles are cut: one has all channels, but not too many, nor such that blocks have few rows. */
static int64_t ranges_of(const struct bundles *k)
{
    int64_t n = BUNDLE_CHANNELS / (k->side * k->c);
    if (n > k->count) n = k->count;
    for (int64_t rows; n > 1; n = (n + 1) / 2) {
        rows = cut_bundles(k, n).rows;
        if (n * k->panel <= PACKED_FLOATS && (rows >= 8 || rows == k->p->axis[AXIS_H].out)) break;
    }
    return n > 1 ? (k->count + n - 1) / n : k->count;
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
    s.bundle = (d->taps * s.plane + VL - 1) / VL * VL;
    return s;
}

/* Where the pieces of the window begin; how many they are. */
static int64_t list_segments(const struct bundles *k, const struct distances *s, int64_t *segment)
{
    const struct axis *d = &k->p->axis[AXIS_D], *h = &k->p->axis[AXIS_H], *w = &k->p->axis[AXIS_W];
    int64_t n = 0;
    for (int64_t jd = 0; jd < d->taps; jd++)
        for (int64_t jh = 0; jh < h->taps; jh++)
            for (int64_t jw = 0; jw < w->taps; jw += k->joined ? w->taps : 1)
                segment[n++] = jd * s->plane + jh * h->spacing * s->line + jw * w->spacing * s->pixel;
    return n;
}

/* to (c, G) = from (groups, c) */
INLINE void copy_pixel(const struct bundles *k, float *to, const float *from, int64_t groups)
{
    if (k->side == 1) {
        for (int64_t c = 0; c < k->c; c += VL) v_store_n(to + c, v_load_n(from + c, k->c - c), k->c - c);
    } else if (k->side * k->c <= VL) {
        v_store_n(to, v_pick(v_load_n(from, groups * k->c), k->to_band), k->side * k->c);
    } else {
        const int64_t most = VL / k->side;
        for (int64_t c = 0; c < k->c; c += most) {
            const int64_t n = k->c - c < most ? k->c - c : most;
            vf v = v_zero();
            for (int64_t i = 0; i < groups; i++)
                v = v_select(k->of[i], v_pick(v_load_n(from + i * k->c + c, n), k->part), v);
            v_store_n(to + c * k->side, v, n * k->side);
        }
    }
}

/* Copies rows i0 .. i1 - 1 of the inputs of a block for bundles first .. end - 1. */
static void copy_rows(const struct bundles *k, const struct block *b, const struct distances *s, int64_t first, int64_t end,
                      int64_t i0, int64_t i1, float *memory)
{
    const struct correlation *p = k->p;
    const struct axis *d = &p->axis[AXIS_D], *h = &p->axis[AXIS_H], *w = &p->axis[AXIS_W];
    const int64_t w0 = b->w0 * w->step + w->first, width = reach(w, b->w1 - b->w0);
    for (int64_t j = 0; j < d->taps; j++) {
        for (int64_t i = i0; i < i1; i++) {
            const float *from = input_row(p, b->n, b->d * d->step + d->first + j * d->spacing,
                                          b->h0 * h->step + h->first + i);
            float *to = memory + j * s->plane + i * s->line;
            int64_t low, high;
            pixels_there(from, w0, width, w->size, &low, &high);
            for (int64_t q = low; q < high; q++)
                for (int64_t n = first; n < end; n++)
                    copy_pixel(k, to + (n - first) * s->bundle + q * s->pixel,
                               from + (w0 + q) * p->ldx + n * k->side * k->c, groups_in(k, n));
            for (int64_t n = 0; n < end - first; n++, to += s->bundle) {
                memset(to, 0, (size_t)(low * s->pixel) * sizeof *to);
                memset(to + high * s->pixel, 0, (size_t)((width - high) * s->pixel) * sizeof *to);
            }
        }
    }
}

/* ---- outputs ---- */

/* panel = the weights of a bundle in the order in which a tile takes them */
static void pack_bundle(const struct bundles *k, int64_t bundle, float *panel)
{
    const struct correlation *p = k->p;
    const int64_t first = bundle * k->side, groups = groups_in(k, bundle);
    for (int64_t t = 0; t < k->taps; t++) {
        const float *from = tap_weights(p, t);
        for (int64_t c = 0; c < k->c; c++) {
            float lanes[VL] = {0};
            for (int64_t f = 0; p->turned && f < k->f; f++)
                for (int64_t i = 0; i < groups; i++) lanes[f * k->side + i] = from[f * p->ldw + (first + i) * k->c + c];
            v_store(panel + (k->triple ? (t / 3 * k->c + c) * 3 + t % 3 : t * k->c + c) * VL,
                    p->turned ? v_load(lanes)
                              : v_pick(v_load_n(from + c * p->ldw + first * k->f, groups * k->f), k->to_sums));
        }
    }
}

/* y (outputs, columns) = sums, in its order, and what comes after the sum; `at` is output 0's place, `step` from one to the
 * next */
static void finish_bundle(const struct bundles *k, const float *sums, int64_t outputs, int64_t at, int64_t step, int64_t f0,
                          int64_t columns)
{
    const struct finish *end = &k->p->end;
    const int relu = end->activation == ACT_relu;
    const vf bias = end->bias ? v_load_n(end->bias + f0, columns) : v_zero();
    for (int64_t i = 0; i < outputs; i++, at += step) {
        float *y = k->p->y + at;
        const float *dx_of = end->dx_of ? end->dx_of + at : NULL;
        vf v = v_pick(v_load(sums + i * VL), k->to_outputs);
        if (end->bias) v = v + bias;
        if (relu && dx_of) v = v_select(v_less(v_zero(), v_load_n(dx_of, columns)), v, v_zero());
        else if (relu) v = v_max(v_zero(), v);
        v_store_n(y, v, columns);
        if (relu || end->activation == ACT_linear) continue;
        if (dx_of) activate_dx_rows(end->activation, y, dx_of, columns);
        else activate_rows(end->activation, y, columns);
    }
}

/* A row of a block's outputs, of a bundle whose inputs lie at t->a. The row that follows is fetched, as the caches cannot
 * foresee lines so far apart. */
static void correlate_row(const struct bundles *k, const struct block *b, int64_t row, int64_t bundle, struct bundle_tile t)
{
    const struct correlation *p = k->p;
    const struct axis *w = &p->axis[AXIS_W];
    const int64_t width = b->w1 - b->w0, tall = (width + BUNDLE_ROWS - 1) / BUNDLE_ROWS, step = w->to_step * p->ldy;
    const int64_t next = p->axis[AXIS_H].to_step * p->y_size[AXIS_W] * p->ldy;
    const int64_t f0 = bundle * k->side * k->f, columns = groups_in(k, bundle) * k->f;
    int64_t at = (output_row(p, b, row) + b->w0 * w->to_step + w->to_first) * p->ldy + f0;
    float sums[BUNDLE_ROWS * VL];
    t.sums = sums;
    for (int64_t number = 0; number < tall; number++) {
        const int64_t high = width / tall + (number < width % tall);
        for (int64_t i = 0; i < high; i++) {
            prefetch_far(p->y + at + next + i * step);
            if (p->end.dx_of) prefetch_far(p->end.dx_of + at + next + i * step);
        }
        bundle_tiles[k->level][0][k->triple][high - 1](&t);
        finish_bundle(k, sums, high, at, step, f0, columns);
        t.a += high * t.stride;
        at += high * step;
    }
}

/* All groups of what is given for the first one. */
static void correlate_groups(const struct correlation *p, int64_t groups, const struct lane *lane)
{
    const struct axis *d = &p->axis[AXIS_D], *h = &p->axis[AXIS_H], *w = &p->axis[AXIS_W];
    const struct bundles k = bundles_of(p, groups);
    if (p->n * d->out * h->out * w->out == 0) return;
    int64_t ranges = ranges_of(&k);
    struct cut cut = cut_bundles(&k, (k.count + ranges - 1) / ranges);
    while (cut.rows > 4 && p->n * d->out * ((h->out + cut.rows - 1) / cut.rows) * ranges < 2 * lane->count)
        cut.rows = (cut.rows + 1) / 2;
    const int64_t high = (h->out + cut.rows - 1) / cut.rows, wide = (w->out + cut.width - 1) / cut.width;
    const int64_t blocks = p->n * d->out * high * wide;
    while (blocks * ranges < lane->count && ranges * 2 <= k.count) ranges *= 2;
    float *memory = lane->scratch, *packed = memory + BUNDLE_SPACE;
    int64_t *segment = (int64_t *)(packed + PACKED_FLOATS);
    const int all = k.count * k.panel <= PACKED_FLOATS; /* weights are packed once, else those of a range */
    int64_t ready = -1;
    for (int64_t task = lane->id; task < blocks * ranges; task += lane->count) {
        const int64_t range = task % ranges, first = range * k.count / ranges, end = (range + 1) * k.count / ranges;
        const int64_t p0 = all ? 0 : first, p1 = all ? k.count : end;
        const struct block b = block_at(p, high, wide, task / ranges);
        const struct distances s = distances_of(&k, &b);
        struct bundle_tile t = {.stride = w->step * s.pixel, .segment = segment, .segments = list_segments(&k, &s, segment),
                                .k = k.joined && !k.triple ? w->taps * k.c : k.c};
        for (int64_t bundle = p0; ready != p0 && bundle < p1; bundle++)
            pack_bundle(&k, bundle, packed + (bundle - p0) * k.panel);
        ready = p0;
        for (int64_t row = b.h0, copied = 0; row < b.h1; row++) { /* its lines are near until all bundles have had it */
            const int64_t needed = reach(h, row - b.h0 + 1);
            copy_rows(&k, &b, &s, first, end, copied, needed, memory);
            copied = needed;
            for (int64_t bundle = first; bundle < end; bundle++) {
                t.a = memory + (bundle - first) * s.bundle + (row - b.h0) * h->step * s.line;
                t.b = packed + (bundle - p0) * k.panel;
                correlate_row(&k, &b, row, bundle, t);
            }
        }
    }
}

/* ---- the weights' gradient ---- */

/* to (bundles, pixels, VL) = the gradients of a block for bundles first .. end - 1, in the order of their lanes */
static void pack_gradients(const struct bundles *k, const struct block *b, int64_t first, int64_t end, float *to)
{
    const struct correlation *p = k->p;
    const int64_t pixels = (b->h1 - b->h0) * (b->w1 - b->w0);
    for (int64_t row = b->h0; row < b->h1; row++) {
        for (int64_t q = b->w0; q < b->w1; q++, to += VL) {
            const float *from = p->y + (output_row(p, b, row) + q) * p->ldy;
            for (int64_t n = first; n < end; n++)
                v_store(to + (n - first) * pixels * VL,
                        v_pick(v_load_n(from + n * k->side * k->f, groups_in(k, n) * k->f), k->to_sums));
        }
    }
}

/* sums (window, c, VL) += those of a block of a bundle, whose inputs lie at a, its gradients at t.b */
static void gradient_bundle(const struct bundles *k, const float *a, struct bundle_tile t, float *sums)
{
    const int64_t run = k->joined && !k->triple ? k->p->axis[AXIS_W].taps * k->c : k->c; /* rows of a piece of the window */
    const int64_t most = k->triple ? TRIPLE_ROWS : BUNDLE_ROWS, tall = (run + most - 1) / most;
    t.tap = run * VL;
    for (int64_t i = 0; i < t.segments; i++, sums += (k->triple ? 3 : 1) * run * VL) {
        t.a = a + t.segment[i];
        t.sums = sums;
        for (int64_t number = 0; number < tall; number++) {
            const int64_t high = run / tall + (number < run % tall);
            bundle_tiles[k->level][1][k->triple][high - 1](&t);
            t.a += high * k->side;
            t.sums += high * VL;
        }
    }
}

/* dw (window, c, F) of all groups, where p, whose y are the gradients, is the first one. The sum over pixels is cut into
 * parts; the later ones go to `workspace`. */
static void gradient_groups(const struct correlation *p, int64_t groups, int64_t parts, float *dw, float *workspace,
                            const struct lane *lane)
{
    const struct axis *d = &p->axis[AXIS_D], *h = &p->axis[AXIS_H], *w = &p->axis[AXIS_W];
    const struct bundles k = bundles_of(p, groups);
    const int64_t outputs = k.taps * k.c, rows = p->n * d->out * h->out;
    int64_t ranges = ranges_of(&k);
    const int64_t most = (k.count + ranges - 1) / ranges, pixels = BUNDLE_FLOATS / (most * VL);
    struct cut cut = cut_bundles(&k, most);
    if (cut.width > pixels) cut.width = pixels;
    if (cut.rows * cut.width > pixels) cut.rows = pixels / cut.width;
    while (parts * ranges < lane->count && ranges * 2 <= k.count) ranges *= 2;
    float *memory = lane->scratch, *packed = memory + BUNDLE_SPACE, *sums = packed + BUNDLE_SPACE;
    int64_t *segment = (int64_t *)(sums + PACKED_FLOATS);
    for (int64_t task = lane->id; task < parts * ranges; task += lane->count) {
        const int64_t part = task / ranges, range = task % ranges;
        const int64_t first = range * k.count / ranges, last = (range + 1) * k.count / ranges;
        const int64_t end = (part + 1) * rows / parts;
        memset(sums, 0, (size_t)((last - first) * k.panel) * sizeof *sums);
        for (int64_t row = part * rows / parts; row < end;) {
            struct block b = rows_from(p, row, end, cut.rows);
            row += b.h1 - b.h0;
            for (b.w0 = 0; b.w0 < w->out; b.w0 = b.w1) {
                b.w1 = b.w0 + cut.width < w->out ? b.w0 + cut.width : w->out;
                const struct distances s = distances_of(&k, &b);
                struct bundle_tile t = {.stride = w->step * s.pixel, .segment = segment,
                                        .segments = list_segments(&k, &s, segment), .lines = b.h1 - b.h0,
                                        .a_line = h->step * s.line, .width = b.w1 - b.w0};
                copy_rows(&k, &b, &s, first, last, 0, reach(h, t.lines), memory);
                pack_gradients(&k, &b, first, last, packed);
                for (int64_t n = 0; n < last - first; n++) {
                    t.b = packed + n * t.lines * t.width * VL;
                    gradient_bundle(&k, memory + n * s.bundle, t, sums + n * k.panel);
                }
            }
        }
        float *to = part ? workspace + (part - 1) * outputs * p->ldw : dw;
        for (int64_t bundle = first; bundle < last; bundle++)
            for (int64_t i = 0; i < outputs; i++) {
                const vf v = v_pick(v_load(sums + (bundle - first) * k.panel + i * VL), k.to_outputs);
                v_store_n(to + i * p->ldw + bundle * k.side * k.f, v, groups_in(&k, bundle) * k.f);
            }
    }
}
