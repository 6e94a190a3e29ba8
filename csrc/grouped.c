/* Convolution in groups of few filters: filters of several groups are side by side in a vector's lanes, a "bundle".
 *
 * Each group reads channels of its own. So the band of inputs is expanded for a bundle: for each pixel, and each c of the
 * channels of a group, a vector whose lanes have channel c of their group. Then a product's microkernel does the work that
 * takes vectors where others take single numbers; an expanded vector serves all elements of the window. Rows are expanded
 * when the outputs first need them, and a strip of outputs is so narrow that those in use stay in the first-level cache. */

enum {
    EXPANDED_FLOATS = 256 << 10, /* of a block's inputs */
    NEAR_FLOATS = 8 << 10,       /* of the rows in use */
};
_Static_assert(sizeof(float) * (EXPANDED_FLOATS + (size_t)PACKED_FLOATS + NR * NEAR_FLOATS) <= TEAM_SCRATCH, "they fit in the scratch");

/* How groups of f filters and c channels share a vector. */
struct bundle {
    int64_t groups, f, c;
    vi lane;     /* channel 0 of each lane's group, where all channels fit in a vector */
    vm from[VL]; /* lanes of group i and those that follow */
};

static struct bundle bundle_of(const struct correlation *p, int64_t groups)
{
    struct bundle k = {.groups = VL / p->f < groups ? VL / p->f : groups, .f = p->f, .c = p->c};
    float group[VL];
    int32_t lane[VL];
    for (int64_t l = 0; l < VL; l++) {
        const int64_t i = l / k.f < k.groups ? l / k.f : k.groups - 1;
        group[l] = (float)i;
        lane[l] = (int32_t)(i * k.c);
    }
    memcpy(&k.lane, lane, sizeof lane);
    for (int64_t i = 0; i < k.groups; i++) k.from[i] = v_less(v_set((float)i - 0.5f), v_load(group));
    return k;
}

/* Vectors of an output's window, if w outputs lie side by side; see `reach`. */
static int64_t row_floats(const struct correlation *p, int64_t w)
{
    return p->axis[AXIS_D].taps * reach(&p->axis[AXIS_W], w) * p->c * VL;
}

/* Whether groups, of which this is one, are done side by side. */
static int groups_fit(const struct correlation *p, int64_t groups)
{
    const struct axis *d = &p->axis[AXIS_D], *h = &p->axis[AXIS_H], *w = &p->axis[AXIS_W];
    const int64_t width = w->out < LANE_ROWS ? w->out : LANE_ROWS;
    return groups > 1 && p->f && p->f <= VL && row_floats(p, width) * reach(h, 1) <= EXPANDED_FLOATS
           && d->taps * h->taps * w->taps * p->c * VL <= PACKED_FLOATS;
}

/* ---- expanding ---- */

/* A block and the bundle that is worked on; rows of it that are expanded. */
struct expanded {
    struct block block;
    struct band band;
    int64_t first, groups; /* of the bundle */
    int64_t line, plane, ready;
    float *memory;
};

/* to (c, VL) = the channels of `groups` groups, side by side from `from` on */
INLINE void expand_pixel(const struct bundle *k, float *to, const float *from, int64_t groups)
{
    if (k->groups > 1 && k->groups * k->c <= VL) {
        const vf all = v_load_n(from, groups * k->c);
        vi lane = k->lane;
        for (int64_t c = 0; c < k->c; c++, lane = v_iadd(lane, v_iset(1))) v_store(to + c * VL, v_pick(all, lane));
        return;
    }
    for (int64_t c = 0; c < k->c; c++) {
        vf v = v_set(from[c]);
        for (int64_t i = 1; i < groups; i++) v = v_select(k->from[i], v_set(from[i * k->c + c]), v);
        v_store(to + c * VL, v);
    }
}

/* Begins with a block. */
static struct expanded expand(const struct correlation *p, const struct bundle *k, struct block b, int64_t number,
                              int64_t groups, float *memory)
{
    const struct axis *d = &p->axis[AXIS_D], *h = &p->axis[AXIS_H], *w = &p->axis[AXIS_W];
    const int64_t pixel = k->c * VL, line = reach(w, b.w1 - b.w0) * pixel, plane = reach(h, b.h1 - b.h0) * line;
    const int64_t first = number * k->groups;
    struct expanded e = {.block = b, .band = {.segments = d->taps * h->taps, .lanes = 1}, .first = first,
                         .groups = groups - first < k->groups ? groups - first : k->groups, .line = line, .plane = plane,
                         .memory = memory};
    lay_out(p, &e.band, pixel, line, plane);
    return e;
}

/* Goes on to rows h0 .. h1 - 1 of outputs: their band. */
static const struct band *expand_rows(const struct correlation *p, const struct bundle *k, struct expanded *e, int64_t h0,
                                      int64_t h1)
{
    const struct axis *d = &p->axis[AXIS_D], *h = &p->axis[AXIS_H], *w = &p->axis[AXIS_W];
    const struct block *b = &e->block;
    const int64_t width = reach(w, b->w1 - b->w0), pixel = k->c * VL, first = b->w0 * w->step + w->first;
    for (const int64_t rows = reach(h, h1 - b->h0); e->ready < rows; e->ready++) {
        for (int64_t j = 0; j < d->taps; j++) {
            const float *from = input_row(p, b->n, b->d * d->step + d->first + j * d->spacing,
                                          b->h0 * h->step + h->first + e->ready);
            float *to = e->memory + j * e->plane + e->ready * e->line;
            int64_t begin, end;
            pixels_there(from, first, width, w->size, &begin, &end);
            memset(to, 0, (size_t)(begin * pixel) * sizeof *to);
            for (int64_t i = begin; i < end; i++)
                expand_pixel(k, to + i * pixel, from + (first + i) * p->ldx + e->first * k->c, e->groups);
            memset(to + end * pixel, 0, (size_t)((width - end) * pixel) * sizeof *to);
        }
    }
    e->band.base = e->memory + (h0 - b->h0) * e->band.row;
    return &e->band;
}

/* Strips so narrow that the rows in use fit, but not narrower than a tile, and rows of a block. */
static struct cut cut_strips(const struct correlation *p)
{
    const struct axis *h = &p->axis[AXIS_H], *w = &p->axis[AXIS_W];
    struct cut cut = {h->out, w->out};
    for (int64_t strips = 1; cut.width > LANE_ROWS && row_floats(p, cut.width) * reach(h, 1) > NEAR_FLOATS; strips++)
        cut.width = (w->out + strips - 1) / strips;
    while (cut.rows > 1 && row_floats(p, cut.width) * reach(h, cut.rows) > EXPANDED_FLOATS) cut.rows = (cut.rows + 1) / 2;
    return cut;
}

/* ---- outputs ---- */

/* panel (elements of the window, c, VL) = the weights of a bundle */
static void pack_bundle(const struct correlation *p, const struct expanded *e, float *panel)
{
    const int64_t taps = p->axis[AXIS_D].taps * p->axis[AXIS_H].taps * p->axis[AXIS_W].taps;
    for (int64_t t = 0; t < taps; t++) {
        const float *from = tap_weights(p, t);
        for (int64_t c = 0; c < p->c; c++, panel += VL) {
            if (!p->turned) {
                v_store(panel, v_load_n(from + c * p->ldw + e->first * p->f, e->groups * p->f));
                continue;
            }
            v_store(panel, v_zero());
            for (int64_t i = 0; i < e->groups; i++)
                for (int64_t f = 0; f < p->f; f++)
                    panel[i * p->f + f] = from[f * p->ldw + (e->first + i) * p->c + c];
        }
    }
}

static void correlate_groups(const struct correlation *p, int64_t groups, const struct lane *lane)
{
    const struct axis *d = &p->axis[AXIS_D], *h = &p->axis[AXIS_H], *w = &p->axis[AXIS_W];
    const struct bundle k = bundle_of(p, groups);
    const int64_t bundles = (groups + k.groups - 1) / k.groups, panel_floats = d->taps * h->taps * w->taps * p->c * VL;
    const int once = bundles * panel_floats <= PACKED_FLOATS;
    float *memory = lane->scratch, *packed = memory + EXPANDED_FLOATS;
    if (p->n * d->out * h->out * w->out == 0) return;
    struct cut cut = cut_strips(p);
    const int64_t wide = (w->out + cut.width - 1) / cut.width;
    while (cut.rows > 4 && p->n * d->out * ((h->out + cut.rows - 1) / cut.rows) * wide * bundles < 2 * lane->count)
        cut.rows = (cut.rows + 1) / 2;
    const int64_t high = (h->out + cut.rows - 1) / cut.rows;
    int packs = 0;
    for (int64_t task = lane->id; task < p->n * d->out * high * wide * bundles; task += lane->count) {
        int64_t t = task / bundles;
        struct block b;
        b.w0 = t % wide * w->out / wide, b.w1 = (t % wide + 1) * w->out / wide, t /= wide;
        b.h0 = t % high * h->out / high, b.h1 = (t % high + 1) * h->out / high, t /= high;
        b.d = t % d->out, b.n = t / d->out;
        for (int64_t i = 0; once && !packs && i < bundles; i++) {
            const struct expanded e = expand(p, &k, b, i, groups, memory);
            pack_bundle(p, &e, packed + i * panel_floats);
        }
        packs = 1;
        struct expanded e = expand(p, &k, b, task % bundles, groups, memory);
        float *panel = packed + (once ? task % bundles * panel_floats : 0);
        if (!once) pack_bundle(p, &e, panel);
        for (int64_t row = b.h0; row < b.h1; row++) {
            struct block one = b;
            one.h0 = row, one.h1 = row + 1;
            correlate_block(p, &one, expand_rows(p, &k, &e, row, row + 1), panel, e.first * k.f, e.groups * k.f, 1, 1);
        }
    }
}

/* ---- the weights' gradient ---- */

/* All groups of what is given for the first one. The sum over pixels is cut into `parts`. */
static void gradient_groups(const struct gradient *given, int64_t groups, int64_t parts, const struct step *s,
                            const struct lane *lane)
{
    struct gradient q = *given;
    struct correlation *p = &q.p;
    const struct axis *d = &p->axis[AXIS_D], *h = &p->axis[AXIS_H], *w = &p->axis[AXIS_W];
    const struct bundle k = bundle_of(p, groups);
    const int64_t bundles = (groups + k.groups - 1) / k.groups, taps = d->taps * h->taps * w->taps;
    const int64_t outputs = taps * p->c, filters = p->ldw, rows = p->n * d->out * h->out;
    const int joined = w->spacing == 1 || w->taps == 1;
    const struct cut cut = cut_strips(p);
    int64_t at_once = 1; /* rows */
    while (at_once < cut.rows && row_floats(p, cut.width) * reach(h, at_once + 1) <= NEAR_FLOATS) at_once++;
    q.runs = joined ? d->taps * h->taps : taps;
    q.run_rows = joined ? w->taps * p->c : p->c;
    q.tiles = (q.run_rows + LANE_ROWS - 1) / LANE_ROWS;
    q.units = q.runs * q.tiles;
    p->ldw = VL;
    int64_t shares = 1; /* of the units, where there are fewer parts than lanes */
    while (parts * bundles * shares < lane->count && shares * 2 <= q.units) shares *= 2;
    float *memory = lane->scratch, *sums = memory + EXPANDED_FLOATS;
    for (int64_t task = lane->id; task < parts * bundles * shares; task += lane->count) {
        const int64_t share = task % shares, number = task / shares % bundles, part = task / shares / bundles;
        const int64_t u0 = share * q.units / shares, u1 = (share + 1) * q.units / shares;
        struct expanded e = expand(p, &k, (struct block){0}, number, groups, memory);
        const int64_t f0 = e.first * k.f, end = (part + 1) * rows / parts;
        p->f = e.groups * k.f;
        p->y = given->p.y + f0;
        memset(sums, 0, (size_t)(outputs * VL) * sizeof *sums);
        for (int64_t row = part * rows / parts; row < end;) {
            struct block b = {.n = row / h->out / d->out, .d = row / h->out % d->out, .h0 = row % h->out};
            b.h1 = b.h0 + cut.rows < h->out ? b.h0 + cut.rows : h->out;
            if (b.h1 - b.h0 > end - row) b.h1 = b.h0 + end - row;
            row += b.h1 - b.h0;
            for (b.w0 = 0; b.w0 < w->out; b.w0 = b.w1) {
                b.w1 = b.w0 + cut.width < w->out ? b.w0 + cut.width : w->out;
                e = expand(p, &k, b, number, groups, memory);
                for (struct block some = b; some.h0 < b.h1; some.h0 = some.h1) {
                    some.h1 = some.h0 + at_once < b.h1 ? some.h0 + at_once : b.h1;
                    const struct band *band = expand_rows(p, &k, &e, some.h0, some.h1);
                    gradient_block(&q, &some, band, sums, sums + outputs * VL, u0, u1, 0, q.runs, 0);
                }
            }
        }
        float *dw = part ? (float *)s->workspace + (part - 1) * outputs * filters : (float *)s->out[0].data;
        for (int64_t i = unit_row(&q, u0); i < unit_row(&q, u1); i++)
            v_store_n(dw + i * filters + f0, v_load(sums + i * VL), p->f);
    }
}
