/* One vocabulary of vectors for all instruction sets. A vector `vf` has VL floats; arithmetic is written with the
 * operators. Every function does the same operations on each lane, so that a value has the same bits in whatever lane,
 * full vector or tail it falls. The including file sets one of ISA_AVX512, ISA_AVX2, ISA_NEON, ISA_BASE.
 *
 * v_load v_store          VL floats, any alignment
 * v_load_part(p, n)       the first n < VL floats, 0 in the other lanes; reads nothing else
 * v_store_part(p, v, n)   writes the first n lanes and nothing else
 * v_set(x)                x in every lane
 * v_fma(a, b, c)          a * b + c, rounded once where the machine can (not on ISA_BASE)
 * v_max v_min (a, b)      b where either is NaN: put the constant first to let NaN through
 * v_top(a, b)             the larger, of equals a; NaN where either is
 * v_less(a, b), v_select(mask, yes, no)
 * v_repeat(g, p)          g floats again and again; g is a constant, a power of 2 that is at most VL
 * v_pick(v, i)            lane l has lane i[l] of v, 0 <= i[l] < VL
 * v_load_transposed(r, p) VL floats from each of VL places p[i]; r[j] has the j-th of each
 * v_i..., v_as_...        32-bit integers in the lanes, for vmath.h and random.c; they wrap around
 *
 * FASTNN_PLAIN_C          ISA_BASE without any extension of the language, as it is for a compiler that is neither GCC nor
 *                         Clang; for tests
 */
#ifndef FASTNN_SIMD_H
#define FASTNN_SIMD_H

#include <stdint.h>
#include <string.h>

#if defined(__GNUC__) && !defined(FASTNN_PLAIN_C)
#define INLINE static inline __attribute__((always_inline))
#if defined(__clang__) /* it takes the other one for a wish, and too late to keep the sums of a tile in registers */
#define UNROLL _Pragma("clang loop unroll(full)")
#else
#define UNROLL _Pragma("GCC unroll 16")
#endif
#define prefetch(p) __builtin_prefetch(p)
#define prefetch_far(p) __builtin_prefetch(p, 0, 2) /* not into the first-level cache */
#else
#define INLINE static inline
#define UNROLL
#define prefetch(p) ((void)(p))
#define prefetch_far(p) ((void)(p))
#endif

#if defined(ISA_AVX512) || defined(ISA_AVX2)
INLINE double v_pair(const float *p) { double two; memcpy(&two, p, sizeof two); return two; } /* in one number's place */
#endif

#if defined(ISA_AVX512)

#define VL 16
typedef __m512 vf;
typedef __m512i vi;
typedef __mmask16 vm;
INLINE vm v_part(int64_t n) { return (vm)((1u << n) - 1u); }
INLINE vf v_load(const float *p) { return _mm512_loadu_ps(p); }
INLINE void v_store(float *p, vf v) { _mm512_storeu_ps(p, v); }
INLINE vf v_load_part(const float *p, int64_t n) { return _mm512_maskz_loadu_ps(v_part(n), p); }
INLINE void v_store_part(float *p, vf v, int64_t n) { _mm512_mask_storeu_ps(p, v_part(n), v); }
INLINE vf v_set(float x) { return _mm512_set1_ps(x); }
INLINE vf v_fma(vf a, vf b, vf c) { return _mm512_fmadd_ps(a, b, c); }
INLINE vf v_max(vf a, vf b) { return _mm512_max_ps(a, b); }
INLINE vf v_min(vf a, vf b) { return _mm512_min_ps(a, b); }
INLINE vf v_sqrt(vf a) { return _mm512_sqrt_ps(a); }
INLINE vf v_abs(vf a) { return _mm512_abs_ps(a); }
INLINE vm v_less(vf a, vf b) { return _mm512_cmp_ps_mask(a, b, _CMP_LT_OQ); }
INLINE vm v_equal(vf a, vf b) { return _mm512_cmp_ps_mask(a, b, _CMP_EQ_OQ); }
INLINE vf v_select(vm m, vf yes, vf no) { return _mm512_mask_blend_ps(m, no, yes); }
INLINE vi v_iset(int32_t x) { return _mm512_set1_epi32(x); }
INLINE vi v_round_int(vf a) { return _mm512_cvtps_epi32(a); }
INLINE vf v_from_int(vi a) { return _mm512_cvtepi32_ps(a); }
INLINE vi v_iadd(vi a, vi b) { return _mm512_add_epi32(a, b); }
INLINE vi v_isub(vi a, vi b) { return _mm512_sub_epi32(a, b); }
INLINE vi v_iand(vi a, vi b) { return _mm512_and_si512(a, b); }
INLINE vi v_ior(vi a, vi b) { return _mm512_or_si512(a, b); }
INLINE vi v_ixor(vi a, vi b) { return _mm512_xor_si512(a, b); }
#define v_ishl(a, n) _mm512_slli_epi32(a, n)
#define v_ishr(a, n) _mm512_srli_epi32(a, n) /* logical */
#define v_isar(a, n) _mm512_srai_epi32(a, n) /* arithmetic */
INLINE vf v_pick(vf v, vi i) { return _mm512_permutexvar_ps(i, v); }
INLINE vf v_repeat(const int g, const float *p)
{
    return g == 1    ? _mm512_set1_ps(*p)
           : g == 2  ? _mm512_castpd_ps(_mm512_set1_pd(v_pair(p)))
           : g == 4  ? _mm512_broadcast_f32x4(_mm_loadu_ps(p))
           : g == 8  ? _mm512_castpd_ps(_mm512_broadcast_f64x4(_mm256_castps_pd(_mm256_loadu_ps(p))))
                     : _mm512_loadu_ps(p);
}
INLINE vf v_as_float(vi a) { return _mm512_castsi512_ps(a); }
INLINE vi v_as_int(vf a) { return _mm512_castps_si512(a); }
/* Quarters of four rows come together as they are loaded: that leaves half of the shuffles. */
INLINE void v_load_transposed(vf *r, const float *const *p)
{
    vf t[16];
    UNROLL for (int q = 0; q < 4; q++) {
        UNROLL for (int i = 0; i < 4; i++) {
            vf v = _mm512_castps128_ps512(_mm_loadu_ps(p[i] + 4 * q));
            v = _mm512_mask_broadcast_f32x4(v, 0x00f0, _mm_loadu_ps(p[i + 4] + 4 * q));
            v = _mm512_mask_broadcast_f32x4(v, 0x0f00, _mm_loadu_ps(p[i + 8] + 4 * q));
            t[4 * q + i] = _mm512_mask_broadcast_f32x4(v, 0xf000, _mm_loadu_ps(p[i + 12] + 4 * q));
        }
    }
    UNROLL for (int q = 0; q < 16; q += 4) {
        const vf a = _mm512_unpacklo_ps(t[q], t[q + 1]), b = _mm512_unpackhi_ps(t[q], t[q + 1]);
        const vf c = _mm512_unpacklo_ps(t[q + 2], t[q + 3]), d = _mm512_unpackhi_ps(t[q + 2], t[q + 3]);
        r[q] = (vf)_mm512_unpacklo_pd((__m512d)a, (__m512d)c);
        r[q + 1] = (vf)_mm512_unpackhi_pd((__m512d)a, (__m512d)c);
        r[q + 2] = (vf)_mm512_unpacklo_pd((__m512d)b, (__m512d)d);
        r[q + 3] = (vf)_mm512_unpackhi_pd((__m512d)b, (__m512d)d);
    }
}

#elif defined(ISA_AVX2)

#define VL 8
typedef __m256 vf;
typedef __m256i vi;
typedef __m256 vm;
INLINE __m256i v_part(int64_t n)
{
    static const int32_t window[16] = {-1, -1, -1, -1, -1, -1, -1, -1, 0, 0, 0, 0, 0, 0, 0, 0};
    return _mm256_loadu_si256((const __m256i *)(window + 8 - n));
}
INLINE vf v_load(const float *p) { return _mm256_loadu_ps(p); }
INLINE void v_store(float *p, vf v) { _mm256_storeu_ps(p, v); }
INLINE vf v_load_part(const float *p, int64_t n) { return _mm256_maskload_ps(p, v_part(n)); }
INLINE void v_store_part(float *p, vf v, int64_t n) { _mm256_maskstore_ps(p, v_part(n), v); }
INLINE vf v_set(float x) { return _mm256_set1_ps(x); }
INLINE vf v_fma(vf a, vf b, vf c) { return _mm256_fmadd_ps(a, b, c); }
INLINE vf v_max(vf a, vf b) { return _mm256_max_ps(a, b); }
INLINE vf v_min(vf a, vf b) { return _mm256_min_ps(a, b); }
INLINE vf v_sqrt(vf a) { return _mm256_sqrt_ps(a); }
INLINE vf v_abs(vf a) { return _mm256_andnot_ps(_mm256_set1_ps(-0.0f), a); }
INLINE vm v_less(vf a, vf b) { return _mm256_cmp_ps(a, b, _CMP_LT_OQ); }
INLINE vm v_equal(vf a, vf b) { return _mm256_cmp_ps(a, b, _CMP_EQ_OQ); }
INLINE vf v_select(vm m, vf yes, vf no) { return _mm256_blendv_ps(no, yes, m); }
INLINE vi v_iset(int32_t x) { return _mm256_set1_epi32(x); }
INLINE vi v_round_int(vf a) { return _mm256_cvtps_epi32(a); }
INLINE vf v_from_int(vi a) { return _mm256_cvtepi32_ps(a); }
INLINE vi v_iadd(vi a, vi b) { return _mm256_add_epi32(a, b); }
INLINE vi v_isub(vi a, vi b) { return _mm256_sub_epi32(a, b); }
INLINE vi v_iand(vi a, vi b) { return _mm256_and_si256(a, b); }
INLINE vi v_ior(vi a, vi b) { return _mm256_or_si256(a, b); }
INLINE vi v_ixor(vi a, vi b) { return _mm256_xor_si256(a, b); }
#define v_ishl(a, n) _mm256_slli_epi32(a, n)
#define v_ishr(a, n) _mm256_srli_epi32(a, n)
#define v_isar(a, n) _mm256_srai_epi32(a, n)
INLINE vf v_pick(vf v, vi i) { return _mm256_permutevar8x32_ps(v, i); }
INLINE vf v_repeat(const int g, const float *p)
{
    return g == 1    ? _mm256_set1_ps(*p)
           : g == 2  ? _mm256_castpd_ps(_mm256_set1_pd(v_pair(p)))
           : g == 4  ? _mm256_broadcast_ps((const __m128 *)p)
                     : _mm256_loadu_ps(p);
}
INLINE vf v_as_float(vi a) { return _mm256_castsi256_ps(a); }
INLINE vi v_as_int(vf a) { return _mm256_castps_si256(a); }
INLINE void v_load_transposed(vf *r, const float *const *p)
{
    vf t[8];
    UNROLL for (int i = 0; i < 8; i++) r[i] = v_load(p[i]);
    UNROLL for (int i = 0; i < 8; i += 2) {
        t[i] = _mm256_unpacklo_ps(r[i], r[i + 1]);
        t[i + 1] = _mm256_unpackhi_ps(r[i], r[i + 1]);
    }
    UNROLL for (int i = 0; i < 8; i += 4) {
        UNROLL for (int j = 0; j < 2; j++) {
            r[i + 2 * j] = _mm256_shuffle_ps(t[i + j], t[i + j + 2], 0x44);
            r[i + 2 * j + 1] = _mm256_shuffle_ps(t[i + j], t[i + j + 2], 0xee);
        }
    }
    UNROLL for (int j = 0; j < 4; j++) {
        t[j] = _mm256_permute2f128_ps(r[j], r[j + 4], 0x20);
        t[j + 4] = _mm256_permute2f128_ps(r[j], r[j + 4], 0x31);
    }
    UNROLL for (int j = 0; j < 8; j++) r[j] = t[j];
}

#else

#if defined(ISA_NEON)
#define VL 4
#define v_fma(a, b, c) vfmaq_f32(c, a, b)
#define v_sqrt(a) ((vf)vsqrtq_f32(a))
typedef float32x4_t vf;
typedef int32x4_t vi;
typedef uint32x4_t vu;
typedef uint32x4_t vm;
INLINE vi v_round_int(vf a) { return vcvtnq_s32_f32(a); }
INLINE vf v_select(vm m, vf yes, vf no) { return vbslq_f32(m, yes, no); }
INLINE vf v_from_int(vi a) { return vcvtq_f32_s32(a); }
INLINE vf v_abs(vf a) { return vabsq_f32(a); }
INLINE vm v_less(vf a, vf b) { return vcltq_f32(a, b); }
INLINE vm v_equal(vf a, vf b) { return vceqq_f32(a, b); }
INLINE vf v_as_float(vi a) { return vreinterpretq_f32_s32(a); }
INLINE vi v_as_int(vf a) { return vreinterpretq_s32_f32(a); }
INLINE vf v_set(float x) { return vdupq_n_f32(x); }
INLINE vi v_iset(int32_t x) { return vdupq_n_s32(x); }
INLINE vf v_repeat(const int g, const float *p)
{
    return g == 1 ? vdupq_n_f32(*p) : g == 2 ? vcombine_f32(vld1_f32(p), vld1_f32(p)) : vld1q_f32(p);
}
INLINE vf v_pick(vf v, vi i) /* bytes 4 * i to 4 * i + 3 */
{
    const uint8x16_t at = vreinterpretq_u8_s32(vmlaq_n_s32(vdupq_n_s32(0x03020100), i, 0x04040404));
    return vreinterpretq_f32_u8(vqtbl1q_u8(vreinterpretq_u8_f32(v), at));
}
#elif defined(__GNUC__) && !defined(FASTNN_PLAIN_C) /* ISA_BASE: four floats at a time in the compiler's own vectors */
#include <math.h>
#define VL 4
typedef float vf __attribute__((vector_size(16), may_alias, aligned(4)));
typedef int32_t vi __attribute__((vector_size(16), may_alias, aligned(4)));
typedef uint32_t vu __attribute__((vector_size(16), may_alias, aligned(4)));
typedef vi vm;
INLINE vf v_fma(vf a, vf b, vf c) { return a * b + c; }
INLINE vf v_sqrt(vf a) { return (vf){sqrtf(a[0]), sqrtf(a[1]), sqrtf(a[2]), sqrtf(a[3])}; }
/* Adding 1.5 * 2^23 leaves the rounded integer in the low bits. |a| < 2^22. */
INLINE vi v_round_int(vf a) { return (vi)(a + 12582912.0f) - 0x4B400000; }
INLINE vf v_select(vm m, vf yes, vf no) { return (vf)((m & (vi)yes) | (~m & (vi)no)); }
INLINE vf v_from_int(vi a) { return __builtin_convertvector(a, vf); }
INLINE vf v_abs(vf a) { return (vf)((vi)a & 0x7FFFFFFF); }
INLINE vm v_less(vf a, vf b) { return a < b; }
INLINE vm v_equal(vf a, vf b) { return a == b; }
INLINE vf v_as_float(vi a) { return (vf)a; }
INLINE vi v_as_int(vf a) { return (vi)a; }
INLINE vf v_set(float x) { return (vf){x, x, x, x}; }
INLINE vi v_iset(int32_t x) { return (vi){x, x, x, x}; }
INLINE vf v_repeat(const int g, const float *p)
{
    return g == 1 ? (vf){p[0], p[0], p[0], p[0]} : g == 2 ? (vf){p[0], p[1], p[0], p[1]} : (vf){p[0], p[1], p[2], p[3]};
}
INLINE vf v_pick(vf v, vi i) { return (vf){v[i[0]], v[i[1]], v[i[2]], v[i[3]]}; }
#else /* ISA_BASE for any compiler: one float at a time */
#include <math.h>
#define VL 1
typedef float vf;
typedef int32_t vi;
typedef uint32_t vu;
typedef int vm;
INLINE vf v_fma(vf a, vf b, vf c) { return a * b + c; }
INLINE vf v_sqrt(vf a) { return sqrtf(a); }
INLINE vi v_round_int(vf a) { return (vi)lrintf(a); }
INLINE vf v_select(vm m, vf yes, vf no) { return m ? yes : no; }
INLINE vf v_from_int(vi a) { return (vf)a; }
INLINE vf v_abs(vf a) { return fabsf(a); }
INLINE vm v_less(vf a, vf b) { return a < b; }
INLINE vm v_equal(vf a, vf b) { return a == b; }
INLINE vf v_as_float(vi a) { vf v; memcpy(&v, &a, 4); return v; }
INLINE vi v_as_int(vf a) { vi v; memcpy(&v, &a, 4); return v; }
INLINE vf v_set(float x) { return x; }
INLINE vi v_iset(int32_t x) { return x; }
INLINE vf v_repeat(const int g, const float *p) { return (void)g, *p; }
INLINE vf v_pick(vf v, vi i) { return (void)i, v; }
#endif

INLINE vf v_load(const float *p) { vf v; memcpy(&v, p, sizeof v); return v; }
INLINE void v_store(float *p, vf v) { memcpy(p, &v, sizeof v); }
INLINE vf v_load_part(const float *p, int64_t n)
{
    float lanes[VL] = {0};
    for (int64_t i = 0; i < n; i++) lanes[i] = p[i];
    return v_load(lanes);
}
INLINE void v_store_part(float *p, vf v, int64_t n)
{
    float lanes[VL];
    v_store(lanes, v);
    for (int64_t i = 0; i < n; i++) p[i] = lanes[i];
}
INLINE void v_load_transposed(vf *r, const float *const *p)
{
    float to[VL][VL];
    for (int i = 0; i < VL; i++)
        for (int j = 0; j < VL; j++) to[j][i] = p[i][j];
    memcpy(r, to, sizeof to);
}
INLINE vf v_max(vf a, vf b) { return v_select(v_less(b, a), a, b); }
INLINE vf v_min(vf a, vf b) { return v_select(v_less(a, b), a, b); }
INLINE vi v_iadd(vi a, vi b) { return (vi)((vu)a + (vu)b); }
INLINE vi v_isub(vi a, vi b) { return (vi)((vu)a - (vu)b); }
INLINE vi v_iand(vi a, vi b) { return a & b; }
INLINE vi v_ior(vi a, vi b) { return a | b; }
INLINE vi v_ixor(vi a, vi b) { return a ^ b; }
#define v_ishl(a, n) ((vi)((vu)(a) << (n)))
#define v_ishr(a, n) ((vi)((vu)(a) >> (n)))
#define v_isar(a, n) ((a) >> (n))

#endif

INLINE vf v_zero(void) { return v_set(0.0f); }
INLINE vf v_top(vf a, vf b) { return v_select(v_equal(b, b), v_max(b, a), b); }

/* n = VL or fewer: the body of a loop and its tail in one. */
INLINE vf v_load_n(const float *p, int64_t n) { return n >= VL ? v_load(p) : v_load_part(p, n); }
INLINE void v_store_n(float *p, vf v, int64_t n)
{
    if (n >= VL) v_store(p, v);
    else v_store_part(p, v, n);
}

#endif
