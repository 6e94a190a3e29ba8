#if defined(__x86_64__) && defined(__GNUC__)
#include <immintrin.h>
#if defined(__clang__)
#pragma clang attribute push(__attribute__((target("avx2,fma"))), apply_to = function)
#else
#pragma GCC target("avx2,fma")
#endif
#define ISA_AVX2
#include "families.inc"
const struct kernel_table table_avx2 = {"avx2", kernels, peak};
#if defined(__clang__)
#pragma clang attribute pop
#endif
#endif
