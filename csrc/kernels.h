/* What every kernel sees. Sizes in letters: N batch, K summed, F outputs, C classes; in images D H W depth, height, width,
 * C channels, KD KH KW kernel, OD OH OW output. */
#ifndef FASTNN_KERNELS_H
#define FASTNN_KERNELS_H

#include <stdint.h>
#include "team.h"

enum { MAX_RANK = 6, MAX_INPUTS = 6, MAX_OUTPUTS = 3, MAX_SPACE = 3 };

/* An array, contiguous but for `skip`. The engine's floats are float32; totals are double, indices and step numbers int64. */
struct tensor {
    void *data;
    int64_t size[MAX_RANK];
    int32_t rank;
    int32_t batch;    /* 1 where size[0] is the batch: the last batch of an epoch may be smaller */
    int64_t skip;     /* floats after each row that are another array's: of a slice of a larger array along the last axis */
    int32_t changing; /* 1 where the program itself overwrites it: parts of it are in the caches of other threads */
};

/* The functions a dense layer can end with. The order is that of DENSE_ACTIVATIONS in fastnn/ops/pointwise.py. */
#define ACTIVATIONS(X) \
    X(linear) X(relu) X(sigmoid) X(tanh) X(softplus) X(exponential) X(softsign) X(hard_sigmoid) X(relu6) X(selu) \
    X(gelu) X(silu) X(mish) X(hard_silu)

#define ACTIVATION_CODE(name) ACT_##name,
enum activation { ACTIVATIONS(ACTIVATION_CODE) ACT_COUNT };
#undef ACTIVATION_CODE

/* How an image goes on beyond its edges, and how pixels between pixels are found. The order is that of FILL_MODES and
 * INTERPOLATIONS in fastnn/ops/augment.py. */
enum fill_mode { FILL_CONSTANT, FILL_NEAREST, FILL_REFLECT, FILL_WRAP };
enum interpolation { INTERPOLATION_NEAREST, INTERPOLATION_BILINEAR };

/* The attributes of all ops; each reads its own. X(type, name) */
#define ATTRIBUTES(X) \
    X(double, alpha) X(double, negative_slope) X(double, limit) X(double, l1) X(double, l2) X(double, threshold) \
    X(double, rate) X(double, momentum) X(double, rho) X(double, beta_1) X(double, beta_2) X(double, epsilon) \
    X(double, weight_decay) X(double, stddev) X(int32_t, nesterov) X(int32_t, activation) X(int32_t, flip) \
    X(uint32_t, stream) X(uint64_t, seed) X(int64_t, groups) X(int64_t, index) X(int32_t, horizontal) X(int32_t, vertical) \
    X(int32_t, fill_mode) X(int32_t, interpolation) X(double, fill_value) X(double, scale) X(double, offset) X(double, beta) \
    X(double, gamma) X(double, positive) X(double, negative) X(int32_t, joint) X(int32_t, axis) X(int64_t, start)

/* Attributes with one number for each of the axes D, H, W; those that an op does not have hold the value that does
 * nothing: so one kernel serves signals (W), images (H, W) and volumes. X(name, nothing) */
#define SPACES(X) X(strides, 1) X(dilations, 1) X(kernel, 1) X(before, 0) X(after, 0)

/* Attributes that are ranges, low and high; 0 and 0 where there is none. */
#define RANGES(X) X(turns) X(heights) X(widths) X(factors) X(limits)

struct attributes {
#define ATTRIBUTE_FIELD(type, name) type name;
    ATTRIBUTES(ATTRIBUTE_FIELD)
#undef ATTRIBUTE_FIELD
#define SPACE_FIELD(name, nothing) int64_t name[MAX_SPACE];
    SPACES(SPACE_FIELD)
#undef SPACE_FIELD
    const float *class_weights; /* focal losses over classes: one number a class */
    int64_t perm[MAX_RANK]; /* transpose: axis i of the output is axis perm[i] of the input, i > 0 */
#define RANGE_FIELD(name) double name[2];
    RANGES(RANGE_FIELD)
#undef RANGE_FIELD
};

struct step;

/* Overwrites step->out from step->in. Pure: allocates nothing, checks nothing, keeps nothing; only update kernels read
 * their outputs. All lanes of the team call it; work is split by shape into tasks, and lane l of L takes the tasks l,
 * l + L, l + 2L ... A kernel that is not worth splitting is called on one lane (lane->count == 1). */
typedef void kernel(const struct step *step, const struct lane *lane);

struct step {
    kernel *run;
    struct tensor out[MAX_OUTPUTS];
    struct tensor in[MAX_INPUTS];
    struct attributes attr;
    double work; /* floating-point operations at the largest batch */
    int32_t inputs, outputs;
    void *workspace; /* memory that all lanes share while the step runs, 64-byte aligned; of the size that the op asks for */
};

/* Number of elements. */
static inline int64_t elements(const struct tensor *t)
{
    int64_t n = 1;
    for (int32_t i = 0; i < t->rank; i++) n *= t->size[i];
    return n;
}

/* Columns: the last axis. Rows: all other axes together. */
static inline int64_t columns_of(const struct tensor *t) { return t->size[t->rank - 1]; }
static inline int64_t rows_of(const struct tensor *t)
{
    int64_t n = 1;
    for (int32_t i = 0; i + 1 < t->rank; i++) n *= t->size[i];
    return n;
}

/* From one row to the next, in floats. */
static inline int64_t pitch_of(const struct tensor *t) { return columns_of(t) + t->skip; }

/* One table an instruction set, the kernels in the order of kernels.inc. */
struct kernel_table {
    const char *isa;
    kernel *const *kernels;
    double (*peak)(void); /* works at full speed for a while; returns the floating-point operations done */
};

extern const struct kernel_table table_base, table_avx2, table_avx512, table_neon;

#endif
