#if defined(__x86_64__) && defined(__GNUC__)
#include <immintrin.h>
#if defined(__clang__)
#pragma clang attribute push(__attribute__((target("avx512f,avx512bw,avx512dq,avx512vl,avx2,fma"))), apply_to = function)
#else
#pragma GCC target("avx512f,avx512bw,avx512dq,avx512vl,avx2,fma")
#endif
#define ISA_AVX512
#include "families.inc"
const struct kernel_table table_avx512 = {"avx512", kernels, peak};
#if defined(__clang__)
#pragma clang attribute pop
#endif
#endif
