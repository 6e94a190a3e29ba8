/* A Program: steps in order, run again and again over a moving batch. */
#ifndef FASTNN_PROGRAM_H
#define FASTNN_PROGRAM_H

#include "kernels.h"

/* Where one array of one step is found: so many bytes into a buffer. A stream moves on at each run of the program by
 * `advance` bytes, times the batch size if the array has a batch axis. */
struct binding {
    int32_t step, array; /* array: outputs first, then inputs */
    int32_t buffer, stream;
    int64_t offset, advance;
};

struct program {
    struct step *steps;
    struct binding *bindings;
    int32_t n_steps, n_bindings, n_streams; /* the streams come first among the bindings */
    int64_t batch; /* the largest batch: step->work is counted for it */
};

/* Adds a binding; there is room for it. */
void program_bind(struct program *p, struct binding binding);

/* Runs the program for batches first .. last-1, batch k being rows k * batch .. min((k + 1) * batch, rows) - 1 of the
 * data, `bases` the buffers. Returns the number of the batch it has not run: `last`, or less if `seconds` have passed
 * (it stops between batches; at least one is run). The threads of the team work on each step together. */
int64_t program_run(struct program *p, void *const *bases, int64_t first, int64_t last, int64_t batch, int64_t rows,
                    double seconds);

/* The same without a time limit, for programs whose batches do not depend on each other: lane l of `count` runs the
 * batches l, l + count, ... with programs[l] and bases[l], which differ in their working memory only. */
void program_run_apart(struct program *const *programs, void *const *const *bases, int count, int64_t last,
                       int64_t batch, int64_t rows);

/* For programs between whose steps something else is done: all arrays are bound to batch k, ... */
void program_begin(struct program *p, void *const *bases, int64_t k, int64_t batch, int64_t rows);

/* ... of `size` rows, and the steps from .. to-1 run. */
void program_steps(struct program *p, int64_t size, int32_t from, int32_t to);

/* The same; seconds (to - from) = what each step took. */
void program_time(struct program *p, int64_t size, int32_t from, int32_t to, double *seconds);

/* Floating-point operations in a second that the team's threads reach together, tried for so many seconds. */
double program_peak(double seconds);

#endif
