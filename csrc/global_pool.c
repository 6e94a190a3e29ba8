/* Pooling of all pixels: the largest or the mean of each channel, and the gradients. N batch, C channels.
 *
 * Lanes of vectors are channels; where channels are few, so many pixels count as one that they fill some vectors. Means
 * are precise: chains of sums are short, and what their total loses by rounding is kept beside it. */

enum {
    WHOLE_CHAIN = 64,      /* pixels of a chain of sums */
    WHOLE_CHANNELS = 4096, /* channels of a task */
    WHOLE_TASK = 16384,    /* floats of a task that writes only */
};
_Static_assert(3 * (WHOLE_CHANNELS + 5 * VL) * sizeof(float) <= TEAM_SCRATCH, "the sums fit in the scratch");

/* sum (lanes) [+]= pixels of x `apart` floats from each other; or the largest of both */
INLINE void whole_add(const int average, float *sum, const float *x, const int pixels, int64_t apart, int64_t lanes)
{
    for (int64_t i = 0; i < lanes; i += VL) {
        vf v[8];
        UNROLL for (int j = 0; j < pixels; j++) v[j] = v_load_n(x + j * apart + i, lanes - i);
        UNROLL for (int half = pixels / 2; half; half /= 2)
            UNROLL for (int j = 0; j < half; j++) v[j] = pool_join(average, v[j], v[j + half]);
        v_store_n(sum + i, pool_join(average, v_load(sum + i), v[0]), lanes - i);
    }
}

/* total + lost (lanes) += sum, which becomes 0: what rounding takes from the total is kept (Knuth's sum of two) */
INLINE void whole_total(float *total, float *lost, float *sum, int64_t lanes)
{
    for (int64_t i = 0; i < lanes; i += VL) {
        const vf a = v_load(total + i), b = v_load(sum + i), t = a + b, part = t - a;
        v_store(lost + i, v_load(lost + i) + ((a - (t - part)) + (b - part)));
        v_store(total + i, t);
        v_store(sum + i, v_zero());
    }
}

/* y (c) = the largest or the mean of x (pixels, c); pixels lie `apart` floats from each other */
INLINE void whole(const int average, float *y, const float *x, int64_t pixels, int64_t apart, int64_t c, float *scratch)
{
    const int64_t some = c < VL && apart == c ? 2 * VL / c : 1; /* pixels that count as one */
    const int64_t lanes = some * c, rest = pixels % some * c, space = lanes + VL;
    float *sum = scratch, *total = sum + space, *lost = total + space;
    for (int64_t i = 0; i < space; i++) sum[i] = average ? 0.0f : -INFINITY, total[i] = lost[i] = 0.0f;
    const int64_t count = pixels / some;
    apart *= some;
    for (int64_t p = 0; p < count; p += WHOLE_CHAIN) {
        const int64_t end = p + WHOLE_CHAIN < count ? p + WHOLE_CHAIN : count;
        int64_t q = p;
        for (; q + 8 <= end; q += 8) whole_add(average, sum, x + q * apart, 8, apart, lanes);
        for (; q < end; q++) whole_add(average, sum, x + q * apart, 1, apart, lanes);
        if (average) whole_total(total, lost, sum, lanes);
    }
    if (rest) whole_add(average, sum, x + count * apart, 1, apart, rest);
    if (average) whole_total(total, lost, sum, lanes);
    for (int64_t j = 0; j < c; j++) {
        double all = average ? 0.0 : sum[j];
        for (int64_t i = j; i < lanes; i += c)
            if (average) all += lost[i] == lost[i] ? (double)total[i] + lost[i] : total[i]; /* infinity loses NaN */
            else if (sum[i] > all || sum[i] != sum[i]) all = sum[i];
        y[j] = (float)(average ? all / (double)pixels : all);
    }
}

/* y (N,C) of x (N,D,H,W,C) */
INLINE void pool_whole(const int average, const struct step *step, const struct lane *lane)
{
    const struct tensor *y = &step->out[0];
    const int64_t n = y->size[0], c = y->size[1], parts = (c + WHOLE_CHANNELS - 1) / WHOLE_CHANNELS;
    if (n == 0) return;
    const int64_t pixels = elements(&step->in[0]) / (n * c);
    for (int64_t t = lane->id; t < n * parts; t += lane->count) {
        const int64_t row = t / parts, first = t % parts * WHOLE_CHANNELS;
        const int64_t some = c - first < WHOLE_CHANNELS ? c - first : WHOLE_CHANNELS;
        whole(average, (float *)y->data + row * c + first, (const float *)step->in[0].data + row * pixels * c + first,
              pixels, c, some, lane->scratch);
    }
}

static void kernel_global_max_pool(const struct step *step, const struct lane *lane) { pool_whole(0, step, lane); }
static void kernel_global_average_pool(const struct step *step, const struct lane *lane) { pool_whole(1, step, lane); }

/* dx (pixels, vectors) = g where x is the first to be y, else 0 */
INLINE void whole_vectors(const int vectors, float *dx, const float *x, const float *y, const float *g, int64_t pixels,
                          int64_t c, int64_t n)
{
    vf left[4], top[4];
    UNROLL for (int j = 0; j < vectors; j++) left[j] = pool_load(g + j * VL, n), top[j] = pool_load(y + j * VL, n);
    for (int64_t p = 0; p < pixels; p++, x += c, dx += c)
        UNROLL for (int j = 0; j < vectors; j++) {
            const vf v = pool_load(x + j * VL, n);
            const vm wins = v_equal(v, top[j]), number = v_equal(v, v);
            pool_store(dx + j * VL, v_select(wins, left[j], v_select(number, v_zero(), left[j])), n);
            left[j] = v_select(wins, v_zero(), v_select(number, left[j], v_zero()));
        }
}

/* dx (N,D,H,W,C) of g, y (N,C) and x */
static void kernel_global_max_pool_dx(const struct step *step, const struct lane *lane)
{
    const struct tensor *y = &step->in[2];
    const int64_t n = y->size[0], c = y->size[1], parts = (c + 4 * VL - 1) / (4 * VL);
    if (n == 0) return;
    const int64_t pixels = elements(&step->out[0]) / (n * c);
    for (int64_t t = lane->id; t < n * parts; t += lane->count) {
        const int64_t at = t / parts * c + t % parts * 4 * VL, of_x = at + t / parts * (pixels - 1) * c;
        const int64_t lanes = c - t % parts * 4 * VL < 4 * VL ? c - t % parts * 4 * VL : 4 * VL;
        float *dx = (float *)step->out[0].data + of_x;
        const float *g = step->in[0].data, *x = (const float *)step->in[1].data + of_x;
#define WHOLE_SOME(vectors, i, n) \
    whole_vectors(vectors, dx + (i), x + (i), (const float *)y->data + at + (i), g + at + (i), pixels, c, n)
        EACH_LANES(lanes, WHOLE_SOME);
#undef WHOLE_SOME
    }
}

/* dx (N,D,H,W,C) = g (N,C) / pixels */
static void kernel_global_average_pool_dx(const struct step *step, const struct lane *lane)
{
    const struct tensor *g = &step->in[0];
    const int64_t n = g->size[0], c = g->size[1];
    if (n == 0) return;
    const int64_t pixels = elements(&step->out[0]) / (n * c);
    const int64_t some = WHOLE_TASK / c + 1, parts = (pixels + some - 1) / some;
    const vf divisor = v_set((float)pixels);
    for (int64_t t = lane->id; t < n * parts; t += lane->count) {
        const int64_t row = t / parts, first = t % parts * some, count = pixels - first < some ? pixels - first : some;
        const float *from = (const float *)g->data + row * c;
        float *dx = (float *)step->out[0].data + (row * pixels + first) * c;
        EACH_1(dx, from, c, x / divisor);
        for (int64_t p = 1; p < count; p *= 2) /* what is there, once more behind it */
            memcpy(dx + p * c, dx, (size_t)((count - p < p ? count - p : p) * c) * sizeof *dx);
    }
}
