/* Losses, one value a row, and their gradients; running sums. N rows, which lie along all axes but the last: those of
 * images are pixels; C outputs or classes. p is the prediction or its logits, y the target, (N,C) or, for labels, (N,1). */

#define EPSILON 1e-7f /* probabilities are kept this far from 0 and 1 before a logarithm */

INLINE vf probability(vf p) { return v_clip(p, EPSILON, 1.0f - EPSILON); }
/* v where EPSILON < p < 1 - EPSILON, else 0 */
INLINE vf where_inside(vf p, vf v)
{
    return v_select(v_less(v_set(EPSILON), p), v_select(v_less(p, v_set(1.0f - EPSILON)), v, v_zero()), v_zero());
}

/* ----------------------------------------------------------------------------- losses that are means along the row */

INLINE vf mean_squared_error(vf p, vf y) { return (p - y) * (p - y); }
INLINE vf mean_squared_error_slope(vf p, vf y) { return v_set(2.0f) * (p - y); }

INLINE vf mean_absolute_error(vf p, vf y) { return v_abs(p - y); }
INLINE vf mean_absolute_error_slope(vf p, vf y) { return v_sign(p - y); }

INLINE vf binary_crossentropy(vf p, vf y)
{
    vf q = probability(p);
    return -(y * v_log(q) + (v_set(1.0f) - y) * v_log1p(-q));
}
INLINE vf binary_crossentropy_slope(vf p, vf y)
{
    vf q = probability(p);
    return where_inside(p, (q - y) / (q * (v_set(1.0f) - q)));
}

/* softplus(z) - y z, the large terms first: they may cancel exactly. */
INLINE vf sigmoid_crossentropy(vf z, vf y) { return (v_max(v_zero(), z) - y * z) + softplus_rest(z); }
INLINE vf sigmoid_crossentropy_slope(vf z, vf y) { return v_sigmoid(z) - y; }

/* out (N) = mean of term(p, y); a single column is worked on as one vector of rows. `term` is in terms of vectors g and x,
 * the prediction and the target. */
#define ROW_MEANS(name, term)                                                                        \
    static void kernel_##name(const struct step *step, const struct lane *lane)                      \
    {                                                                                                \
        int64_t total = rows_of(&step->in[0]), c = columns_of(&step->in[0]);                         \
        const struct attributes *attr = &step->attr;                                                 \
        const float *p = step->in[0].data, *y = step->in[1].data;                                    \
        float *out = step->out[0].data;                                                              \
        (void)attr;                                                                                  \
        if (c == 1) {                                                                                \
            EACH_TASK(total) EACH_2(out + at, p + at, y + at, n, term);                              \
            return;                                                                                  \
        }                                                                                            \
        EACH_ROW(total) {                                                                            \
            vf sum = v_zero();                                                                       \
            for (int64_t i = 0, at = row * c; i < c; i += VL) {                                      \
                vf g = v_load_n(p + at + i, c - i), x = v_load_n(y + at + i, c - i);                 \
                sum = sum + v_fill(term, c - i, 0.0f);                                               \
            }                                                                                        \
            out[row] = v_sum(sum) / (float)c;                                                        \
        }                                                                                            \
    }

/* dp (N,C) = g (N) / C * slope(p, y) */
#define ROW_MEANS_DX(name, slope)                                                                    \
    static void kernel_##name(const struct step *step, const struct lane *lane)                      \
    {                                                                                                \
        int64_t total = rows_of(&step->out[0]), c = columns_of(&step->out[0]);                       \
        const float *rows = step->in[0].data, *p = step->in[1].data, *y = step->in[2].data;          \
        float *dp = step->out[0].data;                                                               \
        const struct attributes *attr = &step->attr;                                                 \
        (void)attr;                                                                                  \
        if (c == 1) {                                                                                \
            EACH_TASK(total)                                                                         \
                for (int64_t i = at; i < at + n; i += VL) {                                          \
                    vf g = v_load_n(p + i, at + n - i), x = v_load_n(y + i, at + n - i);             \
                    v_store_n(dp + i, v_load_n(rows + i, at + n - i) * slope, at + n - i);           \
                }                                                                                    \
            return;                                                                                  \
        }                                                                                            \
        EACH_ROW(total) {                                                                            \
            vf scale = v_set(rows[row] / (float)c);                                                  \
            EACH_2(dp + row * c, p + row * c, y + row * c, c, scale * slope);                        \
        }                                                                                            \
    }

#define MEAN_LOSSES(X) X(mean_squared_error) X(mean_absolute_error) X(binary_crossentropy) X(sigmoid_crossentropy)
#define KERNELS(name) ROW_MEANS(name, name(g, x)) ROW_MEANS_DX(name##_dx, name##_slope(g, x))
MEAN_LOSSES(KERNELS)
#undef KERNELS

/* --------------------------------------------------------------------------------------- losses over the classes */

/* Classes i .. i + VL of a row's target: y (C), or one-hot at the label y (1). */
INLINE vf target(const float *y, int64_t i, int64_t c, int sparse)
{
    if (!sparse) return v_load_n(y + i, c - i);
    return v_select(v_equal(v_load(lane_numbers), v_set(*y - (float)i)), v_set(1.0f), v_zero());
}

INLINE float row_sum(const float *x, int64_t c)
{
    vf sum = v_zero();
    for (int64_t i = 0; i < c; i += VL) sum = sum + v_load_n(x + i, c - i);
    return v_sum(sum);
}

/* loss (N) = -sum(y log(p / sum(p))) */
INLINE void categorical(const struct step *step, const struct lane *lane, int sparse)
{
    int64_t rows = rows_of(&step->in[0]), c = columns_of(&step->in[0]);
    EACH_ROW(rows) {
        const float *p = (const float *)step->in[0].data + row * c;
        const float *y = (const float *)step->in[1].data + row * (sparse ? 1 : c);
        vf total = v_set(row_sum(p, c)), sum = v_zero();
        for (int64_t i = 0; i < c; i += VL)
            sum = sum + v_fill(target(y, i, c, sparse) * v_log(probability(v_load_n(p + i, c - i) / total)), c - i, 0.0f);
        ((float *)step->out[0].data)[row] = -v_sum(sum);
    }
}

/* dp (N,C) = g (N) * (slope - sum(slope * q)) / sum(p), slope = -y / q inside, q = p / sum(p) */
INLINE void categorical_dx(const struct step *step, const struct lane *lane, int sparse)
{
    int64_t rows = rows_of(&step->out[0]), c = columns_of(&step->out[0]);
    EACH_ROW(rows) {
        float *dp = (float *)step->out[0].data + row * c;
        const float *p = (const float *)step->in[1].data + row * c;
        const float *y = (const float *)step->in[2].data + row * (sparse ? 1 : c);
        float sum_p = row_sum(p, c);
        vf total = v_set(sum_p), sum = v_zero();
        for (int64_t i = 0; i < c; i += VL) {
            vf q = v_load_n(p + i, c - i) / total, slope = where_inside(q, -target(y, i, c, sparse) / probability(q));
            v_store_n(dp + i, slope, c - i);
            sum = sum + v_fill(slope * q, c - i, 0.0f);
        }
        vf dot = v_set(v_sum(sum)), scale = v_set(((const float *)step->in[0].data)[row] / sum_p);
        for (int64_t i = 0; i < c; i += VL) v_store_n(dp + i, (v_load_n(dp + i, c - i) - dot) * scale, c - i);
    }
}

/* loss (N) = -sum(y * (z - max(z) - log(sum(exp(z - max(z)))))) */
INLINE void softmax_loss(const struct step *step, const struct lane *lane, int sparse)
{
    int64_t rows = rows_of(&step->in[0]), c = columns_of(&step->in[0]);
    EACH_ROW(rows) {
        const float *z = (const float *)step->in[0].data + row * c;
        const float *y = (const float *)step->in[1].data + row * (sparse ? 1 : c);
        float most = row_max(z, c);
        vf log_total = v_log(v_set(row_exp(NULL, z, c, most))), sum = v_zero();
        for (int64_t i = 0; i < c; i += VL) {
            vf log_p = (v_load_n(z + i, c - i) - v_set(most)) - log_total;
            sum = sum + v_fill(target(y, i, c, sparse) * log_p, c - i, 0.0f);
        }
        ((float *)step->out[0].data)[row] = -v_sum(sum);
    }
}

/* dz (N,C) = g (N) * (softmax(z) * sum(y) - y) */
INLINE void softmax_loss_dx(const struct step *step, const struct lane *lane, int sparse)
{
    int64_t rows = rows_of(&step->out[0]), c = columns_of(&step->out[0]);
    EACH_ROW(rows) {
        float *dz = (float *)step->out[0].data + row * c;
        const float *z = (const float *)step->in[1].data + row * c;
        const float *y = (const float *)step->in[2].data + row * (sparse ? 1 : c);
        float total = row_exp(dz, z, c, row_max(z, c));
        vf g = v_set(((const float *)step->in[0].data)[row]), scale = v_set((sparse ? 1.0f : row_sum(y, c)) / total);
        for (int64_t i = 0; i < c; i += VL)
            v_store_n(dz + i, g * (v_load_n(dz + i, c - i) * scale - target(y, i, c, sparse)), c - i);
    }
}

#define CLASS_LOSS(name, rule, sparse)                                            \
    static void kernel_##name(const struct step *step, const struct lane *lane)       \
    {                                                                             \
        rule(step, lane, sparse);                                                 \
    }                                                                             \
    static void kernel_##name##_dx(const struct step *step, const struct lane *lane)  \
    {                                                                             \
        rule##_dx(step, lane, sparse);                                            \
    }
CLASS_LOSS(categorical_crossentropy, categorical, 0)
CLASS_LOSS(sparse_categorical_crossentropy, categorical, 1)
CLASS_LOSS(softmax_crossentropy, softmax_loss, 0)
CLASS_LOSS(sparse_softmax_crossentropy, softmax_loss, 1)

/* ------------------------------------------------------------------------------------- from rows to the batch */

/* g (N) = 1 / N */
static void kernel_mean_seed(const struct step *step, const struct lane *lane)
{
    float *g = step->out[0].data;
    int64_t n = step->out[0].size[0];
    if (lane->id) return;
    for (int64_t i = 0; i < n; i++) g[i] = (float)(1.0 / (double)n);
}

/* out (N) = rows (N) + s (1) */
static void kernel_add_rows(const struct step *step, const struct lane *lane)
{
    int64_t n = step->out[0].size[0];
    float *out = step->out[0].data;
    const float *rows = step->in[0].data;
    vf s = v_set(*(const float *)step->in[1].data);
    if (lane->id) return;
    EACH_1(out, rows, n, x + s);
}

/* s (1) = sum(rows) */
static void kernel_sum_all(const struct step *step, const struct lane *lane)
{
    if (lane->id) return;
    *(float *)step->out[0].data = row_sum(step->in[0].data, step->in[0].size[0]);
}

/* total (...) += sum(rows (N,...)), in double, row after row */
static void kernel_accumulate(const struct step *step, const struct lane *lane)
{
    const float *rows = step->in[0].data;
    double *total = step->out[0].data;
    int64_t n = step->in[0].size[0], size = elements(&step->out[0]);
    if (lane->id) return;
    for (int64_t j = 0; j < size; j++) {
        double sum = total[j];
        for (int64_t i = 0; i < n; i++) sum += (double)rows[i * size + j];
        total[j] = sum;
    }
}
