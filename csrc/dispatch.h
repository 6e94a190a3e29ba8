/* Which kernels run on this machine. */
#ifndef FASTNN_DISPATCH_H
#define FASTNN_DISPATCH_H

#include "kernels.h"

/* The table in use: the best that the CPU and the operating system support, or the one that dispatch_choose named. */
const struct kernel_table *dispatch_table(void);

/* Takes the table of that instruction set from now on: "base", "avx2", "avx512", "neon"; NULL or "" for the best.
 * 0, or -1 if this machine or this build has no such table. */
int dispatch_choose(const char *isa);

/* Whether this machine and this build have the instruction set. */
int dispatch_has(const char *isa);

/* The kernel of an op in the table in use, or NULL. */
kernel *dispatch_kernel(const char *op);

/* The code of an activation, or -1. */
int dispatch_activation(const char *name);

#endif
