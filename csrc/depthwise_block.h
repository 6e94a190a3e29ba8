/* Depthwise convolution of a few outputs side by side along W: sums in registers, channels in the lanes, so that an input is
 * loaded once for all its taps. E = C * M outputs of a pixel, of which c * M ... c * M + M - 1 are made of channel c.
 *
 * Each output is one chain of multiply-adds in the order of its taps, whatever block it falls in. */
#ifndef FASTNN_DEPTHWISE_BLOCK_H
#define FASTNN_DEPTHWISE_BLOCK_H

#include "kernels.h"
#include "simd.h"

/* ---- lanes that read the same input ---- */

/* Lane l of the vector at output e reads channel (e + l) / m: lane, counted from the channel e / m on. */
struct depth_repeat {
    int64_t m;
    int32_t lane[VL + 1][VL];
};

static void repeat_make(struct depth_repeat *r, int64_t m)
{
    r->m = m;
    for (int64_t i = 0; i <= VL; i++)
        for (int64_t l = 0; l < VL; l++) r->lane[i][l] = (int32_t)(m <= VL ? (i + l) / m : l >= i);
}

/* The row of the table for output e. */
INLINE const int32_t *repeat_at(const struct depth_repeat *r, int64_t e)
{
    const int64_t place = e % r->m;
    return r->lane[r->m <= VL ? place : r->m - place < VL ? r->m - place : VL];
}

/* p[lane[l]] for the first n lanes; reads nothing else of p. */
INLINE vf v_load_lanes(const float *p, const int32_t *lane, int64_t n)
{
#if defined(ISA_AVX512)
    return _mm512_permutexvar_ps(_mm512_loadu_si512(lane), v_load_n(p, lane[n - 1] + 1));
#elif defined(ISA_AVX2)
    return _mm256_permutevar8x32_ps(v_load_n(p, lane[n - 1] + 1), _mm256_loadu_si256((const __m256i *)lane));
#else
    float lanes[VL] = {0};
    for (int64_t l = 0; l < n; l++) lanes[l] = p[lane[l]];
    return v_load(lanes);
#endif
}

/* ---- blocks ---- */

/* Where a block finds its numbers; all distances in floats. */
struct depth_row {
    const float *x, *bias;        /* the first tap of output 0; (E) or NULL */
    float *w, *y;                 /* in the gradient of the weights y is read, and w is what it is added to */
    int64_t advance, tap, y_step; /* of x from output to output and from tap to tap; of y from output to output */
    int64_t taps, w_step;
    int64_t planes, x_plane, w_plane; /* taps along D and along H */
    int64_t lines, x_line, w_line;
    int64_t begin, end;           /* channels, of E */
    int64_t count;                /* so many blocks side by side */
    int relu;
    const struct depth_repeat *repeat; /* or NULL: M = 1 */
};

enum {
    DEPTH_SIDE = 4, /* most outputs of a block */
    DEPTH_TAPS = 7, /* most taps that are compiled in */
    /* Inputs of a block that are not there: half of the taps of the first or of the last output. */
    ENDS_NONE = 0, ENDS_LEFT = 1, ENDS_RIGHT = 2, ENDS_BOTH = 3, ENDS
};

/* What is known of a block when it is compiled: `side` outputs. With taps > 0 it has so many taps, as far apart as outputs
 * are or a stride-th of it, so (side - 1) * stride + taps inputs; with lines > 0 it has so many lines of them. */
struct depth_form {
    int gradient; /* of the weights */
    int side, taps, stride, lines, ends;
    int repeated; /* lanes read the same input */
    int full;     /* all lanes are used */
};
#define INPUTS(f) ((f.side - 1) * f.stride + f.taps)
#define LOW(f) (f.ends & ENDS_LEFT ? f.taps / 2 : 0)
#define HIGH(f) (INPUTS(f) - (f.ends & ENDS_RIGHT ? f.taps / 2 : 0))
#define LOAD(f, p, n) (f.full ? v_load(p) : v_load_part(p, n))
#define LOAD_X(f, p, lane, n) (f.repeated ? v_load_lanes(p, lane, n) : LOAD(f, p, n))
#define STORE(f, p, v, n) (f.full ? v_store(p, v) : v_store_part(p, v, n))

/* One line of taps: sum (side) += x w */
INLINE void line_sums(const struct depth_form f, const struct depth_row *r, vf *sum, const float *x, const float *w,
                      const int32_t *lane, int64_t n)
{
    if (!f.taps) {
        for (int64_t t = 0; t < r->taps; t++, w += r->w_step, x += r->tap) {
            const vf right = LOAD(f, w, n);
            UNROLL for (int p = 0; p < f.side; p++)
                sum[p] = v_fma(LOAD_X(f, x + p * r->advance, lane, n), right, sum[p]);
        }
        return;
    }
    vf right[DEPTH_TAPS];
    UNROLL for (int t = 0; t < f.taps; t++) right[t] = LOAD(f, w + t * r->w_step, n);
    UNROLL for (int i = 0; i < INPUTS(f); i++) {
        if (i < LOW(f) || i >= HIGH(f)) continue;
        const vf left = LOAD(f, x + i * r->tap, n);
        UNROLL for (int t = 0; t < f.taps; t++) {
            const int p = (i - t) / f.stride;
            if (i >= t && (i - t) % f.stride == 0 && p < f.side) sum[p] = v_fma(left, right[t], sum[p]);
        }
    }
}

/* One line of taps: dw += x g (side). Whole vectors of dw: what is not loaded of x and g counts as 0. */
INLINE void line_gradients(const struct depth_form f, const struct depth_row *r, float *dw, const float *x, const vf *g,
                           const int32_t *lane, int64_t n)
{
    if (!f.taps) {
        for (int64_t t = 0; t < r->taps; t++, dw += r->w_step, x += r->tap) {
            vf sum = v_load(dw);
            UNROLL for (int p = 0; p < f.side; p++) sum = v_fma(LOAD_X(f, x + p * r->advance, lane, n), g[p], sum);
            v_store(dw, sum);
        }
        return;
    }
    vf sum[DEPTH_TAPS];
    UNROLL for (int t = 0; t < f.taps; t++) sum[t] = v_load(dw + t * r->w_step);
    UNROLL for (int i = 0; i < INPUTS(f); i++) {
        if (i < LOW(f) || i >= HIGH(f)) continue;
        const vf left = LOAD(f, x + i * r->tap, n);
        UNROLL for (int t = 0; t < f.taps; t++) {
            const int p = (i - t) / f.stride;
            if (i >= t && (i - t) % f.stride == 0 && p < f.side) sum[t] = v_fma(left, g[p], sum[t]);
        }
    }
    UNROLL for (int t = 0; t < f.taps; t++) v_store(dw + t * r->w_step, sum[t]);
}

/* The n channels from e on. */
INLINE void depth_block_at(const struct depth_form f, const struct depth_row *r, int64_t e, int64_t n)
{
    vf value[DEPTH_SIDE];
    UNROLL for (int p = 0; p < f.side; p++) value[p] = f.gradient ? LOAD(f, r->y + p * r->y_step + e, n) : v_zero();
    const int32_t *lane = f.repeated ? repeat_at(r->repeat, e) : NULL;
    const float *x = r->x + (f.repeated ? e / r->repeat->m : e);
    float *w = r->w + e;
#define LINE(x, w) (f.gradient ? line_gradients(f, r, w, x, value, lane, n) : line_sums(f, r, value, x, w, lane, n))
    if (f.lines) {
        UNROLL for (int line = 0; line < f.lines; line++) LINE(x + line * r->x_line, w + line * r->w_line);
    } else {
        for (int64_t plane = 0; plane < r->planes; plane++)
            for (int64_t line = 0; line < r->lines; line++)
                LINE(x + plane * r->x_plane + line * r->x_line, w + plane * r->w_plane + line * r->w_line);
    }
#undef LINE
    if (f.gradient) return;
    if (r->bias) {
        const vf shift = LOAD(f, r->bias + e, n);
        UNROLL for (int p = 0; p < f.side; p++) value[p] = value[p] + shift;
    }
    if (r->relu) UNROLL for (int p = 0; p < f.side; p++) value[p] = v_max(v_zero(), value[p]);
    UNROLL for (int p = 0; p < f.side; p++) STORE(f, r->y + p * r->y_step + e, value[p], n);
}

INLINE void depth_block(const struct depth_form f, const struct depth_row *given)
{
    struct depth_row r = *given; /* a copy, which stores of floats cannot change */
    struct depth_form part = f;
    part.full = 0;
    for (int64_t left = r.count; left > 0; left--) {
        int64_t e = r.begin;
        const int64_t last = f.taps ? r.end - VL : r.end; /* some are computed again */
        if (f.taps) for (; e < r.end; e += VL) depth_block_at(f, &r, e < last ? e : last, VL);
        else for (; e + VL <= r.end; e += VL) depth_block_at(f, &r, e, VL);
        if (!f.taps && e < r.end) depth_block_at(part, &r, e, r.end - e);
        r.x += f.side * r.advance;
        r.y += f.side * r.y_step;
    }
}

#undef INPUTS
#undef LOW
#undef HIGH
#undef LOAD
#undef LOAD_X
#undef STORE

/* ANY: taps lie anywhere. REPEATED: so they do, and M > 1. The others: so many taps, outputs side by side or two apart, and
 * IMAGE: in so many lines; for one full vector at least, in gradients for full vectors only. X(name, taps, stride, lines) */
#define DEPTH_KNOWN(X) X(IMAGE_3, 3, 1, 3) X(IMAGE_3_APART, 3, 2, 3) X(TAPS_3, 3, 1, 0) X(TAPS_3_APART, 3, 2, 0) \
    X(TAPS_5, 5, 1, 0) X(TAPS_5_APART, 5, 2, 0) X(TAPS_7, 7, 1, 0)
#define KIND(name, ...) DEPTH_##name,
enum depth_kind { DEPTH_KNOWN(KIND) DEPTH_ANY, DEPTH_REPEATED, DEPTH_KINDS };
#undef KIND

#define FUNCTION(name, gradient, side, taps, stride, lines, ends, repeated)                     \
    static void depth_##name##_##gradient##_##side##_##ends(const struct depth_row *r)          \
    {                                                                                           \
        depth_block((struct depth_form){gradient, side, taps, stride, lines, ends, repeated, 1}, r); \
    }
#define FUNCTIONS(name, taps, stride, lines, ends, repeated)    \
    FUNCTION(name, 0, 4, taps, stride, lines, ends, repeated)   \
    FUNCTION(name, 1, 2, taps, stride, lines, ends, repeated)   \
    FUNCTION(name, 1, 4, taps, stride, lines, ends, repeated)
#define KNOWN(name, taps, stride, lines)                                                                    \
    FUNCTIONS(name, taps, stride, lines, 0, 0) FUNCTIONS(name, taps, stride, lines, 1, 0)                   \
    FUNCTIONS(name, taps, stride, lines, 2, 0) FUNCTIONS(name, taps, stride, lines, 3, 0)
#define UNKNOWN(name, repeated)                                                                             \
    FUNCTIONS(name, 0, 0, 0, 0, repeated) FUNCTION(name, 0, 1, 0, 0, 0, 0, repeated)                        \
    FUNCTION(name, 0, 2, 0, 0, 0, 0, repeated) FUNCTION(name, 1, 1, 0, 0, 0, 0, repeated)
DEPTH_KNOWN(KNOWN)
UNKNOWN(ANY, 0)
UNKNOWN(REPEATED, 1)
#undef FUNCTION
#undef FUNCTIONS
#undef KNOWN
#undef UNKNOWN

typedef void depth_function(const struct depth_row *r);

/* depth_blocks[kind][gradient][ends][side]; some are not there. */
#define KNOWN_ENDS(name, ends) [ends] = {[4] = depth_##name##_0_4_##ends}
#define KNOWN_ENDS_GRADIENT(name, ends) [ends] = {[2] = depth_##name##_1_2_##ends, [4] = depth_##name##_1_4_##ends}
#define KNOWN(name, ...)                                                                                              \
    [DEPTH_##name] = {{KNOWN_ENDS(name, 0), KNOWN_ENDS(name, 1), KNOWN_ENDS(name, 2), KNOWN_ENDS(name, 3)},           \
                      {KNOWN_ENDS_GRADIENT(name, 0), KNOWN_ENDS_GRADIENT(name, 1), KNOWN_ENDS_GRADIENT(name, 2),      \
                       KNOWN_ENDS_GRADIENT(name, 3)}},
#define UNKNOWN(name)                                                                                                  \
    [DEPTH_##name] = {{{[1] = depth_##name##_0_1_0, [2] = depth_##name##_0_2_0, [4] = depth_##name##_0_4_0}},          \
                      {{[1] = depth_##name##_1_1_0, [2] = depth_##name##_1_2_0, [4] = depth_##name##_1_4_0}}},
static depth_function *const depth_blocks[DEPTH_KINDS][2][ENDS][DEPTH_SIDE + 1] = {DEPTH_KNOWN(KNOWN) UNKNOWN(ANY)
                                                                                    UNKNOWN(REPEATED)};
#undef KNOWN_ENDS
#undef KNOWN_ENDS_GRADIENT
#undef KNOWN
#undef UNKNOWN

#endif
