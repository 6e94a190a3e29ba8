/* Softmax along rows, which lie along all axes but the last. N rows, C classes. A row of up to VL classes is one vector. */

enum { ROW_TASK = 64 }; /* rows */

/* For every row of this lane. */
#define EACH_ROW(rows)                                                                            \
    for (int64_t t = lane->id; t * ROW_TASK < (rows); t += lane->count)                           \
        for (int64_t row = t * ROW_TASK; row < (rows) && row < (t + 1) * ROW_TASK; row++)

/* The row's maximum; any number if there is a NaN, which comes through the sum of exponentials. */
INLINE float row_max(const float *x, int64_t c)
{
    vf most = v_set(-INFINITY);
    for (int64_t i = 0; i < c; i += VL) most = v_max(most, v_fill(v_load_n(x + i, c - i), c - i, -INFINITY));
    return v_largest(most);
}

/* sum(exp(x - most)) of a row; the exponentials are kept in e (C) unless it is NULL. */
INLINE float row_exp(float *e, const float *x, int64_t c, float most)
{
    vf sum = v_zero();
    for (int64_t i = 0; i < c; i += VL) {
        vf v = v_exp(v_load_n(x + i, c - i) - v_set(most));
        if (e) v_store_n(e + i, v, c - i);
        sum = sum + v_fill(v, c - i, 0.0f);
    }
    return v_sum(sum);
}

/* y (N,C) = exp(x) / sum(exp(x)) */
static void kernel_softmax(const struct step *step, const struct lane *lane)
{
    int64_t rows = rows_of(&step->out[0]), c = columns_of(&step->out[0]);
    EACH_ROW(rows) {
        float *y = (float *)step->out[0].data + row * c;
        const float *x = (const float *)step->in[0].data + row * c;
        vf scale = v_set(1.0f / row_exp(y, x, c, row_max(x, c)));
        for (int64_t i = 0; i < c; i += VL) v_store_n(y + i, v_load_n(y + i, c - i) * scale, c - i);
    }
}

/* dx (N,C) = y * (g - sum(g * y)) */
static void kernel_softmax_dx(const struct step *step, const struct lane *lane)
{
    int64_t rows = rows_of(&step->out[0]), c = columns_of(&step->out[0]);
    EACH_ROW(rows) {
        float *dx = (float *)step->out[0].data + row * c;
        const float *g = (const float *)step->in[0].data + row * c, *y = (const float *)step->in[1].data + row * c;
        vf sum = v_zero();
        for (int64_t i = 0; i < c; i += VL) sum = v_fma(v_load_n(g + i, c - i), v_load_n(y + i, c - i), sum);
        sum = v_set(v_sum(sum));
        for (int64_t i = 0; i < c; i += VL)
            v_store_n(dx + i, v_load_n(y + i, c - i) * (v_load_n(g + i, c - i) - sum), c - i);
    }
}
