#define ISA_BASE
#include "families.inc"
const struct kernel_table table_base = {"base", kernels, peak};
