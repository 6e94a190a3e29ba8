/* Depthwise convolution: every channel has M filters of its own. N batch, D H W space, C channels, E = C * M outputs, of
 * which c * M ... c * M + M - 1 are made of channel c; weights (KD, KH, KW, E).
 *
 * Forward and the gradient of the input are one thing, which slide.h describes along each axis: outputs that read what their
 * taps fall on. The gradient reads flipped weights, and with strides only every so many of them; for M > 1 it is the sum of M
 * neighbours. Where channels do not fill up vectors, but outputs lie side by side, a few pixels count as one with so many
 * times the channels ("wide"), and their weights are repeated.
 *
 * The bits of an output depend neither on the batch nor on threads. Sums over pixels are cut into parts by shape. */
#include "depthwise_block.h"
#include "slide.h"

enum {
    DEPTH_WIDE = 1 << 16,        /* weights repeated take no more than this */
    DEPTH_CHUNK = 1 << 16,       /* of outputs whose M parts are still to be added up */
    DEPTH_ALIGN = 16,            /* floats: sums of weights start at multiples of it, so that they are whole vectors */
    DEPTH_PHASES = 4,            /* as many strides are common */
    DEPTH_PART_PIXELS = 512,     /* a sum over pixels is cut into parts of no less than this, */
    DEPTH_PARTS = 64,            /* no more than this, */
    DEPTH_PART_FLOATS = 1 << 22, /* that take no more than this */
};
_Static_assert((2 * DEPTH_WIDE + DEPTH_CHUNK) * sizeof(float) <= TEAM_SCRATCH, "weights, bias and parts fit in the scratch");

/* ---- a row ---- */

/* Pixels that count as one, and their weights. */
struct depth_wide {
    int64_t pixels; /* 1: none */
    float *w, *bias;
};

struct depthwise {
    struct window w;
    int backward, gradient; /* of the input, of the weights; else forward */
    int64_t e, m;           /* E outputs, M of a channel */
    int64_t pixel;          /* floats of a pixel of x: C or, backward, E */
    int64_t w_tap;          /* floats of a tap of weights: E or, in their gradient, rounded up to DEPTH_ALIGN */
    int64_t begin, end;     /* the channels of E to work on */
    const float *x, *bias;
    float *weights, *y;     /* as in struct depth_row */
    struct depth_wide wide;
    struct depth_repeat repeat;
};

/* How many outputs the next block has where `left` of n are left. Where the last ones are fewer than a block, some are
 * computed again, unless that counts. */
static int64_t next_side(const struct depthwise *d, int64_t n, int64_t left)
{
    return left >= 4 || (left >= 2 && n >= 4 && !d->gradient) ? 4 : left >= 2 ? 2 : 1;
}

/* n outputs whose taps lie inside. */
static void run_inside(const struct depthwise *d, struct depth_row *r, int64_t n)
{
    depth_function *const *blocks = depth_blocks[r->repeat ? DEPTH_REPEATED : DEPTH_ANY][d->gradient][ENDS_NONE];
    const float *x = r->x;
    float *y = r->y;
    for (int64_t left = n; left > 0;) {
        const int64_t side = next_side(d, n, left), at = left < side ? n - side : n - left;
        r->count = left < side ? 1 : left / side;
        r->x = x + at * r->advance;
        r->y = y + at * r->y_step;
        blocks[side](r);
        left = n - at - r->count * side;
    }
    r->x = x;
    r->y = y;
}

/* The same, pixels taken together; the last ones are fewer. */
static void run_wide(const struct depthwise *d, const struct depth_row *r, int64_t n)
{
    const int64_t pixels = d->wide.pixels, last = n % pixels;
    struct depth_row wide = *r;
    const int64_t tap = d->e * pixels; /* floats */
    wide.w = d->wide.w + (r->w - d->weights) / d->w_tap * tap;
    wide.bias = d->wide.bias;
    wide.advance *= pixels;
    wide.y_step *= pixels;
    wide.w_step = wide.w_step / d->w_tap * tap;
    wide.w_line = wide.w_line / d->w_tap * tap;
    wide.w_plane = wide.w_plane / d->w_tap * tap;
    wide.end = tap;
    run_inside(d, &wide, n / pixels);
    wide.x += (n - last) * r->advance;
    wide.y += (n - last) * r->y_step;
    wide.end = d->e * last;
    run_inside(d, &wide, last > 0);
}

/* Outputs from ... to-1 of a slide along W. r->x is element 0 of the input, r->y is output `from`. */
static void run_any(const struct depthwise *d, struct depth_row *r, const struct slide *s, int64_t from, int64_t to)
{
    const float *x = r->x;
    float *w = r->w, *y = r->y;
    int64_t first = from, last = to;
    outputs_inside(s, &first, &last);
    for (int64_t j = from; j < to; j++) { /* at the ends, one by one */
        if (j == first) j = last;
        if (j == to) break;
        const struct slide one = taps_inside(*s, j);
        r->x = x + one.base * d->pixel;
        r->w = w + (one.w - s->w) * d->w_tap;
        r->y = y + (j - from) * r->y_step;
        r->taps = one.taps;
        run_inside(d, r, 1);
    }
    r->x = x + (s->base + first * s->advance) * d->pixel;
    r->w = w;
    r->y = y + (first - from) * r->y_step;
    r->taps = s->taps;
    if (d->wide.pixels > 1) run_wide(d, r, last - first);
    else run_inside(d, r, last - first);
    r->x = x;
    r->y = y;
}

/* The same for a kind that is known. */
static void run_known(const struct depthwise *d, struct depth_row *r, enum depth_kind kind, const struct slide *s,
                      int64_t from, int64_t to)
{
    const float *x = r->x;
    float *y = r->y;
    int64_t first = from, end = to;
    outputs_inside(s, &first, &end);
    for (int64_t at = from; at < to;) {
        const int64_t side = next_side(d, to - from, to - at);
        if (to - at < side) at = to - side;
        const int64_t base = s->base + at * s->advance;
        const int64_t last = base + (side - 1) * s->advance + (s->taps - 1) * s->tap;
        const int64_t half = s->taps / 2 * s->tap, low = base < 0, high = last >= s->size;
        depth_function *const block = depth_blocks[kind][d->gradient][low * ENDS_LEFT + high * ENDS_RIGHT][side];
        r->count = low || high ? 1 : (end - at) / side;
        r->y = y + (at - from) * r->y_step;
        if (block && (!low || base == -half) && (!high || last == s->size - 1 + half)) {
            r->x = x + base * d->pixel;
            block(r);
        } else {
            r->x = x;
            r->count = 1;
            run_any(d, r, s, at, at + side);
        }
        at += r->count * side;
    }
    r->x = x;
    r->y = y;
}

static void run_row(const struct depthwise *d, struct depth_row *r, const struct slide *s, int64_t from, int64_t to)
{
    const int64_t begin = r->begin, end = r->end;
    const int apart = s->advance == s->tap ? 1 : s->advance == 2 * s->tap ? 2 : 0, image = r->planes == 1 && r->lines == 3;
    enum depth_kind kind = DEPTH_ANY;
    if (r->repeat || d->wide.pixels > 1 || (!d->gradient && end - begin < VL)) kind = DEPTH_ANY;
    else if (s->taps == 3 && apart == 1) kind = image ? DEPTH_IMAGE_3 : DEPTH_TAPS_3;
    else if (s->taps == 3 && apart == 2) kind = image ? DEPTH_IMAGE_3_APART : DEPTH_TAPS_3_APART;
    else if (s->taps == 5 && apart == 1) kind = DEPTH_TAPS_5;
    else if (s->taps == 5 && apart == 2) kind = DEPTH_TAPS_5_APART;
    else if (s->taps == 7 && apart == 1) kind = DEPTH_TAPS_7;
    r->w += s->w * d->w_tap;
    r->advance = s->advance * d->pixel;
    r->tap = s->tap * d->pixel;
    r->w_step = s->w_step * d->w_tap;
    r->taps = s->taps;
    if (kind != DEPTH_ANY) {
        r->end = d->gradient ? end - (end - begin) % VL : end;
        run_known(d, r, kind, s, from, to);
        r->begin = r->end;
        r->end = end;
    }
    if (r->begin < end) run_any(d, r, s, from, to);
    r->begin = begin;
    r->w -= s->w * d->w_tap;
}

/* ---- the gradient of the input for M > 1 ---- */

/* y[c] = the sum of the m parts of channel c, for so many channels; m is a constant. */
INLINE void add_few(const int m, float *restrict y, const float *restrict parts, int64_t channels)
{
    for (int64_t c = 0; c < channels; c++) {
        float sum = parts[c * m];
        UNROLL for (int i = 1; i < m; i++) sum += parts[c * m + i];
        y[c] = sum;
    }
}

/* y[c] = the sum of the m parts of channel c. Parts are those of outputs begin ... end-1; some of the first channel may have
 * come before. */
static void add_parts(float *y, const float *parts, int64_t m, int64_t begin, int64_t end)
{
    switch (m) {
    case 2: add_few(2, y + begin / 2, parts, (end - begin) / 2); break;
    case 3: add_few(3, y + begin / 3, parts, (end - begin) / 3); break;
    case 4: add_few(4, y + begin / 4, parts, (end - begin) / 4); break;
    default:
        for (int64_t e = begin, next; e < end; e = next) {
            const int64_t c = e / m;
            next = (c + 1) * m < end ? (c + 1) * m : end;
            vf sum = v_zero();
            for (int64_t i = e; i < next; i += VL) sum = sum + v_load_n(parts + i - begin, next - i);
            y[c] = e == c * m ? v_sum(sum) : y[c] + v_sum(sum);
        }
    }
}

/* As run_row; r->y is output `from`, C channels. */
static void run_row_parts(const struct depthwise *d, const struct depth_row *r, const struct slide *s, int64_t from,
                          int64_t to, float *parts)
{
    const int64_t most = d->m > DEPTH_CHUNK ? DEPTH_CHUNK : DEPTH_CHUNK / d->m * d->m;
    const int64_t width = d->e < most ? d->e : most, pixels = DEPTH_CHUNK / width;
    for (int64_t j = from; j < to; j += pixels) {
        const int64_t end = j + pixels < to ? j + pixels : to;
        for (int64_t e = 0; e < d->e; e += width) {
            struct depth_row some = *r;
            const int64_t count = d->e - e < width ? d->e - e : width;
            some.x += e;
            some.w += e;
            some.y = parts;
            some.y_step = count;
            some.end = count;
            run_row(d, &some, s, j, end);
            for (int64_t i = j; i < end; i++)
                add_parts(r->y + (i - from) * r->y_step, parts + (i - j) * count, d->m, e, e + count);
        }
    }
}

/* ---- everything ---- */

static int64_t product_of(const int64_t *size) { return size[AXIS_D] * size[AXIS_H] * size[AXIS_W]; }

/* Input x and output y of the convolution, weights w (*kernel, C, M). */
static struct depthwise depthwise_of(const struct tensor *x, const struct tensor *y, const struct tensor *w,
                                     const struct attributes *attr)
{
    struct depthwise d = {.w = window_of(x, y, attr), .e = y->size[y->rank - 1], .m = w->size[w->rank - 1],
                          .weights = w->data};
    for (int a = 0; a < MAX_SPACE; a++) {
        const int axis = a - MAX_SPACE + w->rank - 2;
        d.w.kernel[a] = axis >= 0 ? w->size[axis] : 1;
    }
    d.end = d.e;
    d.pixel = d.w.c;
    d.w_tap = d.e;
    d.wide.pixels = 1;
    if (d.m > 1) repeat_make(&d.repeat, d.m);
    return d;
}

/* How many pixels to take for one so that the channels E fill up vectors; 1 if that is not worth while. */
static int64_t wide_pixels(const struct window *w, int64_t e)
{
    int64_t pixels = VL;
    for (int64_t rest = e; rest % 2 == 0 && pixels > 1; rest /= 2) pixels /= 2;
    const int64_t waste = VL - 1 - (e - 1) % VL;
    return w->stride[AXIS_W] == 1 && 2 * waste > e && product_of(w->kernel) * e * pixels <= DEPTH_WIDE ? pixels : 1;
}

/* Weights and bias repeated for each of the pixels. */
static struct depth_wide wide_of(const struct depthwise *d, float *memory)
{
    struct depth_wide wide = {.pixels = wide_pixels(&d->w, d->e), .w = memory};
    const int64_t taps = product_of(d->w.kernel);
    for (int64_t t = 0; t <= taps && wide.pixels > 1; t++) {
        const float *from = t < taps ? d->weights + t * d->e : d->bias;
        if (!from) break;
        if (t == taps) wide.bias = memory;
        for (int64_t p = 0; p < wide.pixels; p++, memory += d->e) memcpy(memory, from, (size_t)d->e * sizeof *memory);
    }
    return wide;
}

static struct slide slide_of(const struct depthwise *d, int axis, int64_t first)
{
    return d->backward ? slide_backward(&d->w, axis, first) : slide_forward(&d->w, axis, first);
}

/* What is written (or, for the gradient of the weights, read) from pixel `at` to `end`, all pixels of the batch counted. */
static void run_pixels(const struct depthwise *d, int32_t activation, int64_t at, int64_t end, float *parts)
{
    const struct window *w = &d->w;
    const int64_t *size = d->backward ? w->size : w->out, *read = d->backward ? w->out : w->size;
    const int64_t channels = d->backward ? w->c : d->e, step = d->backward ? w->stride[AXIS_W] : 1, width = size[AXIS_W];
    const int64_t x_line = read[AXIS_W] * d->pixel, x_plane = read[AXIS_H] * x_line;
    const int64_t w_line = w->kernel[AXIS_W] * d->w_tap, w_plane = w->kernel[AXIS_H] * w_line;
    struct depth_row r = {.bias = d->bias, .y_step = step * channels, .begin = d->begin, .end = d->end,
                          .relu = activation == ACT_relu, .repeat = d->m > 1 && !d->backward ? &d->repeat : NULL};
    struct slide phases[DEPTH_PHASES + 1]; /* and one for all others */
    for (int64_t first = 0; first < step && first < DEPTH_PHASES; first++) phases[first] = slide_of(d, AXIS_W, first);
    while (at < end) {
        const int64_t line = at / width, from = at - line * width, to = width < from + end - at ? width : from + end - at;
        const int64_t plane = line / size[AXIS_H], n = plane / size[AXIS_D];
        const struct slide deep = taps_inside(slide_of(d, AXIS_D, plane - n * size[AXIS_D]), 0);
        const struct slide high = taps_inside(slide_of(d, AXIS_H, line - plane * size[AXIS_H]), 0);
        r.planes = deep.taps;
        r.x_plane = deep.tap * x_plane;
        r.w_plane = deep.w_step * w_plane;
        r.lines = high.taps;
        r.x_line = high.tap * x_line;
        r.w_line = high.w_step * w_line;
        r.x = d->x + (n * read[AXIS_D] + deep.base) * x_plane + high.base * x_line;
        r.w = d->weights + deep.w * w_plane + high.w * w_line;
        for (int64_t first = 0; first < step && first < to; first++) {
            struct slide *const s = &phases[first < DEPTH_PHASES ? first : DEPTH_PHASES];
            if (first >= DEPTH_PHASES) *s = slide_of(d, AXIS_W, first);
            const int64_t j0 = first < from ? ceil_div(from - first, step) : 0, j1 = ceil_div(to - first, step);
            r.y = d->y + (line * width + first + j0 * step) * channels;
            if (j0 == j1) continue;
            if (d->backward && d->m > 1) run_row_parts(d, &r, s, j0, j1, parts);
            else run_row(d, &r, s, j0, j1);
        }
        if (activation != ACT_relu) activate_rows(activation, d->y + at * channels, (to - from) * channels);
        at += to - from;
    }
}

/* Forward and the gradient of the input: the lanes share the pixels out evenly. */
static void run_lanes(struct depthwise *d, int32_t activation, const struct lane *lane)
{
    const int64_t pixels = d->w.n * product_of(d->backward ? d->w.size : d->w.out);
    float *scratch = lane->scratch;
    d->wide = wide_of(d, scratch);
    const int64_t first = pixels * lane->id / lane->count, end = pixels * (lane->id + 1) / lane->count;
    run_pixels(d, activation, first, end, scratch + 2 * DEPTH_WIDE);
}

/* y (N, OD, OH, OW, E) of x (N, D, H, W, C) and w (KD, KH, KW, C, M), + b (E) if there is one, then the activation. */
static void kernel_fused_depthwise_conv(const struct step *step, const struct lane *lane)
{
    struct depthwise d = depthwise_of(&step->in[0], &step->out[0], &step->in[1], &step->attr);
    d.x = step->in[0].data;
    d.bias = step->inputs > 2 ? step->in[2].data : NULL;
    d.y = step->out[0].data;
    run_lanes(&d, step->attr.activation, lane);
}

/* The same without an activation, which is 0, linear. */
static void kernel_depthwise_conv(const struct step *step, const struct lane *lane)
{
    kernel_fused_depthwise_conv(step, lane);
}

/* dx (N, D, H, W, C) of g (N, OD, OH, OW, E) and w (KD, KH, KW, C, M) */
static void kernel_depthwise_conv_dx(const struct step *step, const struct lane *lane)
{
    struct depthwise d = depthwise_of(&step->out[0], &step->in[0], &step->in[1], &step->attr);
    d.backward = 1;
    d.pixel = d.e;
    d.x = step->in[0].data;
    d.y = step->out[0].data;
    run_lanes(&d, ACT_linear, lane);
}

/* Into how many parts a sum over so many pixels is cut, for so many weights. As in fastnn/ops/depthwise.py. */
static int64_t depthwise_parts(int64_t pixels, int64_t weights)
{
    const int64_t most = clamp(DEPTH_PART_FLOATS / weights, 1, DEPTH_PARTS);
    return clamp(pixels / DEPTH_PART_PIXELS, 1, most);
}

/* dw (KD, KH, KW, C, M) of x (N, D, H, W, C) and g (N, OD, OH, OW, E) */
static void kernel_depthwise_conv_dw(const struct step *step, const struct lane *lane)
{
    struct depthwise d = depthwise_of(&step->in[0], &step->in[1], &step->out[0], &step->attr);
    d.gradient = 1;
    d.x = step->in[0].data;
    d.y = step->in[1].data;
    d.w_tap = (d.e + DEPTH_ALIGN - 1) / DEPTH_ALIGN * DEPTH_ALIGN;
    const int64_t pixels = d.w.n * product_of(d.w.out), taps = product_of(d.w.kernel), weights = taps * d.w_tap;
    const int64_t parts = depthwise_parts(pixels, weights);
    float *sums = step->workspace, *out = step->out[0].data;
    d.wide = (struct depth_wide){.pixels = wide_pixels(&d.w, d.e), .w = lane->scratch};

    /* with fewer parts than lanes, lanes share the channels of a part */
    const int64_t vectors = d.wide.pixels > 1 ? 1 : (d.e + VL - 1) / VL;
    const int64_t shares = clamp((lane->count + parts - 1) / parts, 1, vectors);
    for (int64_t task = lane->id; task < parts * shares; task += lane->count) {
        const int64_t part = task / shares, share = task % shares;
        d.weights = sums + part * weights;
        d.begin = vectors * share / shares * VL;
        d.end = share + 1 == shares ? d.e : vectors * (share + 1) / shares * VL;
        for (int64_t t = 0; t < taps; t++)
            for (int64_t e = d.begin; e < d.end; e += VL) v_store(d.weights + t * d.w_tap + e, v_zero());
        if (d.wide.pixels > 1) memset(d.wide.w, 0, (size_t)(taps * d.e * d.wide.pixels) * sizeof(float));
        run_pixels(&d, ACT_linear, pixels * part / parts, pixels * (part + 1) / parts, NULL);
        for (int64_t i = 0; i < taps * d.wide.pixels && d.wide.pixels > 1; i++)
            for (int64_t e = 0; e < d.e; e++) d.weights[i / d.wide.pixels * d.w_tap + e] += d.wide.w[i * d.e + e];
    }
    team_barrier(lane);
    for (int64_t t = lane->id; t < taps; t += lane->count) {
        for (int64_t e = 0; e < d.e; e += VL) {
            const float *part = sums + t * d.w_tap + e;
            vf sum = v_load(part);
            for (int64_t i = 1; i < parts; i++) sum = sum + v_load(part + i * weights);
            v_store_n(out + t * d.e + e, sum, d.e - e);
        }
    }
}
