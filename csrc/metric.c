/* Metrics: whether the prediction of a row is right. N batch, C outputs or classes. */

/* 1 where (p > threshold) == y. */
INLINE vf right(vf p, vf y, float threshold)
{
    vf yes = v_select(v_less(v_set(threshold), p), v_set(1.0f), v_zero());
    return v_select(v_equal(yes, y), v_set(1.0f), v_zero());
}
ROW_MEANS(binary_accuracy, right(g, x, (float)attr->threshold))

/* The first of the largest of x (C); NaN is the largest of all, as in NumPy. */
INLINE int64_t argmax(const float *x, int64_t c)
{
    int64_t at = 0;
    for (int64_t i = 1; i < c; i++)
        if (x[i] > x[at] || (x[i] != x[i] && x[at] == x[at])) at = i;
    return at;
}

/* right (N) = argmax(p) == argmax(y) */
static void kernel_categorical_accuracy(const struct step *step, const struct lane *lane)
{
    int64_t rows = step->in[0].size[0], c = step->in[0].size[1];
    const float *p = step->in[0].data, *y = step->in[1].data;
    EACH_ROW(rows) ((float *)step->out[0].data)[row] = argmax(p + row * c, c) == argmax(y + row * c, c) ? 1.0f : 0.0f;
}

/* right (N) = argmax(p) == the label y (N,1) */
static void kernel_sparse_categorical_accuracy(const struct step *step, const struct lane *lane)
{
    int64_t rows = step->in[0].size[0], c = step->in[0].size[1];
    const float *p = step->in[0].data, *y = step->in[1].data;
    EACH_ROW(rows) ((float *)step->out[0].data)[row] = (float)argmax(p + row * c, c) == y[row] ? 1.0f : 0.0f;
}
