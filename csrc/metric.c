/* Metrics: whether the prediction of a row is right. N rows, which lie along all axes but the last, C outputs or classes. */

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
    int64_t rows = rows_of(&step->in[0]), c = columns_of(&step->in[0]);
    const float *p = step->in[0].data, *y = step->in[1].data;
    EACH_ROW(rows) ((float *)step->out[0].data)[row] = argmax(p + row * c, c) == argmax(y + row * c, c) ? 1.0f : 0.0f;
}

/* right (N) = argmax(p) == the label y (N,1) */
static void kernel_sparse_categorical_accuracy(const struct step *step, const struct lane *lane)
{
    int64_t rows = rows_of(&step->in[0]), c = columns_of(&step->in[0]);
    const float *p = step->in[0].data, *y = step->in[1].data;
    EACH_ROW(rows) ((float *)step->out[0].data)[row] = (float)argmax(p + row * c, c) == y[row] ? 1.0f : 0.0f;
}

/* The class of a row of targets y (C), or its label y (1). */
INLINE int64_t true_class(const float *y, int64_t columns, int64_t c)
{
    return columns < c ? (int64_t)*y : argmax(y, c);
}

/* counts (N,3,C): pixels of p (N,P,C) where a class is predicted rightly, wrongly, and where it is missed; y (N,P,C) or
 * labels (N,P,1), which are classes */
static void kernel_class_counts(const struct step *step, const struct lane *lane)
{
    const int64_t n = step->out[0].size[0], c = step->out[0].size[2], columns = columns_of(&step->in[1]);
    const int64_t pixels = n ? rows_of(&step->in[0]) / n : 0;
    int64_t *count = lane->scratch;
    for (int64_t t = lane->id; t < n; t += lane->count) {
        const float *p = (const float *)step->in[0].data + t * pixels * c;
        const float *y = (const float *)step->in[1].data + t * pixels * columns;
        memset(count, 0, sizeof *count * (size_t)(3 * c));
        for (int64_t q = 0; q < pixels; q++) {
            const int64_t found = argmax(p + q * c, c), truth = true_class(y + q * columns, columns, c);
            if (found == truth) {
                count[found]++;
            } else {
                count[c + found]++;
                count[2 * c + truth]++;
            }
        }
        for (int64_t i = 0; i < 3 * c; i++) ((float *)step->out[0].data)[t * 3 * c + i] = (float)count[i];
    }
}

/* counts (N,4,C): true positives, false positives, false negatives and true negatives of each output of p (N,P,C); positive
 * is p > threshold, and y (N,P,C) > 1/2 */
static void kernel_threshold_counts(const struct step *step, const struct lane *lane)
{
    static const int64_t place[4] = {3, 2, 1, 0}; /* by whether it is predicted, and true */
    const int64_t n = step->out[0].size[0], c = step->out[0].size[2], pixels = n ? rows_of(&step->in[0]) / n : 0;
    const float threshold = (float)step->attr.threshold;
    int64_t *count = lane->scratch;
    for (int64_t t = lane->id; t < n; t += lane->count) {
        const float *p = (const float *)step->in[0].data + t * pixels * c;
        const float *y = (const float *)step->in[1].data + t * pixels * c;
        memset(count, 0, sizeof *count * (size_t)(4 * c));
        for (int64_t q = 0; q < pixels; q++)
            for (int64_t i = 0; i < c; i++)
                count[place[2 * (p[q * c + i] > threshold) + (y[q * c + i] > 0.5f)] * c + i]++;
        for (int64_t i = 0; i < 4 * c; i++) ((float *)step->out[0].data)[t * 4 * c + i] = (float)count[i];
    }
}
