/* How far predicted regions lie on the true ones. N batch, P pixels, C classes; p (N,P,C), targets y (N,P,C) or labels
 * (N,P,1), weights w (N,P) of pixels if there are any. See fastnn/ops/overlap.py.
 *
 * The lanes of a vector are classes or, where there is one class only, pixels. Chains of sums are short; their totals are
 * in double precision. */

enum { OVERLAP_CHAIN = 64 }; /* pixels, or vectors of them */

/* sums (3) += true positives, false positives and false negatives of predictions p and targets y, times weights w */
INLINE void overlap_add(vf *sums, vf p, vf y, vf w)
{
    const vf one = v_set(1.0f);
    sums[0] = v_fma(p * y, w, sums[0]);
    sums[1] = v_fma(p * (one - y), w, sums[1]);
    sums[2] = v_fma((one - p) * y, w, sums[2]);
}

/* The weights of n pixels from q on. */
INLINE vf overlap_weights(const float *w, int64_t q, int64_t n)
{
    if (!w) return v_set(1.0f);
    return v_load_n(w + q, n);
}

INLINE void overlap_total(double total[3][VL], const vf *sums)
{
    float lanes[VL];
    for (int k = 0; k < 3; k++) {
        v_store(lanes, sums[k]);
        for (int j = 0; j < VL; j++) total[k][j] += (double)lanes[j];
    }
}

/* out (3,c), classes i and following, of p (pixels,c) */
INLINE void overlap_classes(float *out, const float *p, const float *y, const float *w, int64_t pixels, int64_t c, int64_t i,
                            const int labels)
{
    double total[3][VL] = {{0}};
    for (int64_t first = 0; first < pixels; first += OVERLAP_CHAIN) {
        const int64_t end = first + OVERLAP_CHAIN < pixels ? first + OVERLAP_CHAIN : pixels;
        vf sums[3] = {v_zero(), v_zero(), v_zero()};
        for (int64_t q = first; q < end; q++) {
            const vf truth = target(y + q * (labels ? 1 : c), i, c, labels);
            overlap_add(sums, v_load_n(p + q * c + i, c - i), truth, v_set(w ? w[q] : 1.0f));
        }
        overlap_total(total, sums);
    }
    for (int k = 0; k < 3; k++)
        for (int64_t j = 0; j < VL && i + j < c; j++) out[k * c + i + j] = (float)total[k][j];
}

/* out (3), of p (pixels) */
static void overlap_one(float *out, const float *p, const float *y, const float *w, int64_t pixels)
{
    double total[3][VL] = {{0}};
    for (int64_t first = 0; first < pixels; first += OVERLAP_CHAIN * VL) {
        const int64_t end = first + OVERLAP_CHAIN * VL < pixels ? first + OVERLAP_CHAIN * VL : pixels;
        vf sums[3] = {v_zero(), v_zero(), v_zero()};
        for (int64_t q = first; q < end; q += VL) {
            const int64_t n = end - q;
            overlap_add(sums, v_load_n(p + q, n), v_load_n(y + q, n), overlap_weights(w, q, n));
        }
        overlap_total(total, sums);
    }
    for (int k = 0; k < 3; k++) {
        double all = 0;
        for (int j = 0; j < VL; j++) all += total[k][j];
        out[k] = (float)all;
    }
}

/* out (N,3,C) = overlaps of p with y, pixels weighted with w if there is one */
static void kernel_overlap(const struct step *step, const struct lane *lane)
{
    const int64_t n = step->out[0].size[0], c = step->out[0].size[2];
    const int64_t pixels = n ? rows_of(&step->in[0]) / n : 0, row = columns_of(&step->in[1]);
    for (int64_t t = lane->id; t < n; t += lane->count) {
        float *out = (float *)step->out[0].data + t * 3 * c;
        const float *p = (const float *)step->in[0].data + t * pixels * c;
        const float *y = (const float *)step->in[1].data + t * pixels * row;
        const float *w = step->inputs > 2 ? (const float *)step->in[2].data + t * pixels : NULL;
        if (c == 1) overlap_one(out, p, y, w, pixels);
        else if (row < c) for (int64_t i = 0; i < c; i += VL) overlap_classes(out, p, y, w, pixels, c, i, 1);
        else for (int64_t i = 0; i < c; i += VL) overlap_classes(out, p, y, w, pixels, c, i, 0);
    }
}

/* dp (N,P,C) = w * (y * (g_tp - g_fn) + (1 - y) * g_fp), g (N,3,C) */
static void kernel_overlap_dx(const struct step *step, const struct lane *lane)
{
    const int64_t n = step->in[0].size[0], c = step->in[0].size[2], row = columns_of(&step->in[1]);
    const int64_t pixels = n ? rows_of(&step->out[0]) / n : 0, some = POINTWISE_TASK / c + 1, tasks = (pixels + some - 1) / some;
    const vf one = v_set(1.0f);
    for (int64_t t = lane->id; t < n * tasks; t += lane->count) {
        const int64_t sample = t / tasks, begin = t % tasks * some, end = begin + some < pixels ? begin + some : pixels;
        const float *g = (const float *)step->in[0].data + sample * 3 * c;
        float *dp = (float *)step->out[0].data + sample * pixels * c;
        const float *y = (const float *)step->in[1].data + sample * pixels * row;
        const float *w = step->inputs > 2 ? (const float *)step->in[2].data + sample * pixels : NULL;
        if (c == 1) {
            const vf right = v_set(g[0] - g[2]), wrong = v_set(g[1]);
            for (int64_t q = begin; q < end; q += VL) {
                const vf truth = v_load_n(y + q, end - q), slope = v_fma(truth, right, (one - truth) * wrong);
                v_store_n(dp + q, overlap_weights(w, q, end - q) * slope, end - q);
            }
            continue;
        }
        for (int64_t i = 0; i < c; i += VL) {
            const vf right = v_load_n(g + i, c - i) - v_load_n(g + 2 * c + i, c - i), wrong = v_load_n(g + c + i, c - i);
            for (int64_t q = begin; q < end; q++) {
                const vf truth = target(y + q * row, i, c, row < c), slope = v_fma(truth, right, (one - truth) * wrong);
                v_store_n(dp + q * c + i, v_set(w ? w[q] : 1.0f) * slope, c - i);
            }
        }
    }
}

/* -------------------------------------------------------------------------------------------- the index of Tversky */

/* True positives and weighted errors: of class i of the sums s (3,C), or of all classes together. */
struct errors {
    float right, wrong;
};

INLINE struct errors errors_of(const struct step *step, const float *s, int64_t c, int64_t i)
{
    const struct attributes *a = &step->attr;
    const int64_t end = a->joint ? c : i + 1;
    float tp = 0, fp = 0, fn = 0;
    for (i = a->joint ? 0 : i; i < end; i++) tp += s[i], fp += s[c + i], fn += s[2 * c + i];
    return (struct errors){tp + (float)a->epsilon, (float)a->alpha * fp + (float)a->beta * fn};
}

/* out (N) = mean over the classes of wrong / (right + wrong), of sums (N,3,C) */
static void kernel_tversky(const struct step *step, const struct lane *lane)
{
    const int64_t rows = step->in[0].size[0], c = step->in[0].size[2], parts = step->attr.joint ? 1 : c;
    EACH_ROW(rows) {
        float sum = 0;
        for (int64_t i = 0; i < parts; i++) {
            const struct errors e = errors_of(step, (const float *)step->in[0].data + row * 3 * c, c, i);
            sum += e.wrong / (e.right + e.wrong);
        }
        ((float *)step->out[0].data)[row] = sum / (float)parts;
    }
}

/* ds (N,3,C) of g (N) and sums (N,3,C) */
static void kernel_tversky_dx(const struct step *step, const struct lane *lane)
{
    const int64_t rows = step->out[0].size[0], c = step->out[0].size[2], parts = step->attr.joint ? 1 : c;
    const float alpha = (float)step->attr.alpha, beta = (float)step->attr.beta;
    EACH_ROW(rows) {
        const float g = ((const float *)step->in[0].data)[row] / (float)parts;
        float *ds = (float *)step->out[0].data + row * 3 * c;
        for (int64_t i = 0; i < c; i++) {
            const struct errors e = errors_of(step, (const float *)step->in[1].data + row * 3 * c, c, i);
            const float total = e.right + e.wrong, slope = g * (e.right / total / total);
            ds[i] = -g * (e.wrong / total / total);
            ds[c + i] = alpha * slope;
            ds[2 * c + i] = beta * slope;
        }
    }
}
