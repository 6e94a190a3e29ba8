/* Arrays joined along an axis, and parts of arrays. From the axis on, a row of the output is a few runs of floats: each comes
 * from a row of an array, or is zeros. Rows are those of all axes before. */

#include "stream.h"

enum { SHORT_RUN = 16 }; /* floats of a run that is copied in one move, together with some of what follows it */

struct run {
    const float *from, *end; /* the first row's, and the end of the array; NULL: zeros */
    int64_t size, pitch;     /* floats of a run; from one to that of the next row */
};

struct join {
    int runs;
    int64_t rows, width;
    struct run run[MAX_INPUTS];
};

/* Floats of a row: of the axis and those behind it. */
INLINE int64_t joined_width(const struct tensor *t, int axis)
{
    int64_t width = 1;
    for (int a = axis; a < t->rank; a++) width *= t->size[a];
    return width;
}

INLINE void move_floats(float *to, const float *from, const int n)
{
    if (from) memcpy(to, from, n * sizeof *to);
    else memset(to, 0, n * sizeof *to);
}

/* to (n) = from (n), or zeros. What a short run writes too much, up to to_end, is written after it. */
INLINE void copy_run(float *to, const float *to_end, const float *from, const float *from_end, int64_t n, int stream)
{
    if (stream) {
        for (int64_t i = 0; i < n; i += LINE_FLOATS)
            UNROLL for (int l = 0; l < LINE; l++) v_stream(to + i + l * VL, from ? v_load(from + i + l * VL) : v_zero());
    } else if (n > SHORT_RUN) {
        if (from) copy_row(to, from, n);
        else memset(to, 0, (size_t)n * sizeof *to);
    } else if (to_end - to < SHORT_RUN || (from && from_end - from < SHORT_RUN)) {
        for (int64_t i = 0; i < n; i++) to[i] = from ? from[i] : 0.0f;
    } else if (n <= 4) {
        move_floats(to, from, 4);
    } else if (n <= 8) {
        move_floats(to, from, 8);
    } else {
        move_floats(to, from, SHORT_RUN);
    }
}

/* y (rows, width) = run after run. A task is some rows, or a piece of a long one. */
static void join_runs(const struct tensor *y, const struct join *j, const struct lane *lane)
{
    const int64_t pieces = (j->width + COPY_FLOATS - 1) / COPY_FLOATS, block = COPY_FLOATS / (j->width + 1) + 1;
    const int64_t tasks = (j->rows + block - 1) / block * pieces;
    int64_t unit = 0;
    for (int r = 0; r < j->runs; r++) unit |= j->run[r].size;
    const int stream = streams(y, unit);
    for (int64_t t = lane->id; t < tasks; t += lane->count) {
        const int64_t row0 = t / pieces * block, row1 = j->rows - row0 < block ? j->rows : row0 + block;
        const int64_t low = t % pieces * COPY_FLOATS, high = j->width - low < COPY_FLOATS ? j->width : low + COPY_FLOATS;
        const float *end = (float *)y->data + (row1 - 1) * j->width + high;
        for (int64_t row = row0; row < row1; row++) {
            float *to = (float *)y->data + row * j->width;
            int64_t begin = 0;
            for (const struct run *run = j->run; run < j->run + j->runs; begin += run->size, run++) {
                const int64_t first = begin > low ? begin : low, last = begin + run->size < high ? begin + run->size : high;
                const float *from = run->from ? run->from + row * run->pitch + (first - begin) : NULL;
                if (first < last) copy_run(to + first, end, from, run->end, last - first, stream);
            }
        }
    }
    if (stream) stream_end();
}

/* The run of x's rows that begins so far into them. */
INLINE struct run run_of(const struct tensor *x, int axis, int64_t start, int64_t size)
{
    const float *data = x->data;
    return (struct run){data + start, data + elements(x), size, joined_width(x, axis)};
}

/* y = the arrays one behind the other along the axis */
static void kernel_concatenate(const struct step *step, const struct lane *lane)
{
    const struct tensor *y = &step->out[0];
    const int axis = step->attr.axis;
    struct join j = {.runs = step->inputs, .width = joined_width(y, axis)};
    if (!elements(y)) return;
    j.rows = elements(y) / j.width;
    for (int i = 0; i < j.runs; i++) j.run[i] = run_of(&step->in[i], axis, 0, joined_width(&step->in[i], axis));
    join_runs(y, &j, lane);
}

/* y = the part of x along the axis that begins at `start` */
static void kernel_part(const struct step *step, const struct lane *lane)
{
    const struct tensor *x = &step->in[0], *y = &step->out[0];
    const int axis = step->attr.axis;
    struct join j = {.runs = 1, .width = joined_width(y, axis)};
    if (!elements(y)) return;
    j.rows = elements(y) / j.width;
    j.run[0] = run_of(x, axis, step->attr.start * (j.width / y->size[axis]), j.width);
    join_runs(y, &j, lane);
}

/* y = x as the part along the axis that begins at `start`, zeros around it */
static void kernel_embed(const struct step *step, const struct lane *lane)
{
    const struct tensor *x = &step->in[0], *y = &step->out[0];
    const int axis = step->attr.axis;
    struct join j = {.runs = 3, .width = joined_width(y, axis)};
    if (!elements(y)) return;
    j.rows = elements(y) / j.width;
    j.run[1] = run_of(x, axis, 0, joined_width(x, axis));
    j.run[0].size = step->attr.start * (j.width / y->size[axis]);
    j.run[2].size = j.width - j.run[0].size - j.run[1].size;
    join_runs(y, &j, lane);
}
