#include "dispatch.h"

#include <stddef.h>
#include <string.h>

static const char *const kernel_names[] = {
#define KERNEL(name) #name,
#include "kernels.inc"
#undef KERNEL
};
enum { KERNELS = sizeof kernel_names / sizeof *kernel_names };

#define ACTIVATION_NAME(name) #name,
static const char *const activation_names[] = {ACTIVATIONS(ACTIVATION_NAME)};
#undef ACTIVATION_NAME

#if defined(__x86_64__) && defined(__GNUC__)
#include <cpuid.h>

/* The CPU has the instructions (cpuid) and the operating system saves the registers (xgetbv). */
static int cpu_has(int avx512)
{
    unsigned a, b, c, d, low, high;
    if (!__get_cpuid(1, &a, &b, &c, &d)) return 0;
    const unsigned fma = 1u << 12, osxsave = 1u << 27, avx = 1u << 28;
    if ((c & (fma | osxsave | avx)) != (fma | osxsave | avx)) return 0;
    __asm__ volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
    const unsigned ymm = 0x6, zmm = 0xe6;
    if ((low & ymm) != ymm || !__get_cpuid_count(7, 0, &a, &b, &c, &d)) return 0;
    const unsigned avx2 = 1u << 5, f = 1u << 16, dq = 1u << 17, bw = 1u << 30, vl = 1u << 31;
    if (!(b & avx2)) return 0;
    return !avx512 || ((b & (f | dq | bw | vl)) == (f | dq | bw | vl) && (low & zmm) == zmm);
}
static int has_avx2(void) { return cpu_has(0); }
static int has_avx512(void) { return cpu_has(1); }
#endif

static int has_always(void) { return 1; }

/* Best last. */
static const struct candidate {
    const struct kernel_table *table;
    int (*usable)(void);
} candidates[] = {
    {&table_base, has_always},
#if defined(__x86_64__) && defined(__GNUC__)
    {&table_avx2, has_avx2},
    {&table_avx512, has_avx512},
#endif
#if defined(__aarch64__) && defined(__GNUC__)
    {&table_neon, has_always},
#endif
};
enum { CANDIDATES = sizeof candidates / sizeof *candidates };

static const struct kernel_table *chosen;

static const struct kernel_table *find(const char *isa)
{
    for (int i = CANDIDATES - 1; i >= 0; i--)
        if ((!isa || !*isa || !strcmp(isa, candidates[i].table->isa)) && candidates[i].usable()) return candidates[i].table;
    return NULL;
}

int dispatch_choose(const char *isa)
{
    const struct kernel_table *table = find(isa);
    if (!table) return -1;
    chosen = table;
    return 0;
}

int dispatch_has(const char *isa) { return find(isa) != NULL; }

const struct kernel_table *dispatch_table(void)
{
    if (!chosen) chosen = find(NULL);
    return chosen;
}

kernel *dispatch_kernel(const char *op)
{
    for (int i = 0; i < KERNELS; i++)
        if (!strcmp(op, kernel_names[i])) return dispatch_table()->kernels[i];
    return NULL;
}

int dispatch_activation(const char *name)
{
    for (int i = 0; i < ACT_COUNT; i++)
        if (!strcmp(name, activation_names[i])) return i;
    return -1;
}
