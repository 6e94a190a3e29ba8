/* Bringing batches in and predictions out: rows copied by index. N rows, F floats a row (all axes but the first). */

enum { COPY_FLOATS = 16384 }; /* about so many floats a task */

/* dst (F) = src (F). Whole vectors; the last one reaches back to end at the row's end. */
INLINE void copy_row(float *dst, const float *src, int64_t f)
{
    if (f < VL) {
        for (int64_t i = 0; i < f; i++) dst[i] = src[i];
        return;
    }
    for (int64_t i = 0; i + VL < f; i += VL) v_store(dst + i, v_load(src + i));
    v_store(dst + f - VL, v_load(src + f - VL));
}

/* y (N,F) = rows index (N) of x (M,F) */
static void kernel_gather(const struct step *step, const struct lane *lane)
{
    const struct tensor *y = &step->out[0];
    const int64_t *index = step->in[1].data;
    const float *x = step->in[0].data;
    int64_t n = y->size[0], f = n ? elements(y) / n : 0, block = COPY_FLOATS / (f + 1) + 1;
    float *out = y->data;
    for (int64_t first = lane->id * block; first < n; first += lane->count * block) {
        int64_t last = first + block < n ? first + block : n;
        if (f == 1)
            for (int64_t i = first; i < last; i++) out[i] = x[index[i]];
        else
            for (int64_t i = first; i < last; i++) copy_row(out + i * f, x + index[i] * f, f);
    }
}

/* rows index (N) of store (M,F) = rows (N,F), one after the other: of equal indices the last one stays */
static void kernel_scatter(const struct step *step, const struct lane *lane)
{
    const struct tensor *rows = &step->in[0];
    const int64_t *index = step->in[1].data;
    int64_t n = rows->size[0], f = n ? elements(rows) / n : 0;
    if (lane->id) return;
    for (int64_t i = 0; i < n; i++)
        copy_row((float *)step->out[0].data + index[i] * f, (const float *)rows->data + i * f, f);
}

/* y (N,F) = x (N,F): only where a view will not do, at the end of a plan */
static void kernel_reshape(const struct step *step, const struct lane *lane)
{
    const int64_t n = elements(&step->in[0]);
    if (!lane->id && n) copy_row(step->out[0].data, step->in[0].data, n);
}

/* y = w, under another shape */
static void kernel_reshape_weight(const struct step *step, const struct lane *lane)
{
    kernel_reshape(step, lane);
}

/* y (N,C) = row `index` of each matrix in x (N,R,C) */
static void kernel_take(const struct step *step, const struct lane *lane)
{
    const struct tensor *x = &step->in[0];
    const int64_t c = columns_of(x), size = x->size[x->rank - 2] * c, n = elements(x) / size;
    if (lane->id) return;
    for (int64_t i = 0; i < n; i++)
        copy_row((float *)step->out[0].data + i * c, (const float *)x->data + i * size + step->attr.index * c, c);
}

/* y (C) = one value */
static void kernel_fill(const struct step *step, const struct lane *lane)
{
    float *y = step->out[0].data;
    if (lane->id) return;
    for (int64_t i = 0; i < step->out[0].size[0]; i++) y[i] = (float)step->attr.fill_value;
}
