/* Convolution by direct summation, for all that is not done faster otherwise: strides, dilations, groups, few channels.
 * N batch, D H W space, C channels, F filters, K = KD * KH * KW * C numbers summed for each output.
 *
 * Nothing is unrolled into a large matrix. A block of outputs needs a band of the input; it is copied to the lane's scratch
 * memory with the zeros around it (or read where it lies, if none are needed). There the inputs of a run of pixels lie at
 * one distance, and for each row of the window KW * C numbers side by side: so the product's microkernel does the work,
 * with A in segments, one a row of the window, and B the weights, packed in panels. Where the band would be too large, it
 * holds the windows' elements one after the other instead (the window dilated far, or very large).
 *
 * The gradient of the input is the same with the weights turned round; with strides, it falls into phases, each of which
 * sees only some of the window. The gradient of the weights is a product along the pixels.
 *
 * Groups are done one after the other, unless they have so few filters that several fit in a vector: see grouped.c. */
#include "window.h"

enum {
    BAND_FLOATS = 96 << 10,    /* of a block's inputs: they stay in the second-level cache */
    BAND_GRADIENT = 224 << 10, /* the same for the weights' gradient, which is read and written once a block */
    PACKED_FLOATS = 2 << 20,   /* of packed weights */
    WEIGHTS_NEAR = 192 << 10,  /* packed weights that stay in the second-level cache */
};
_Static_assert(sizeof(float) * (BAND_GRADIENT + (size_t)PACKED_FLOATS + 4096) <= TEAM_SCRATCH, "they fit in the scratch");

/* What happens to an output before it is stored. */
struct finish {
    const float *bias; /* (F) or NULL */
    int32_t activation;
    const float *dx_of; /* like the outputs, or NULL: multiply by the slope of `activation` where its output is this */
};

/* Along one axis: output q reads the inputs q * step + first + j * spacing, j < taps, with the window's elements tap + j *
 * tap_step, and stands at q * to_step + to_first. */
struct axis {
    int64_t size, out, taps, step, first, spacing, tap, tap_step, to_step, to_first;
};

/* y (N, OD, OH, OW, F of ldy) = x (N, D, H, W, C of ldx) under a window */
struct correlation {
    struct axis axis[MAX_SPACE];
    int64_t n, c, ldx, f, ldy;
    const float *x;
    float *y;
    int64_t y_size[MAX_SPACE];
    const float *w; /* element (tap, c, f) at tap * tap_floats + c * ldw + f, or with `turned` at tap * tap_floats + f * ldw + c */
    int64_t tap_floats, ldw, kernel[MAX_SPACE];
    int turned;
    struct finish end;
};

/* The inputs of a block of outputs, as the microkernel reads them: pixel q of row r of the block starts at
 * base + r * row + q * pixel; there are `segments` of k numbers for it. */
struct band {
    const float *base;
    int64_t pixel, row;
    int64_t k, segments, turn, bend, skip, turn_skip, bend_skip;
};

/* A block: outputs h0 .. h1, w0 .. w1 of plane d of image n. */
struct block {
    int64_t n, d, h0, h1, w0, w1;
};

static int64_t reach(const struct axis *a, int64_t outputs) /* inputs from the first to the last that they read */
{
    return outputs && a->taps ? (outputs - 1) * a->step + (a->taps - 1) * a->spacing + 1 : 0;
}

/* Of pixels first .. first + width - 1 of a row `from` (or NULL) those that are there: a .. b - 1, counted from the first. */
static void pixels_there(const float *from, int64_t first, int64_t width, int64_t size, int64_t *a, int64_t *b)
{
    *a = first < 0 ? -first : 0, *b = size - first < width ? size - first : width;
    if (!from || *b < *a) *a = *b = width;
}

/* to (width, c) = row `from` of pixels first .. first + width - 1, zeros outside of 0 .. size - 1; NULL: all zeros */
static void copy_line(float *to, const float *from, int64_t first, int64_t width, int64_t size, int64_t c, int64_t ld)
{
    int64_t a, b;
    pixels_there(from, first, width, size, &a, &b);
    memset(to, 0, (size_t)(a * c) * sizeof *to);
    if (c == ld) {
        if (b > a) memcpy(to + a * c, from + (first + a) * c, (size_t)((b - a) * c) * sizeof *to);
    } else if (c <= VL) { /* whole vectors are stored: the next pixel puts right what was too much */
        for (int64_t i = a; i < b; i++) v_store(to + i * c, v_load_n(from + (first + i) * ld, c));
    } else {
        for (int64_t i = a; i < b; i++) copy_row(to + i * c, from + (first + i) * ld, c);
    }
    memset(to + b * c, 0, (size_t)((width - b) * c) * sizeof *to);
}

static const float *input_row(const struct correlation *p, int64_t n, int64_t d, int64_t h)
{
    const int64_t size_d = p->axis[AXIS_D].size, size_h = p->axis[AXIS_H].size;
    if (d < 0 || d >= size_d || h < 0 || h >= size_h) return NULL;
    return p->x + ((n * size_d + d) * size_h + h) * p->axis[AXIS_W].size * p->ldx;
}

/* Whether all that the outputs low .. high - 1 read is there. */
static int inside(const struct axis *a, int64_t low, int64_t high)
{
    return low * a->step + a->first >= 0 && (high - 1) * a->step + a->first + (a->taps - 1) * a->spacing < a->size;
}

/* Describes, and where zeros have to be around it copies to `memory`, the inputs of a block of several rows. */
static struct band take_band(const struct correlation *p, const struct block *b, float *memory)
{
    const struct axis *d = &p->axis[AXIS_D], *h = &p->axis[AXIS_H], *w = &p->axis[AXIS_W];
    const int64_t d0 = b->d * d->step + d->first, h0 = b->h0 * h->step + h->first, w0 = b->w0 * w->step + w->first;
    const int64_t rows = reach(h, b->h1 - b->h0), width = reach(w, b->w1 - b->w0);
    int64_t line = width * p->c, plane = rows * line;
    struct band band = {.base = memory, .segments = d->taps * h->taps};
    if (band.segments == 0 || w->taps == 0) return band;
    if (p->c == p->ldx && inside(d, b->d, b->d + 1) && inside(h, b->h0, b->h1) && inside(w, b->w0, b->w1)) {
        band.base = input_row(p, b->n, d0, h0) + w0 * p->c;
        line = w->size * p->c;
        plane = d->spacing * h->size * line;
    } else {
        for (int64_t j = 0; j < d->taps; j++)
            for (int64_t i = 0; i < rows; i++)
                copy_line(memory + j * plane + i * line, input_row(p, b->n, d0 + j * d->spacing, h0 + i), w0, width, w->size,
                          p->c, p->ldx);
    }
    band.pixel = w->step * p->c;
    band.row = h->step * line;
    if (w->spacing == 1 || w->taps == 1) { /* a row of the window lies side by side */
        band.k = w->taps * p->c;
        band.skip = h->spacing * line;
        band.turn = h->taps;
        band.turn_skip = plane - h->taps * band.skip;
    } else {
        band.k = p->c;
        band.segments *= w->taps;
        band.skip = w->spacing * p->c;
        band.turn = w->taps;
        band.turn_skip = h->spacing * line - w->taps * band.skip;
        band.bend = h->taps;
        band.bend_skip = plane - h->taps * h->spacing * line;
    }
    return band;
}

/* The elements t0 .. t1 - 1 of the windows of a block of one row, channels c0 .. c0 + c - 1, one after the other. */
static struct band take_elements(const struct correlation *p, const struct block *b, int64_t t0, int64_t t1, int64_t c0,
                                 int64_t c, float *memory)
{
    const struct axis *d = &p->axis[AXIS_D], *h = &p->axis[AXIS_H], *w = &p->axis[AXIS_W];
    const int64_t width = b->w1 - b->w0;
    for (int64_t t = t0; t < t1; t++) {
        const int64_t jd = t / w->taps / h->taps, jh = t / w->taps % h->taps, jw = t % w->taps;
        const float *row = input_row(p, b->n, b->d * d->step + d->first + jd * d->spacing,
                                     b->h0 * h->step + h->first + jh * h->spacing);
        float *to = memory + (t - t0) * width * c;
        for (int64_t q = 0; q < width; q++) {
            const int64_t at = (b->w0 + q) * w->step + w->first + jw * w->spacing;
            copy_line(to + q * c, row ? row + c0 : NULL, at, 1, w->size, c, p->ldx);
        }
    }
    return (struct band){.base = memory, .pixel = c, .k = c, .segments = t1 - t0, .skip = width * c};
}

/* The weights of window element t. */
static const float *tap_weights(const struct correlation *p, int64_t t)
{
    const struct axis *d = &p->axis[AXIS_D], *h = &p->axis[AXIS_H], *w = &p->axis[AXIS_W];
    const int64_t kd = d->tap + t / w->taps / h->taps * d->tap_step, kh = h->tap + t / w->taps % h->taps * h->tap_step;
    const int64_t kw = w->tap + t % w->taps * w->tap_step;
    return p->w + ((kd * p->kernel[AXIS_H] + kh) * p->kernel[AXIS_W] + kw) * p->tap_floats;
}

/* panel = the weights of window elements t0 .. t1 - 1 and channels c0 .. c0 + c - 1 for `columns` filters from f0 on. */
static void pack_weights(const struct correlation *p, float *panel, int64_t t0, int64_t t1, int64_t c0, int64_t c,
                         int64_t f0, int64_t columns)
{
    for (int64_t t = t0; t < t1; t++, panel += c * NR) {
        const float *from = tap_weights(p, t);
        if (p->turned) pack_transposed(panel, NR, from + f0 * p->ldw + c0, p->ldw, c, columns);
        else pack(panel, from + c0 * p->ldw + f0, p->ldw, c, columns);
    }
}

/* The pixel of y where a row of outputs begins, were it not for to_first along W. */
static int64_t output_row(const struct correlation *p, const struct block *b, int64_t row)
{
    const struct axis *d = &p->axis[AXIS_D], *h = &p->axis[AXIS_H];
    return ((b->n * p->y_size[AXIS_D] + b->d * d->to_step + d->to_first) * p->y_size[AXIS_H] + row * h->to_step + h->to_first)
           * p->y_size[AXIS_W];
}

/* Filters f0 .. f0 + columns - 1 of a block from its band: first and last say which of the sums' passes this is. */
static void correlate_block(const struct correlation *p, const struct block *b, const struct band *band,
                            const float *panel, struct ahead *ahead, int64_t f0, int64_t columns, int first, int last)
{
    const struct axis *w = &p->axis[AXIS_W];
    const int64_t width = b->w1 - b->w0, tall = (width + MR - 1) / MR, vectors = (columns + VL - 1) / VL;
    const int relu = p->end.activation == ACT_relu, activation = last ? p->end.activation : ACT_linear;
    for (int64_t row = b->h0; row < b->h1; row++) {
        const int64_t y_row = output_row(p, b, row);
        for (int64_t number = 0, q = 0, high; number < tall; number++, q += high) {
            high = width / tall + (number < width % tall);
            const int64_t at = (y_row + (b->w0 + q) * w->to_step + w->to_first) * p->ldy + f0;
            const struct tile t = {
                .k = band->k,
                .a = band->base + (row - b->h0) * band->row + q * band->pixel,
                .stride = band->pixel,
                .b = panel,
                .ldb = NR,
                .c = p->y + at,
                .ldc = w->to_step * p->ldy,
                .last = columns - (vectors - 1) * VL,
                .first = first,
                .far = 1,
                .relu = last && !p->end.dx_of && relu,
                .bias = last && p->end.bias ? p->end.bias + f0 : NULL,
                .gate = last && p->end.dx_of && relu ? p->end.dx_of + at : NULL,
                .segments = band->segments,
                .turn = band->turn,
                .bend = band->bend,
                .skip = band->skip,
                .turn_skip = band->turn_skip,
                .bend_skip = band->bend_skip,
                .fetch = take_lines(ahead, band->k * band->segments),
            };
            tiles[t.fetch ? SEGMENTS_FETCHING : SEGMENTS_ALONG_K][vectors - 1][high - 1](&t);
            if (relu || !activation) continue;
            for (int64_t i = 0; i < high; i++) {
                if (p->end.dx_of) activate_dx_rows(activation, t.c + i * t.ldc, p->end.dx_of + at + i * t.ldc, columns);
                else activate_rows(activation, t.c + i * t.ldc, columns);
            }
        }
    }
}

/* How the outputs are cut into blocks: rows and columns of one. 0 rows: the band of one row would be too large. */
struct cut {
    int64_t rows, width;
};

static struct cut cut_blocks(const struct correlation *p, int64_t floats)
{
    const struct axis *d = &p->axis[AXIS_D], *h = &p->axis[AXIS_H], *w = &p->axis[AXIS_W];
    struct cut cut = {h->out, w->out};
    while (cut.width > 4 * MR && d->taps * reach(h, 1) * reach(w, cut.width) * p->c > floats) cut.width = (cut.width + 1) / 2;
    if (cut.width < w->out) cut.rows = 1;
    while (cut.rows > 0 && d->taps * reach(h, cut.rows) * reach(w, cut.width) * p->c > floats) cut.rows /= 2;
    return cut;
}

/* Block t of those that make up the outputs, `high` x `wide` of them a plane. */
static struct block block_at(const struct correlation *p, int64_t high, int64_t wide, int64_t t)
{
    const struct axis *d = &p->axis[AXIS_D], *h = &p->axis[AXIS_H], *w = &p->axis[AXIS_W];
    struct block b;
    b.w0 = t % wide * w->out / wide, b.w1 = (t % wide + 1) * w->out / wide, t /= wide;
    b.h0 = t % high * h->out / high, b.h1 = (t % high + 1) * h->out / high, t /= high;
    b.d = t % d->out, b.n = t / d->out;
    return b;
}

/* The rows of the input that block t needs of the first plane it sees. */
static struct ahead input_ahead(const struct correlation *p, int64_t high, int64_t wide, int64_t t)
{
    const struct axis *d = &p->axis[AXIS_D], *h = &p->axis[AXIS_H];
    const struct block b = block_at(p, high, wide, t);
    int64_t d0 = b.d * d->step + d->first, h0 = b.h0 * h->step + h->first, h1 = h0 + reach(h, b.h1 - b.h0);
    if (d0 < 0) d0 = 0;
    if (h0 < 0) h0 = 0;
    if (h1 > h->size) h1 = h->size;
    const int64_t floats = p->axis[AXIS_W].size * p->ldx;
    if (d0 >= d->size || h0 >= h1) return (struct ahead){.next = 2};
    return (struct ahead){.part = {{p->x + ((b.n * d->size + d0) * h->size + h0) * floats, (h1 - h0) * floats / CACHE_LINE}}};
}

static void correlate(const struct correlation *p, const struct lane *lane)
{
    const struct axis *d = &p->axis[AXIS_D], *h = &p->axis[AXIS_H], *w = &p->axis[AXIS_W];
    const int64_t taps = d->taps * h->taps * w->taps, panels = (p->f + NR - 1) / NR, panel_floats = taps * p->c * NR;
    if (p->n * d->out * h->out * w->out == 0) return;
    struct cut cut = cut_blocks(p, BAND_FLOATS);
    const int apart = cut.rows == 0 || panel_floats > PACKED_FLOATS; /* the window's elements, one after the other */
    if (apart) cut = (struct cut){1, w->out < 4 * MR ? w->out : 4 * MR};
    while (cut.rows > 4 && p->n * d->out * ((h->out + cut.rows - 1) / cut.rows) < 2 * lane->count) cut.rows = (cut.rows + 1) / 2;
    /* A pass sums so many elements and channels; it is one but for huge windows. */
    const int64_t c_most = PACKED_FLOATS / 2 / NR < BAND_FLOATS ? PACKED_FLOATS / 2 / NR : BAND_FLOATS;
    const int64_t c_pass = p->c < c_most ? p->c : c_most;
    int64_t t_pass = taps;
    if (apart) {
        while (cut.width > 1 && cut.width * c_pass > BAND_FLOATS) cut.width = (cut.width + 1) / 2;
        t_pass = BAND_FLOATS / (cut.width * c_pass) > 1 ? BAND_FLOATS / (cut.width * c_pass) : 1;
        if (t_pass * c_pass * NR > PACKED_FLOATS) t_pass = PACKED_FLOATS / (c_pass * NR);
    }
    const int64_t high = (h->out + cut.rows - 1) / cut.rows, wide = (w->out + cut.width - 1) / cut.width;
    const int64_t blocks = p->n * d->out * high * wide;
    int64_t groups = 1;
    while (blocks * groups < lane->count && groups * 2 <= panels) groups *= 2;
    float *memory = lane->scratch, *packed = memory + BAND_FLOATS + 64;
    const int once = !apart && panel_floats * panels <= PACKED_FLOATS; /* all weights are packed, once */
    const int far = once && panel_floats * panels > WEIGHTS_NEAR; /* weights are fetched, else the next block's inputs */
    int64_t ready = -1;
    for (int64_t task = lane->id; task < blocks * groups; task += lane->count) {
        const int64_t p0 = task % groups * panels / groups, p1 = (task % groups + 1) * panels / groups;
        const struct block b = block_at(p, high, wide, task / groups);
        struct ahead ahead = {.next = 2};
        if (!far && task + lane->count < blocks * groups) ahead = input_ahead(p, high, wide, (task + lane->count) / groups);
        if (once && ready != task % groups) {
            for (int64_t panel = p0; panel < p1; panel++)
                pack_weights(p, packed + (panel - p0) * panel_floats, 0, taps, 0, p->c, panel * NR,
                             p->f - panel * NR < NR ? p->f - panel * NR : NR);
            ready = task % groups;
        }
        for (int64_t c0 = 0; c0 < p->c; c0 += c_pass)
            for (int64_t t0 = 0; t0 == 0 || t0 < taps; t0 += t_pass) {
                const int64_t c = p->c - c0 < c_pass ? p->c - c0 : c_pass, t1 = taps - t0 < t_pass ? taps : t0 + t_pass;
                const struct band band = apart ? take_elements(p, &b, t0, t1, c0, c, memory) : take_band(p, &b, memory);
                for (int64_t panel = p0; panel < p1; panel++) {
                    const int64_t columns = p->f - panel * NR < NR ? p->f - panel * NR : NR;
                    float *weights = once ? packed + (panel - p0) * panel_floats : packed;
                    if (!once) pack_weights(p, weights, t0, t1, c0, c, panel * NR, columns);
                    if (far) { /* the next panel, after the last one the first */
                        const float *next = packed + (panel + 1 < p1 ? panel + 1 - p0 : 0) * panel_floats;
                        ahead = (struct ahead){.part = {{next, panel_floats / CACHE_LINE}}};
                    }
                    correlate_block(p, &b, &band, weights, &ahead, panel * NR, columns, t0 == 0 && c0 == 0,
                                    t1 == taps && c0 + c == p->c);
                }
                if (taps == 0) break;
            }
    }
}

/* ---- the ops; groups of few filters are done side by side, by grouped.c ---- */

static int groups_fit(const struct correlation *p, int64_t groups);
static void correlate_groups(const struct correlation *p, int64_t groups, const struct lane *lane);
static void gradient_groups(const struct correlation *p, int64_t groups, int64_t parts, float *dw, float *workspace,
                            const struct lane *lane);

/* The window's size from w (*kernel, C, F). */
static void kernel_sizes(int64_t *kernel, const struct tensor *w)
{
    for (int a = 0; a < MAX_SPACE; a++) {
        const int axis = a - MAX_SPACE + w->rank - 2;
        kernel[a] = axis >= 0 ? w->size[axis] : 1;
    }
}

static void convolve(const struct step *s, struct finish end, const struct lane *lane)
{
    const struct tensor *x = &s->in[0], *w = &s->in[1], *y = &s->out[0];
    const struct window g = window_of(x, y, &s->attr);
    const int64_t groups = s->attr.groups, c = g.c / groups, filters = w->size[w->rank - 1], f = filters / groups;
    for (int64_t group = 0; group < groups; group++) {
        struct correlation p = {
            .n = g.n, .c = c, .ldx = pitch_of(x), .f = f, .ldy = pitch_of(y),
            .x = (const float *)x->data + group * c, .y = (float *)y->data + group * f,
            .w = (const float *)w->data + group * f, .tap_floats = c * filters, .ldw = filters, .end = end,
        };
        kernel_sizes(p.kernel, w);
        for (int a = 0; a < MAX_SPACE; a++) {
            p.y_size[a] = g.out[a];
            p.axis[a] = (struct axis){.size = g.size[a], .out = g.out[a], .taps = p.kernel[a], .step = g.stride[a],
                                      .first = -g.before[a], .spacing = g.dilation[a], .tap_step = 1, .to_step = 1};
        }
        if (groups_fit(&p, groups)) {
            correlate_groups(&p, groups, lane);
            break;
        }
        if (end.bias) p.end.bias = end.bias + group * f;
        correlate(&p, lane);
    }
}

/* y (N, ..., F) = x (N, ..., C) * w (*kernel, C / groups, F) */
static void kernel_conv(const struct step *s, const struct lane *lane)
{
    convolve(s, (struct finish){.activation = ACT_linear}, lane);
}

/* y = activation(x * w + b) */
static void kernel_fused_conv(const struct step *s, const struct lane *lane)
{
    const struct finish end = {.bias = s->inputs > 2 ? s->in[2].data : NULL, .activation = s->attr.activation};
    convolve(s, end, lane);
}

/* The axis of phase r: outputs r, r + stride, ... of `size`, gradients `out`. Element k of the window met output i = o *
 * stride + k * dilation - before; so in phase r those k with r + before - k * dilation divisible by the stride, the last
 * one first. */
static struct axis phase_axis(int64_t size, int64_t out, int64_t kernel, int64_t stride, int64_t dilation, int64_t before,
                              int64_t r)
{
    struct axis a = {.size = out, .out = size > r ? (size - r + stride - 1) / stride : 0, .step = 1, .to_step = stride,
                     .to_first = r, .spacing = 1};
    int64_t divisor = stride, other = dilation;
    while (other) {
        const int64_t rest = divisor % other;
        divisor = other;
        other = rest;
    }
    const int64_t every = stride / divisor;
    int64_t first = 0;
    while (first < every && first < kernel && (r + before - first * dilation) % stride) first++;
    if (first >= every || first >= kernel) return a;
    a.taps = (kernel - first + every - 1) / every;
    a.tap = first + (a.taps - 1) * every;
    a.tap_step = -every;
    a.spacing = dilation / divisor;
    a.first = (r + before - a.tap * dilation) / stride;
    return a;
}

static void convolve_dx(const struct step *s, struct finish end, const struct lane *lane)
{
    const struct tensor *dy = &s->in[0], *w = &s->in[1], *x = &s->out[0];
    const struct window g = window_of(x, dy, &s->attr);
    const int64_t groups = s->attr.groups, c = g.c / groups, filters = w->size[w->rank - 1], f = filters / groups;
    int64_t kernel[MAX_SPACE], phases[MAX_SPACE];
    kernel_sizes(kernel, w);
    for (int a = 0; a < MAX_SPACE; a++) phases[a] = g.stride[a] < g.size[a] ? g.stride[a] : g.size[a];
    for (int64_t phase = 0; phase < phases[AXIS_D] * phases[AXIS_H] * phases[AXIS_W]; phase++) {
        const int64_t r[MAX_SPACE] = {phase / phases[AXIS_W] / phases[AXIS_H], phase / phases[AXIS_W] % phases[AXIS_H],
                                      phase % phases[AXIS_W]};
        for (int64_t group = 0; group < groups; group++) {
            struct correlation p = {
                .n = g.n, .c = f, .ldx = filters, .f = c, .ldy = pitch_of(x),
                .x = (const float *)dy->data + group * f, .y = (float *)x->data + group * c,
                .w = (const float *)w->data + group * f, .tap_floats = c * filters, .ldw = filters, .turned = 1, .end = end,
            };
            for (int a = 0; a < MAX_SPACE; a++) {
                p.kernel[a] = kernel[a];
                p.y_size[a] = g.size[a];
                p.axis[a] = phase_axis(g.size[a], g.out[a], kernel[a], g.stride[a], g.dilation[a], g.before[a], r[a]);
            }
            if (groups_fit(&p, groups)) {
                correlate_groups(&p, groups, lane);
                break;
            }
            if (end.bias) p.end.bias = end.bias + group * c;
            if (end.dx_of) p.end.dx_of = end.dx_of + group * c;
            correlate(&p, lane);
        }
    }
}

/* dx (N, ..., C) of dy (N, ..., F) and w */
static void kernel_conv_dx(const struct step *s, const struct lane *lane)
{
    convolve_dx(s, (struct finish){.activation = ACT_linear}, lane);
}

/* activation(dx + b) */
static void kernel_fused_conv_transpose(const struct step *s, const struct lane *lane)
{
    const struct finish end = {.bias = s->inputs > 2 ? s->in[2].data : NULL, .activation = s->attr.activation};
    convolve_dx(s, end, lane);
}

/* dx times the slope of the activation whose output is y (N, ..., C) */
static void kernel_fused_conv_dx(const struct step *s, const struct lane *lane)
{
    convolve_dx(s, (struct finish){.activation = s->attr.activation, .dx_of = s->in[2].data}, lane);
}

/* ---- the weights' gradient ---- */

/* The next rows of a sum over pixels, `most` of them, not beyond `end` and the plane; whole rows. */
static struct block rows_from(const struct correlation *p, int64_t row, int64_t end, int64_t most)
{
    const struct axis *d = &p->axis[AXIS_D], *h = &p->axis[AXIS_H];
    struct block b = {.n = row / h->out / d->out, .d = row / h->out % d->out, .h0 = row % h->out};
    b.h1 = b.h0 + most < h->out ? b.h0 + most : h->out;
    if (b.h1 - b.h0 > end - row) b.h1 = b.h0 + end - row;
    return b;
}

/* dw (elements of the window, c, f of ldw) [+]= inputs' * gradients of a block. Units of work: panels of filters, rows of
 * the window (single elements of it where they do not lie side by side), tiles of their rows; this does those of u0 .. u1
 * - 1 whose rows of the window are r0 .. r1 - 1, with which the band begins. */
struct gradient {
    struct correlation p; /* its y are the gradients, which are read */
    float *dw;
    int64_t units, runs, run_rows, tiles; /* runs of run_rows rows of dw, in so many tiles each; units = panels * runs * tiles */
};

static void gradient_block(const struct gradient *q, const struct block *b, const struct band *band, float *dw,
                           float *packed, int64_t u0, int64_t u1, int64_t r0, int64_t r1, int first)
{
    const struct correlation *p = &q->p;
    const int64_t width = b->w1 - b->w0;
    const float *g = p->y + (output_row(p, b, b->h0) + b->w0) * p->ldy;
    int64_t ready = -1;
    for (int64_t unit = u0; unit < u1; unit++) {
        const int64_t panel = unit / (q->runs * q->tiles), run = unit / q->tiles % q->runs, number = unit % q->tiles;
        const int64_t columns = p->f - panel * NR < NR ? p->f - panel * NR : NR, vectors = (columns + VL - 1) / VL;
        if (run < r0 || run >= r1) continue;
        const int64_t row = number * (q->run_rows / q->tiles) + (number < q->run_rows % q->tiles ? number : q->run_rows % q->tiles);
        const int64_t high = q->run_rows / q->tiles + (number < q->run_rows % q->tiles);
        const int64_t turns = band->turn ? run / band->turn : 0, bends = band->bend ? turns / band->bend : 0;
        const float *from = g + panel * NR;
        int64_t ld = p->ldy;
        /* whole vectors would reach into the next pixel, or the lines lie far apart */
        if (columns % VL || (p->ldy > NR && u1 - u0 > 4)) {
            if (ready != panel) {
                pack(packed, from, ld, (b->h1 - b->h0) * width, columns);
                ready = panel;
            }
            from = packed;
            ld = NR;
        }
        const struct tile t = {
            .k = width,
            .a = band->base + (run - r0) * band->skip + turns * band->turn_skip + bends * band->bend_skip + row,
            .stride = band->pixel,
            .b = from,
            .ldb = ld,
            .c = dw + (run * q->run_rows + row) * p->ldw + panel * NR,
            .ldc = p->ldw,
            .last = columns - (vectors - 1) * VL,
            .first = first,
            .segments = b->h1 - b->h0,
            .skip = band->row,
            .far = 1,
        };
        tiles[SEGMENTS_ALONG_ROWS][vectors - 1][high - 1](&t);
    }
}

/* dw (*kernel, C / groups, F) of x (N, ..., C) and dy (N, ..., F) */
static void kernel_conv_dw(const struct step *s, const struct lane *lane)
{
    enum { PIXELS = 2048 }; /* most of a block, whose gradients are in the second-level cache then */
    const struct tensor *x = &s->in[0], *dy = &s->in[1], *w = &s->out[0];
    const struct window g = window_of(x, dy, &s->attr);
    const int64_t groups = s->attr.groups, c = g.c / groups, filters = w->size[w->rank - 1], f = filters / groups;
    const int64_t outputs = elements(w) / filters, panels = (f + NR - 1) / NR;
    const int64_t units_16 = (outputs + 15) / 16 * ((filters + 31) / 32); /* as weight_parts in fastnn/ops/conv.py */
    const int64_t parts = units_16 >= 16 ? 1 : 16 / units_16 < 8 ? 16 / units_16 : 8;
    float *memory = lane->scratch, *packed = memory + BAND_GRADIENT + PACKED_FLOATS - PIXELS * NR;
    for (int64_t group = 0; group < groups; group++) {
        struct gradient q = {.p = {
            .n = g.n, .c = c, .ldx = g.c, .f = f, .ldy = filters,
            .x = (const float *)x->data + group * c, .y = (float *)dy->data + group * f, .ldw = filters,
        }};
        struct correlation *p = &q.p;
        kernel_sizes(p->kernel, w);
        for (int a = 0; a < MAX_SPACE; a++) {
            p->y_size[a] = g.out[a];
            p->axis[a] = (struct axis){.size = g.size[a], .out = g.out[a], .taps = p->kernel[a], .step = g.stride[a],
                                       .first = -g.before[a], .spacing = g.dilation[a], .tap_step = 1, .to_step = 1};
        }
        if (groups_fit(p, groups)) {
            gradient_groups(p, groups, parts, w->data, s->workspace, lane);
            break;
        }
        const struct axis *d = &p->axis[AXIS_D], *h = &p->axis[AXIS_H], *aw = &p->axis[AXIS_W];
        struct cut cut = cut_blocks(p, BAND_GRADIENT);
        const int64_t taps = d->taps * h->taps * aw->taps;
        const int single = cut.rows == 0; /* the band holds the elements of the window one after the other */
        const int joined = !single && (aw->spacing == 1 || aw->taps == 1);
        if (single) cut = (struct cut){1, BAND_GRADIENT / (taps * c) > 1 ? BAND_GRADIENT / (taps * c) : 1};
        const int64_t pass = taps * c <= BAND_GRADIENT ? taps : BAND_GRADIENT / c > 1 ? BAND_GRADIENT / c : 1;
        if (cut.width > aw->out) cut.width = aw->out;
        if (cut.width > PIXELS) cut.width = PIXELS;
        const int64_t pixels = PIXELS * f < BAND_GRADIENT / 2 ? PIXELS : BAND_GRADIENT / 2 / f;
        if (cut.rows * cut.width > pixels) cut.rows = pixels / cut.width > 1 ? pixels / cut.width : 1;
        q.runs = joined ? d->taps * h->taps : taps;
        q.run_rows = joined ? aw->taps * c : c;
        q.tiles = (q.run_rows + MR - 1) / MR;
        q.units = panels * q.runs * q.tiles;
        int64_t shares = 1; /* of the units, where there are fewer parts than lanes */
        while (parts * shares < lane->count && shares * 2 <= q.units) shares *= 2;
        const int64_t rows = g.n * d->out * h->out;
        for (int64_t task = lane->id; task < parts * shares; task += lane->count) {
            const int64_t part = task / shares, share = task % shares;
            const int64_t u0 = share * q.units / shares, u1 = (share + 1) * q.units / shares;
            float *to = (part ? (float *)s->workspace + (part - 1) * outputs * filters : (float *)w->data) + group * f;
            int first = 1;
            const int64_t end = (part + 1) * rows / parts;
            for (int64_t row = part * rows / parts; row < end;) {
                struct block b = rows_from(p, row, end, cut.rows);
                row += b.h1 - b.h0;
                for (b.w0 = 0; b.w0 < aw->out; b.w0 = b.w1, first = 0) {
                    b.w1 = b.w0 + cut.width < aw->out ? b.w0 + cut.width : aw->out;
                    if (!single) {
                        const struct band band = take_band(p, &b, memory);
                        gradient_block(&q, &b, &band, to, packed, u0, u1, 0, q.runs, first);
                    }
                    for (int64_t t0 = 0; single && t0 < taps; t0 += pass) {
                        const int64_t t1 = taps - t0 < pass ? taps : t0 + pass;
                        const struct band band = take_elements(p, &b, t0, t1, 0, c, memory);
                        gradient_block(&q, &b, &band, to, packed, u0, u1, t0, t1, first);
                    }
                }
            }
            if (first) { /* no rows for this part */
                struct block none = {0};
                const struct band band = {.base = memory};
                gradient_block(&q, &none, &band, to, packed, u0, u1, 0, q.runs, 1);
            }
        }
    }
    if (parts == 1) return;
    team_barrier(lane);
    const int64_t all = outputs * filters, piece = (all / lane->count + VL) / VL * VL, from = lane->id * piece;
    float *dw = w->data;
    for (int64_t part = 1; part < parts; part++) {
        const float *other = (const float *)s->workspace + (part - 1) * all;
        for (int64_t i = from; i < all && i < from + piece; i += VL)
            v_store_n(dw + i, v_load_n(dw + i, all - i) + v_load_n(other + i, all - i), all - i);
    }
}
