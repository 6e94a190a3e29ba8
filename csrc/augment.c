/* Random changes of images (N, H, W, C). Each image is done by one lane. What is drawn is computed in double, each
 * operation rounded by itself, as fastnn/ops/augment.py has it: the same bits on every backend. */

static const double FAR_AWAY = 1073741824.0; /* 2^30: places further from the image count as here */

/* The numbers of the rows of a batch: row n has the four words of counter n. */
struct draws {
    uint64_t seed;
    uint32_t rest[3];
    int64_t block;         /* whose words are at hand: those of the rows 16 block + 0..15 */
    uint32_t words[BLOCK]; /* (4, 16) */
};

static struct draws draws_of(const struct step *step, const struct tensor *number)
{
    const uint64_t now = (uint64_t)*(const int64_t *)number->data;
    struct draws d = {.seed = step->attr.seed, .rest = {(uint32_t)now, (uint32_t)(now >> 32), step->attr.stream}, .block = -1};
    return d;
}

/* Number k of row n, in [0, 1). */
static double number_of(struct draws *d, int64_t n, int k)
{
    if (n / 16 != d->block) philox(d->words, (uint64_t)(d->block = n / 16), d->rest, d->seed);
    return (double)d->words[16 * k + n % 16] * 2.3283064365386963e-10; /* 2^-32 */
}

INLINE double between(const double *span, double number)
{
    return span[0] + (span[1] - span[0]) * number;
}

INLINE int64_t whole_below(double x)
{
    int64_t i = (int64_t)x;
    return i - ((double)i > x);
}

/* ----------------------------------------------------------------------------------------------------------- flips */

/* dst (W,C) = src with its pixels in reverse order */
INLINE void reverse_pixels(float *dst, const float *src, int64_t w, const int64_t c)
{
    for (int64_t i = 0; i < w; i++) copy_row(dst + i * c, src + (w - 1 - i) * c, c);
}

/* y (N,H,W,C) = x, some images mirrored */
static void kernel_random_flip(const struct step *step, const struct lane *lane)
{
    const int64_t *size = step->in[0].size, h = size[1], w = size[2], c = size[3];
    struct draws draws = draws_of(step, &step->in[1]);
    for (int64_t n = lane->id; n < size[0]; n += lane->count) {
        const float *x = (const float *)step->in[0].data + n * h * w * c;
        float *y = (float *)step->out[0].data + n * h * w * c;
        const int across = step->attr.horizontal && number_of(&draws, n, 0) < 0.5;
        const int down = step->attr.vertical && number_of(&draws, n, 1) < 0.5;
        for (int64_t i = 0; i < h; i++, y += w * c) {
            const float *line = x + (down ? h - 1 - i : i) * w * c;
            if (!across) copy_row(y, line, w * c);
            else if (c == 1) reverse_pixels(y, line, w, 1);
            else if (c == 3) reverse_pixels(y, line, w, 3);
            else reverse_pixels(y, line, w, c);
        }
    }
}

/* -------------------------------------------------------------------------------------------------------- matrices */

/* Sine and cosine of so many whole turns, exact at multiples of a quarter. */
static void sine_and_cosine(double turns, double *sine, double *cosine)
{
    static const double terms[15] = {1.0, 1.0, -1.0 / 2, -1.0 / 6, 1.0 / 24, 1.0 / 120, -1.0 / 720, -1.0 / 5040, 1.0 / 40320,
                                     1.0 / 362880, -1.0 / 3628800, -1.0 / 39916800, 1.0 / 479001600, 1.0 / 6227020800.0,
                                     -1.0 / 87178291200.0};
    const int64_t quarters = whole_below(4.0 * turns + 0.5);
    const double angle = (4.0 * turns - (double)quarters) * 1.5707963267948966, z = angle * angle;
    double s = 0.0, c = 0.0;
    for (int power = 13; power > 0; power -= 2) s = s * z + terms[power];
    for (int power = 14; power >= 0; power -= 2) c = c * z + terms[power];
    s = s * angle;
    switch (quarters & 3) {
    case 0: *sine = s, *cosine = c; break;
    case 1: *sine = c, *cosine = -s; break;
    case 2: *sine = -s, *cosine = -c; break;
    default: *sine = -c, *cosine = s;
    }
}

/* The linear part leaves the centre of the images x where it is; then everything moves. */
static void put_matrix(const struct step *step, int64_t n, double a0, double a1, double b0, double b1, double right, double down)
{
    float *m = (float *)step->out[0].data + 6 * n;
    const double cx = (double)(step->in[0].size[2] - 1) / 2.0, cy = (double)(step->in[0].size[1] - 1) / 2.0;
    m[0] = (float)a0;
    m[1] = (float)a1;
    m[2] = (float)((cx - (a0 * cx + a1 * cy)) - right);
    m[3] = (float)b0;
    m[4] = (float)b1;
    m[5] = (float)((cy - (b0 * cx + b1 * cy)) - down);
}

/* m (N,6) for images x (N,H,W,C) */
static void kernel_rotation_matrices(const struct step *step, const struct lane *lane)
{
    struct draws draws = draws_of(step, &step->in[1]);
    for (int64_t n = lane->id; n < step->out[0].size[0]; n += lane->count) {
        double s, c;
        sine_and_cosine(between(step->attr.turns, number_of(&draws, n, 0)), &s, &c);
        put_matrix(step, n, c, -s, s, c, 0.0, 0.0);
    }
}

/* m (N,6) for images x (N,H,W,C) */
static void kernel_zoom_matrices(const struct step *step, const struct lane *lane)
{
    struct draws draws = draws_of(step, &step->in[1]);
    const double *widths = step->attr.widths;
    for (int64_t n = lane->id; n < step->out[0].size[0]; n += lane->count) {
        const double high = between(step->attr.heights, number_of(&draws, n, 0));
        const double wide = widths[1] > 0.0 ? between(widths, number_of(&draws, n, 1)) : high;
        put_matrix(step, n, wide, 0.0, 0.0, high, 0.0, 0.0);
    }
}

/* m (N,6) for images x (N,H,W,C) */
static void kernel_translation_matrices(const struct step *step, const struct lane *lane)
{
    struct draws draws = draws_of(step, &step->in[1]);
    for (int64_t n = lane->id; n < step->out[0].size[0]; n += lane->count) {
        const double down = between(step->attr.heights, number_of(&draws, n, 0)) * (double)step->in[0].size[1];
        const double right = between(step->attr.widths, number_of(&draws, n, 1)) * (double)step->in[0].size[2];
        put_matrix(step, n, 1.0, 0.0, 0.0, 1.0, right, down);
    }
}

/* -------------------------------------------------------------------------------------------------------- sampling */

/* Pixel i of an axis of n pixels that goes on beyond its ends; -1 for the filling. */
INLINE int64_t extended(int64_t i, int64_t n, int32_t fill_mode)
{
    if ((uint64_t)i < (uint64_t)n) return i;
    if (fill_mode == FILL_CONSTANT) return -1;
    if (fill_mode == FILL_NEAREST) return i < 0 ? 0 : n - 1;
    const int64_t period = fill_mode == FILL_WRAP ? n : 2 * n;
    i %= period;
    if (i < 0) i += period;
    return i < n ? i : period - 1 - i;
}

/* Places along one axis for some pixels of a line: the pixel below, and the weights of that one and of the next. */
enum { SPAN = 64 };
struct places {
    int32_t low[SPAN];
    float weight[2][SPAN];
};

/* The places start + slope j of the pixels j = first .. first + n - 1. `near`: none of them is far away. */
INLINE void find_places(struct places *p, double start, double slope, int64_t first, int n, const int taps, const int near)
{
    for (int j = 0; j < n; j++) {
        double at = start + slope * (double)((int32_t)first + j);
        if (!near) at = at > -FAR_AWAY ? (at < FAR_AWAY ? at : FAR_AWAY) : -FAR_AWAY; /* and so NaN */
        if (taps == 1) at += 0.5;
        int32_t low = (int32_t)at;
        low -= (double)low > at;
        p->low[j] = low;
        at -= (double)low;
        p->weight[0][j] = taps == 1 ? 1.0f : (float)(1.0 - at);
        p->weight[1][j] = (float)at;
    }
}

static void find_near_places(struct places *p, double start, double slope, int64_t first, int n, int taps)
{
    const double begin = start + slope * (double)first, end = start + slope * (double)(first + n - 1);
    const int near = begin > -FAR_AWAY && begin < FAR_AWAY && end > -FAR_AWAY && end < FAR_AWAY;
    if (near && taps == 2) find_places(p, start, slope, first, n, 2, 1);
    else if (near) find_places(p, start, slope, first, n, 1, 1);
    else find_places(p, start, slope, first, n, taps, 0);
}

/* Goes over the pixels of an image. Forward: y (H,W,C) = the blends of pixels of x (H,W,C). Backward: x, which is zero at
 * first, gets the shares of y. `taps` along each axis; c and taps are constants where this is inlined. */
INLINE void sample_image(float *y, float *x, const float *matrix, const struct step *step, const int64_t c, const int taps,
                         const int backward)
{
    const int64_t h = step->in[0].size[1], w = step->in[0].size[2];
    const int32_t fill_mode = step->attr.fill_mode;
    const float filling = (float)step->attr.fill_value;
    struct places across, down;
    double m[6];
    for (int i = 0; i < 6; i++) m[i] = (double)matrix[i];
    for (int64_t pixel = 0; pixel < h * w;) {
        const int64_t i = pixel / w, first = pixel % w;
        const int n = w - first < SPAN ? (int)(w - first) : SPAN;
        find_near_places(&across, m[1] * (double)i + m[2], m[0], first, n, taps);
        find_near_places(&down, m[4] * (double)i + m[5], m[3], first, n, taps);
        pixel += n;
        for (int j = 0; j < n; j++, y += c) {
            const int64_t k = across.low[j], r = down.low[j];
            float *place[4]; /* NULL: the filling */
            if (k >= 0 && k < w - 1 && r >= 0 && r < h - 1) {
                for (int t = 0; t < taps * taps; t++) place[t] = x + ((r + t / taps) * w + k + t % taps) * c;
            } else {
                for (int t = 0; t < taps * taps; t++) {
                    const int64_t row = extended(r + t / taps, h, fill_mode), column = extended(k + t % taps, w, fill_mode);
                    place[t] = (row | column) < 0 ? NULL : x + (row * w + column) * c;
                }
            }
            float weight[4];
            for (int t = 0; t < taps * taps; t++) weight[t] = down.weight[t / taps][j] * across.weight[t % taps][j];
            if (backward) {
                for (int t = 0; t < taps * taps; t++) {
                    if (!place[t]) continue;
                    if (c < VL)
                        for (int64_t f = 0; f < c; f++) place[t][f] += weight[t] * y[f];
                    else
                        for (int64_t f = 0; f < c; f += VL) {
                            const vf before = v_load_n(place[t] + f, c - f);
                            v_store_n(place[t] + f, v_fma(v_set(weight[t]), v_load_n(y + f, c - f), before), c - f);
                        }
                }
            } else if (c < 4) {
                for (int64_t f = 0; f < c; f++) {
                    float sum = 0.0f;
                    for (int t = 0; t < taps * taps; t++) sum += weight[t] * (place[t] ? place[t][f] : filling);
                    y[f] = sum;
                }
            } else {
                for (int64_t f = 0; f < c; f += VL) {
                    vf sum = v_zero();
                    for (int t = 0; t < taps * taps; t++) {
                        const vf value = place[t] ? v_load_n(place[t] + f, c - f) : v_set(filling);
                        sum = v_fma(v_set(weight[t]), value, sum);
                    }
                    v_store_n(y + f, sum, c - f);
                }
            }
        }
    }
}

INLINE void sample_images(const struct step *step, const struct lane *lane, const int backward)
{
    const int64_t *size = step->in[0].size, c = size[3], pixels = size[1] * size[2];
    const int bilinear = step->attr.interpolation == INTERPOLATION_BILINEAR;
    for (int64_t n = lane->id; n < size[0]; n += lane->count) {
        float *in = (float *)step->in[0].data + n * pixels * c, *out = (float *)step->out[0].data + n * pixels * c;
        float *y = backward ? in : out, *x = backward ? out : in;
        const float *matrix = (const float *)step->in[1].data + 6 * n;
        if (backward) memset(x, 0, (size_t)(pixels * c) * sizeof *x);
        if (!bilinear) sample_image(y, x, matrix, step, c, 1, backward);
        else if (c == 1) sample_image(y, x, matrix, step, 1, 2, backward);
        else if (c == 3) sample_image(y, x, matrix, step, 3, 2, backward);
        else sample_image(y, x, matrix, step, c, 2, backward);
    }
}

/* y (N,H,W,C) = x seen through the matrices (N,6) */
static void kernel_affine_transform(const struct step *step, const struct lane *lane)
{
    sample_images(step, lane, 0);
}

/* dx (N,H,W,C) from g (N,H,W,C) and the matrices (N,6) */
static void kernel_affine_transform_dx(const struct step *step, const struct lane *lane)
{
    sample_images(step, lane, 1);
}

/* -------------------------------------------------------------------------------------------------------- contrast */

/* An image is seen as a line of floats; a pattern is what every channel adds or takes, repeated for some pixels, so that
 * it fills vectors whatever C is. */
enum { PATTERN = 256 };

/* v where y lies between the limits, 0 elsewhere. */
INLINE vf kept(vf v, vf y, vf low, vf high)
{
    return v_select(v_less(low, y), v_select(v_less(y, high), v, v_zero()), v_zero());
}

/* mean (P + VL): the mean of each channel of x (H,W,C), of its pixels with y between the limits if there is y; a pattern of
 * P floats, which it returns. In the lane's scratch memory: mean, sums of P + VL floats, totals of C doubles. */
INLINE int64_t mean_pattern(const float *x, const float *y, int64_t pixels, int64_t c, const struct step *step, void *scratch)
{
    const int64_t p = c * (c < PATTERN ? PATTERN / c : 1), size = pixels * c;
    const vf low = v_set((float)step->attr.limits[0]), high = v_set((float)step->attr.limits[1]);
    double *total = scratch;
    float *mean = (float *)(total + c), *sum = mean + p + VL;
    for (int64_t i = 0; i < p + VL; i++) sum[i] = 0.0f;
    for (int64_t at = 0; at < size; at += p) {
        const int64_t n = size - at < p ? size - at : p;
        for (int64_t i = 0; i < n; i += VL) {
            vf v = v_load_n(x + at + i, n - i);
            if (y) v = kept(v, v_load_n(y + at + i, n - i), low, high);
            v_store(sum + i, v_load(sum + i) + v);
        }
    }
    for (int64_t f = 0; f < c; f++) total[f] = 0.0;
    for (int64_t at = 0; at < p; at += c)
        for (int64_t f = 0; f < c; f++) total[f] += (double)sum[at + f];
    for (int64_t f = 0; f < c; f++) mean[f] = (float)(total[f] / (double)pixels);
    for (int64_t i = c; i < p + VL; i *= 2) memcpy(mean + i, mean, (size_t)(i < p + VL - i ? i : p + VL - i) * sizeof *mean);
    return p;
}

/* y (N,H,W,C) = (x - mean) factor + mean within the limits; or, with gradients g for x and y known, dx = factor g +
 * (1 - factor) mean of what was not cut off. */
INLINE void change_contrast(const struct step *step, const struct lane *lane, const int backward)
{
    const int64_t *size = step->in[0].size, c = size[3], pixels = size[1] * size[2];
    const vf low = v_set((float)step->attr.limits[0]), high = v_set((float)step->attr.limits[1]);
    const float *mean = (const float *)((double *)lane->scratch + c);
    struct draws draws = draws_of(step, &step->in[1 + backward]);
    for (int64_t n = lane->id; n < size[0]; n += lane->count) {
        const float *x = (const float *)step->in[0].data + n * pixels * c;
        const float *y = backward ? (const float *)step->in[1].data + n * pixels * c : NULL;
        float *out = (float *)step->out[0].data + n * pixels * c;
        const float drawn = (float)between(step->attr.factors, number_of(&draws, n, 0));
        const vf factor = v_set(drawn), rest = v_set(1.0f - drawn);
        const int64_t p = mean_pattern(x, y, pixels, c, step, lane->scratch);
        for (int64_t at = 0; at < pixels * c; at += p) {
            const int64_t count = pixels * c - at < p ? pixels * c - at : p;
            for (int64_t i = 0; i < count; i += VL) {
                const vf m = v_load(mean + i), v = v_load_n(x + at + i, count - i);
                vf result;
                if (backward) result = factor * kept(v, v_load_n(y + at + i, count - i), low, high) + rest * m;
                else result = v_max(low, v_min(high, (v - m) * factor + m));
                v_store_n(out + at + i, result, count - i);
            }
        }
    }
}

/* y (N,H,W,C) from x (N,H,W,C) */
static void kernel_random_contrast(const struct step *step, const struct lane *lane)
{
    change_contrast(step, lane, 0);
}

/* dx (N,H,W,C) from g and y (N,H,W,C) */
static void kernel_random_contrast_dx(const struct step *step, const struct lane *lane)
{
    change_contrast(step, lane, 1);
}
