/* How kernels are tested: a step is made of arrays with guards around them, run with every instruction set on one to four
 * lanes, and compared with what a reference says. */
#ifndef FASTNN_HARNESS_H
#define FASTNN_HARNESS_H

#include <math.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "dispatch.h"
#include "kernels.h"
#include "program.h"

#define CHECK(condition, ...)                                                                             \
    do {                                                                                                  \
        if (!(condition)) {                                                                               \
            fprintf(stderr, "%s:%d: %s: failed: %s: ", __FILE__, __LINE__, dispatch_table()->isa, #condition); \
            fprintf(stderr, __VA_ARGS__);                                                                 \
            fprintf(stderr, "\n");                                                                        \
            exit(1);                                                                                      \
        }                                                                                                 \
    } while (0)

#define COUNT_OF(list) ((int)(sizeof(list) / sizeof *(list)))

enum { LANES = 4 };
static const double SHARED = 1e9; /* a step's work, so that all lanes take part */

/* The instruction sets under test. */
extern const char *isas[4];
extern int n_isas;

/* Random configurations are one in so many: for slow checkers. */
extern int share;

/* ---- random numbers: always the same ---- */

uint64_t random_bits(void);
float uniform(double low, double high);         /* in [low, high) */
int64_t pick(int64_t low, int64_t high);        /* low .. high */
void fill(struct tensor *t, double low, double high);
void fill_whole(struct tensor *t, int64_t most); /* whole numbers -most .. most: their sums are exact */

/* How many elements: around vectors, and more than one task of a thread. */
static const int64_t lengths[] = {1, 3, 7, 8, 9, 15, 16, 17, 31, 33, 4096, 3 * 4096 + 5};
enum { N_LENGTHS = sizeof lengths / sizeof *lengths };

/* ---- steps ---- */

/* Sizes by their letters, those of axes and windows with one number each for D H W, of which the last `axes` are there. Of
 * strides and dilations 0 stands for 1. */
struct sizes {
    int64_t n, k, f, c, m, p, groups;
    int axes;
    int64_t space[MAX_SPACE], out[MAX_SPACE], kernel[MAX_SPACE];
    int64_t strides[MAX_SPACE], dilations[MAX_SPACE], before[MAX_SPACE], after[MAX_SPACE];
};

/* For lists of sizes: the axes of space that there are. */
#define SIGNAL(w) .axes = 1, .space = {0, 0, w}
#define IMAGE(h, w) .axes = 2, .space = {0, h, w}
#define VOLUME(d, h, w) .axes = 3, .space = {d, h, w}

/* z->out = how often the windows fit; 0 if the window is larger than what it slides over. */
int fit_windows(struct sizes *z);

/* A step of the kernel with arrays of these shapes: "nf=nk,kf" has an output (N,F) and inputs (N,K) and (K,F). Letters are
 * those of `sizes`; s o w stand for all axes of space, of the output's space and of the window, g for c / groups, q for
 * groups, e for c * m; a digit is a size, @ stands before int64 and # before double. Outputs are NaN, inputs random in
 * [-1, 1). The window's attributes are set, its kernel where no input says it. */
struct step make(const char *op, const char *shapes, struct sizes z);

/* Memory for the kernel: so many floats, and not one more. */
void give_workspace(struct step *s, int64_t floats);

/* Where a reference writes: want[o][i] and slack[o][i] for element i of output o. */
struct answer {
    double *want[MAX_OUTPUTS], *slack[MAX_OUTPUTS];
};
typedef void reference(const struct step *s, const struct answer *a);

enum {
    ROW_BY_ROW = 1, /* a row has the same bits alone as in a batch */
    IN_PLACE = 2,   /* the output may take the memory of an input of its size */
};

/* Runs the step with every instruction set on one to four lanes. One lane must give what the reference says, the others the
 * same bits. Then the arrays are gone. */
void check(struct step *s, const char *what, reference *expected, int also);

/* Runs the step as it is, with the instruction set in use. */
void run(struct step *s, int lanes);

/* Checks the memory around the arrays, and gives it back. */
void release_arrays(const char *what);

/* From now on a crash says in which step it was. */
void describe_crashes(void);

struct tensor *tensor_of(struct step *s, int number); /* outputs first, then inputs */

/* Every kernel in the list was made a step of. */
void check_that_all_were_tested(void);

/* ---- what is tested ---- */

void test_dense(void);
void test_losses(void);
void test_data(void);
void test_updates(void);
void test_conv(void);
void test_winograd(void);
void test_pool(void);
void test_norm(void);
void test_shape(void);
void test_join(void);
void test_augment(void);
void test_programs(void); /* of the instruction set in use */
void test_random_words(void); /* so is this */

#endif
