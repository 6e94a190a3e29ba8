/* Convolution of a few outputs, or the gradient of a few weights, of a bundle of G groups: sums in registers, filters of all
 * its groups in the lanes; see grouped.c. */
#ifndef FASTNN_GROUPED_TILE_H
#define FASTNN_GROUPED_TILE_H

#include <stdint.h>
#include "simd.h"

#if defined(ISA_AVX512) || defined(ISA_NEON) /* 32 registers: sums, three weights or gradients, an input */
enum { BUNDLE_ROWS = 14, TRIPLE_ROWS = 8 };
#elif defined(ISA_AVX2)
enum { BUNDLE_ROWS = 12, TRIPLE_ROWS = 0 }; /* 16: single elements are as fast */
#else
enum { BUNDLE_ROWS = 8, TRIPLE_ROWS = 0 };
#endif

enum { BUNDLE_LEVELS = VL == 16 ? 5 : VL == 8 ? 4 : VL == 4 ? 3 : 1 }; /* G = 1, 2, 4 ... VL */

struct bundle_tile {
    const float *a; /* what output 0 reads, from the first channel of the tile on */
    int64_t stride; /* from output to output */
    const float *b; /* weights, packed; in a gradient, those of outputs, a vector each */
    float *sums;
    /* Outputs: pieces of the window, at a + segment[i], of k times G numbers. */
    const int64_t *segment;
    int64_t segments, k;
    /* A gradient: rows of outputs; from one element of the window to the next in sums. */
    int64_t lines, a_line, width, tap;
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

/* sums (taps, rows, VL) += the gradients of a bundle's weights: elements of the window that lie side by side, channels */
INLINE void bundle_gradient(const int side, const int taps, const int rows, const struct bundle_tile *t)
{
    vf sum[3][BUNDLE_ROWS];
    const int64_t stride = t->stride, width = t->width;
    UNROLL for (int j = 0; j < taps; j++)
        UNROLL for (int i = 0; i < rows; i++) sum[j][i] = v_zero();
    for (int64_t line = 0; line < t->lines; line++) {
        const float *a = t->a + line * t->a_line, *b = t->b + line * width * VL;
        for (int64_t q = 0; q < width + taps - 1; q++, a += stride, b += VL) { /* input q is element j of output q - j */
            if (q >= taps - 1 && q < width) {
                vf g[3];
                UNROLL for (int j = 0; j < taps; j++) g[j] = v_load(b - j * VL);
                UNROLL for (int i = 0; i < rows; i++) {
                    const vf x = v_repeat(side, a + i * side);
                    UNROLL for (int j = 0; j < taps; j++) sum[j][i] = v_fma(x, g[j], sum[j][i]);
                }
                continue;
            }
            UNROLL for (int j = 0; j < taps; j++) {
                if (q < j || q - j >= width) continue;
                const vf g = v_load(b - j * VL);
                UNROLL for (int i = 0; i < rows; i++) sum[j][i] = v_fma(v_repeat(side, a + i * side), g, sum[j][i]);
            }
        }
    }
    UNROLL for (int j = 0; j < taps; j++) {
        UNROLL for (int i = 0; i < rows; i++) {
            float *to = t->sums + j * t->tap + i * VL;
            v_store(to, v_load(to) + sum[j][i]);
        }
    }
}

typedef void bundle_kernel(const struct bundle_tile *t);

#define OUTPUTS(taps, side, rows) \
    static void outputs_##taps##_##side##_##rows(const struct bundle_tile *t) { bundle_outputs(side, taps, rows, t); }
#define GRADIENT(taps, side, rows) \
    static void gradient_##taps##_##side##_##rows(const struct bundle_tile *t) { bundle_gradient(side, taps, rows, t); }
#define NAME_OUTPUTS(taps, side, rows) outputs_##taps##_##side##_##rows,
#define NAME_GRADIENT(taps, side, rows) gradient_##taps##_##side##_##rows,
#define ROWS8(X, taps, side) \
    X(taps, side, 1) X(taps, side, 2) X(taps, side, 3) X(taps, side, 4) X(taps, side, 5) X(taps, side, 6) X(taps, side, 7) \
    X(taps, side, 8)
#define ROWS12(X, taps, side) ROWS8(X, taps, side) X(taps, side, 9) X(taps, side, 10) X(taps, side, 11) X(taps, side, 12)
#define ROWS14(X, taps, side) ROWS12(X, taps, side) X(taps, side, 13) X(taps, side, 14)
#if defined(ISA_AVX512) || defined(ISA_NEON)
#define TILES(side) ROWS14(OUTPUTS, 1, side) ROWS14(GRADIENT, 1, side) ROWS14(OUTPUTS, 3, side) ROWS8(GRADIENT, 3, side)
#define NAMES(side) \
    {{{ROWS14(NAME_OUTPUTS, 1, side)}, {ROWS14(NAME_OUTPUTS, 3, side)}}, \
     {{ROWS14(NAME_GRADIENT, 1, side)}, {ROWS8(NAME_GRADIENT, 3, side)}}},
#else
#if defined(ISA_AVX2)
#define ROWS ROWS12
#else
#define ROWS ROWS8
#endif
#define TILES(side) ROWS(OUTPUTS, 1, side) ROWS(GRADIENT, 1, side)
#define NAMES(side) {{{ROWS(NAME_OUTPUTS, 1, side)}}, {{ROWS(NAME_GRADIENT, 1, side)}}},
#endif
#if VL == 16
#define SIDES(X) X(1) X(2) X(4) X(8) X(16)
#elif VL == 8
#define SIDES(X) X(1) X(2) X(4) X(8)
#elif VL == 4
#define SIDES(X) X(1) X(2) X(4)
#else
#define SIDES(X) X(1)
#endif

SIDES(TILES)

/* bundle_tiles[log2(G)][gradient][three taps together][rows - 1] */
static bundle_kernel *const bundle_tiles[BUNDLE_LEVELS][2][2][BUNDLE_ROWS] = {SIDES(NAMES)};

#undef OUTPUTS
#undef GRADIENT
#undef NAME_OUTPUTS
#undef NAME_GRADIENT
#undef ROWS8
#undef ROWS12
#undef ROWS14
#undef ROWS
#undef SIDES
#undef TILES
#undef NAMES

#endif
