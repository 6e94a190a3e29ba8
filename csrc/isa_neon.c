#if defined(__aarch64__) && defined(__GNUC__)
#include <arm_neon.h>
#define ISA_NEON
#include "families.inc"
const struct kernel_table table_neon = {"neon", kernels, peak};
#endif
