/* Elementary functions on vectors, and sums along them. "q" polynomials are minimax fits (Lawson-weighted least squares on
 * Chebyshev nodes); each says its interval, degree and relative error. NaN gives NaN everywhere. Largest errors are in
 * units in the last place (ulp) against the exact value, with fused multiply-add / without it (baseline).
 * The engine runs with denormals as zero, so a result below 1.2e-38 is 0 and an argument below it counts as 0.
 */
#ifndef FASTNN_VMATH_H
#define FASTNN_VMATH_H

#include <math.h>
#include "simd.h"

/* The numbers of the lanes, enough for every VL. */
static const float lane_numbers[16] = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15};

/* v in the first n lanes, x in the others: what pads a row for a sum (0) or a maximum (-inf). */
INLINE vf v_fill(vf v, int64_t n, float x)
{
    return n >= VL ? v : v_select(v_less(v_load(lane_numbers), v_set((float)n)), v, v_set(x));
}

/* The sum of the lanes: halves added to halves. */
INLINE float v_sum(vf v)
{
#if defined(ISA_AVX512) || defined(ISA_AVX2)
#if defined(ISA_AVX512)
    __m256 h = _mm256_add_ps(_mm512_castps512_ps256(v), _mm512_extractf32x8_ps(v, 1));
#else
    __m256 h = v;
#endif
    __m128 q = _mm_add_ps(_mm256_castps256_ps128(h), _mm256_extractf128_ps(h, 1));
    q = _mm_add_ps(q, _mm_movehl_ps(q, q));
    return _mm_cvtss_f32(_mm_add_ss(q, _mm_movehdup_ps(q)));
#else
    float lane[VL];
    v_store(lane, v);
    for (int half = VL / 2; half; half /= 2)
        for (int i = 0; i < half; i++) lane[i] += lane[i + half];
    return lane[0];
#endif
}

/* The largest lane; of no meaning if one is NaN. */
INLINE float v_largest(vf v)
{
#if defined(ISA_AVX512) || defined(ISA_AVX2)
#if defined(ISA_AVX512)
    __m256 h = _mm256_max_ps(_mm512_castps512_ps256(v), _mm512_extractf32x8_ps(v, 1));
#else
    __m256 h = v;
#endif
    __m128 q = _mm_max_ps(_mm256_castps256_ps128(h), _mm256_extractf128_ps(h, 1));
    q = _mm_max_ps(q, _mm_movehl_ps(q, q));
    return _mm_cvtss_f32(_mm_max_ss(q, _mm_movehdup_ps(q)));
#else
    float lane[VL];
    v_store(lane, v);
    for (int i = 1; i < VL; i++) lane[0] = lane[i] > lane[0] ? lane[i] : lane[0];
    return lane[0];
#endif
}

#define LOG2_HIGH 0.693359375f      /* nine bits: a small integer times it is exact */
#define LOG2_LOW (-2.12194440e-4f)

/* x = n log 2 + r, |r| <= (log 2) / 2. */
INLINE vf reduce_exp(vf x, vi *n)
{
    *n = v_round_int(x * v_set(1.44269504f));
    vf k = v_from_int(*n);
    return v_fma(k, v_set(-LOG2_LOW), v_fma(k, v_set(-LOG2_HIGH), x));
}

/* e^x. q(r) = (e^r - 1 - r) / r^2, degree 4, error of e^r 3.1e-9. The power of two goes in by halves, for its ends.
 * 1.1 / 1.1 ulp. */
INLINE vf v_exp(vf x)
{
    vi n;
    vf r = reduce_exp(v_max(v_set(-104.0f), v_min(v_set(89.0f), x)), &n);
    vf q = v_fma(r, v_set(0.00138143182f), v_set(0.00836885162f));
    q = v_fma(r, q, v_set(0.0416684002f));
    q = v_fma(r, q, v_set(0.166665196f));
    q = v_fma(r, q, v_set(0.5f));
    vf e = v_fma(r * r, q, r) + v_set(1.0f);
    vi half = v_isar(n, 1);
    e = e * v_as_float(v_ishl(v_iadd(half, v_iset(127)), 23));
    return e * v_as_float(v_ishl(v_iadd(v_isub(n, half), v_iset(127)), 23));
}

/* (e^x - 1) / 2. q as above, degree 5, error of e^r - 1 2.4e-10. */
INLINE vf half_expm1(vf x)
{
    vi n;
    vf r = reduce_exp(v_max(v_set(-80.0f), v_min(v_set(89.0f), x)), &n);
    vf q = v_fma(r, v_set(0.000198458918f), v_set(0.00139408233f));
    q = v_fma(r, q, v_set(0.00833338965f));
    q = v_fma(r, q, v_set(0.0416663587f));
    q = v_fma(r, q, v_set(0.166666657f));
    q = v_fma(r, q, v_set(0.5f));
    vf e = v_fma(r * r, q, r), half = v_as_float(v_ishl(v_iadd(n, v_iset(126)), 23));
    return v_fma(e, half, half - v_set(0.5f));
}

/* e^x - 1. 1.5 / 1.4 ulp. */
INLINE vf v_expm1(vf x)
{
    return half_expm1(x) * v_set(2.0f);
}

/* log(2^e (1 + f)), sqrt(1/2) <= 1 + f < sqrt(2). q(f) = (log(1 + f) - f + f^2/2) / f^3, degree 7, error 5.8e-9. */
INLINE vf log_parts(vf e, vf f)
{
    vf q = v_fma(f, v_set(-0.0763442963f), v_set(0.127615497f));
    q = v_fma(f, q, v_set(-0.131601945f));
    q = v_fma(f, q, v_set(0.142017618f));
    q = v_fma(f, q, v_set(-0.166233569f));
    q = v_fma(f, q, v_set(0.200012267f));
    q = v_fma(f, q, v_set(-0.250008225f));
    q = v_fma(f, q, v_set(0.333333313f));
    vf f2 = f * f;
    vf low = v_fma(f2 * f, q, e * v_set(LOG2_LOW));
    low = v_fma(f2, v_set(-0.5f), low);
    return v_fma(e, v_set(LOG2_HIGH), f + low);
}

/* The exponent of x > 0, times 2^23, that leaves 1 + f within sqrt(1/2) .. sqrt(2). */
INLINE vi log_exponent(vf x)
{
    return v_iand(v_isub(v_as_int(x), v_iset(0x3F3504F3)), v_iset((int32_t)0xFF800000));
}

/* log x: -inf at 0, NaN below. 0.9 / 0.9 ulp. */
INLINE vf v_log(vf x)
{
    vi e = log_exponent(x);
    vf y = log_parts(v_from_int(v_isar(e, 23)), v_as_float(v_isub(v_as_int(x), e)) - v_set(1.0f));
    vf inf = v_set(INFINITY);
    y = v_select(v_less(x, inf), y, x);                                       /* inf and NaN: themselves */
    y = v_select(v_less(x, v_set(1.17549435e-38f)), v_zero() - inf, y);       /* 0 */
    return v_select(v_less(x, v_zero()), v_as_float(v_iset(0x7FC00000)), y);
}

/* log(1 + x) for -1 < x <= 1; what rounding 1 + x loses is put back. 1.5 / 1.5 ulp. */
INLINE vf v_log1p(vf x)
{
    vf u = v_set(1.0f) + x;
    vi e = log_exponent(u);
    vf scale = v_as_float(v_isub(v_iset(0x3F800000), e)); /* 2^-e */
    vf lost = x - (u - v_set(1.0f));
    vf f = v_fma(lost, scale, v_as_float(v_isub(v_as_int(u), e)) - v_set(1.0f));
    return log_parts(v_from_int(v_isar(e, 23)), f);
}

/* The square root of v >= 0 to 1 ulp, faster than the exact one where the division that follows would wait for it. Counts
 * an argument below 1.2e-38 (0) as that. */
INLINE vf v_root(vf v)
{
#if defined(ISA_AVX512)
    vf some = v_max(v_set(1.2e-38f), v), inverse = _mm512_rsqrt14_ps(some), root = some * inverse;
    /* Newton's step; v * (inverse * inverse) would leave the range. */
    root = v_fma(root, v_fma(-root, inverse * v_set(0.5f), v_set(0.5f)), root);
    return v_select(v_less(v, v_set(INFINITY)), root, v);
#else
    return v_sqrt(v);
#endif
}

/* tanh |x| = h / (h + 1), h = (e^2|x| - 1) / 2, then the sign. 2.4 / 2.4 ulp. */
INLINE vf v_tanh(vf x)
{
    vf h = half_expm1(v_min(v_set(20.0f), v_abs(x) * v_set(2.0f)));
    vi sign = v_iand(v_as_int(x), v_as_int(v_set(-0.0f)));
    return v_as_float(v_ior(v_as_int(h / (h + v_set(1.0f))), sign));
}

/* 1 / (1 + e^-x). 2.3 / 2.3 ulp. */
INLINE vf v_sigmoid(vf x)
{
    return v_set(1.0f) / (v_set(1.0f) + v_exp(-x));
}

/* log(1 + e^-|x|), the part of softplus that is smooth at both ends. */
INLINE vf softplus_rest(vf x)
{
    return v_log1p(v_exp(-v_abs(x)));
}

/* log(1 + e^x). 1.7 / 1.7 ulp. */
INLINE vf v_softplus(vf x)
{
    return v_max(v_zero(), x) + softplus_rest(x);
}

/* bell = e^(-x^2 / 2), and with it the normal distribution function: bell R(w), w = (t - 3) / (t + 3), at -t = -|x|, the
 * rest to 1 above; R of degree 9 on t <= 14.5, error 9.3e-9. Absolute error 1.4e-7 / 1.7e-7; 4 / 5 ulp for x > -1, and
 * below that growing as x^2 / 2: 18 ulp at -6, 68 at -12. */
INLINE vf v_normal_cdf(vf x, vf *bell)
{
    vf t = v_min(v_set(14.5f), v_abs(x));
    vf w = (t - v_set(3.0f)) / (t + v_set(3.0f));
    vf r = v_fma(w, v_set(5.31614824e-05f), v_set(0.000115013849f));
    r = v_fma(w, r, v_set(-0.00033901236f));
    r = v_fma(w, r, v_set(-0.000983288512f));
    r = v_fma(w, r, v_set(0.00290438719f));
    r = v_fma(w, r, v_set(0.00613194238f));
    r = v_fma(w, r, v_set(-0.0462132618f));
    r = v_fma(w, r, v_set(0.123225041f));
    r = v_fma(w, r, v_set(-0.206402615f));
    r = v_fma(w, r, v_set(0.121513948f));
    *bell = v_exp(t * t * v_set(-0.5f));
    vf tail = *bell * r;
    return v_select(v_less(v_zero(), x), v_set(1.0f) - tail, tail);
}

#endif
