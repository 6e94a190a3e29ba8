/* Tests of the C core: every kernel with every instruction set of this machine against a reference, and the running of
 * programs. core_*.c have the tests, reference_*.h what they compare with, harness.h how. */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <ctype.h>
#include <unistd.h>

#include "reference.h"

static void unknown_names_are_refused(void)
{
    const struct kernel_table *table = dispatch_table();
    static const char *const unknown[] = {"", "nothing", "matmu", "matmul_", "Dense", "linear_dx"};
    for (int i = 0; i < 6; i++) {
        CHECK(dispatch_kernel(unknown[i]) == NULL, "%s", unknown[i]);
        CHECK(dispatch_activation(unknown[i]) == -1, "%s", unknown[i]);
    }
    CHECK(dispatch_choose("mmx") == -1 && !dispatch_has("mmx") && dispatch_choose("AVX2") == -1, "unknown instruction sets");
    CHECK(dispatch_table() == table, "a refused choice changes nothing");
    CHECK(dispatch_choose(NULL) == 0, "the best");
    const struct kernel_table *best = dispatch_table();
    CHECK(dispatch_choose("base") == 0 && !strcmp(dispatch_table()->isa, "base"), "there is always one");
    CHECK(dispatch_choose("") == 0 && dispatch_table() == best, "the best");
}

static void names_and_codes_go_together(void)
{
    for (int i = 0; i < ACT_COUNT; i++) {
        CHECK(dispatch_activation(functions[i].name) == i, "%s", functions[i].name);
        CHECK(i == ACT_linear || dispatch_kernel(functions[i].name) != NULL, "%s", functions[i].name);
    }
    static const char *const names[] = {
#define KERNEL(name) #name,
#include "kernels.inc"
#undef KERNEL
    };
    for (int i = 0; i < COUNT_OF(names); i++)
        CHECK(dispatch_kernel(names[i]) == dispatch_table()->kernels[i], "%s", names[i]);
}

/* test_core [SHARE] [ISA ...]: one in SHARE of the random configurations, all by default; the instruction sets to test, all
 * that this machine has by default. */
int main(int argc, char **argv)
{
    static const char *const all[] = {"base", "avx2", "avx512", "neon"};
    int first = 1;
    alarm(1200); /* a hang is a failure */
    if (argc > 1 && isdigit((unsigned char)*argv[1])) share = atoi(argv[first++]);
    describe_crashes();
    CHECK(share > 0, "%d", share);
    for (int i = 0; i < 4; i++) {
        int wanted = argc == first;
        for (int j = first; j < argc; j++) wanted |= !strcmp(argv[j], all[i]);
        if (wanted && dispatch_has(all[i])) isas[n_isas++] = all[i];
    }
    CHECK(n_isas, "an instruction set");
    unknown_names_are_refused();
    for (int i = 0; i < n_isas; i++) {
        CHECK(dispatch_choose(isas[i]) == 0, "%s", isas[i]);
        names_and_codes_go_together();
        test_random_words();
        test_programs();
    }
    static void (*const families[])(void) = {test_dense, test_losses, test_data, test_updates, test_conv, test_winograd,
                                             test_pool, test_norm, test_shape, test_join, test_augment};
    for (int i = 0; i < COUNT_OF(families); i++) families[i]();
    check_that_all_were_tested();
    for (int i = 0; i < n_isas; i++) printf("test_core: %s passed\n", isas[i]);
    return 0;
}
