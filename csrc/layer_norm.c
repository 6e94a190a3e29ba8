/* Layer normalization: each row by itself. Formulas as in fastnn/ops/layer_norm.py. N rows, C channels; inv = 1 /
 * sqrt(variance + epsilon). A row's moments are found again wherever they are needed: it is in the nearest cache then. */

/* For each row of this lane; a task is about NORM_TASK elements. */
#define EACH_LAYER_ROW(rows, channels)                                                                         \
    for (int64_t t = lane->id, block_ = NORM_TASK / (channels) + 1; t * block_ < (rows); t += lane->count)      \
        for (int64_t row = t * block_; row < (rows) && row < (t + 1) * block_; row++)

struct layer_moments {
    float mean, inv;
};

INLINE float four_sums(const vf *sum) { return v_sum((sum[0] + sum[1]) + (sum[2] + sum[3])); }

/* A first mean of x (c), found by the deviations from one of the numbers: all equal, they are 0, and so is the variance. */
INLINE float near_mean(const float *x, int64_t c)
{
    const vf one = v_set(x[0]);
    vf sum[4] = {v_zero(), v_zero(), v_zero(), v_zero()};
    int64_t i = 0;
    for (; i + 4 * VL <= c; i += 4 * VL)
        UNROLL for (int k = 0; k < 4; k++) sum[k] = sum[k] + (v_load(x + i + k * VL) - one);
    for (; i < c; i += VL) sum[0] = sum[0] + v_fill(v_load_n(x + i, c - i) - one, c - i, 0.0f);
    return x[0] + four_sums(sum) / (float)c;
}

/* The moments of c numbers whose deviations from `near` have this sum and sum of squares. */
INLINE struct layer_moments exact_moments(float near, float sum, float squares, int64_t c, float epsilon)
{
    const float off = sum / (float)c, variance = squares / (float)c - off * off;
    return (struct layer_moments){near + off, 1.0f / sqrtf((variance < 0 ? 0 : variance) + epsilon)};
}

/* Of x (c). */
INLINE struct layer_moments layer_moments(const float *x, int64_t c, float epsilon)
{
    const float near = near_mean(x, c);
    vf sum[4] = {v_zero(), v_zero(), v_zero(), v_zero()}, square[4] = {v_zero(), v_zero(), v_zero(), v_zero()};
    int64_t i = 0;
    for (; i + 4 * VL <= c; i += 4 * VL)
        UNROLL for (int k = 0; k < 4; k++) {
            const vf d = v_load(x + i + k * VL) - v_set(near);
            sum[k] = sum[k] + d;
            square[k] = v_fma(d, d, square[k]);
        }
    for (; i < c; i += VL) {
        const vf d = v_fill(v_load_n(x + i, c - i) - v_set(near), c - i, 0.0f);
        sum[0] = sum[0] + d;
        square[0] = v_fma(d, d, square[0]);
    }
    return exact_moments(near, four_sums(sum), four_sums(square), c, epsilon);
}

/* y (N,C) = gamma (C) * (x (N,C) - mean) * inv + beta (C) */
static void kernel_layer_norm(const struct step *step, const struct lane *lane)
{
    const int64_t rows = rows_of(&step->out[0]), c = columns_of(&step->out[0]);
    const float *gamma = step->in[1].data, *beta = step->in[2].data, epsilon = (float)step->attr.epsilon;
    EACH_LAYER_ROW(rows, c) {
        float *y = (float *)step->out[0].data + row * c;
        const float *x = (const float *)step->in[0].data + row * c;
        const struct layer_moments m = layer_moments(x, c, epsilon);
        const vf mean = v_set(m.mean), inv = v_set(m.inv);
        for (int64_t i = 0; i < c; i += VL) {
            const vf xhat = (v_load_n(x + i, c - i) - mean) * inv;
            v_store_n(y + i, v_fma(v_load_n(gamma + i, c - i), xhat, v_load_n(beta + i, c - i)), c - i);
        }
    }
}

/* Of a row: the sums of d = x - near, d^2, a = gamma * g and a * d, two of each. */
struct layer_sums {
    vf sum[2], square[2], slope[2], product[2];
};

INLINE void add_to_layer_sums(struct layer_sums *s, int k, const float *g, const float *x, const float *gamma, float near, int64_t n)
{
    const vf d = v_fill(v_load_n(x, n) - v_set(near), n, 0.0f), a = v_load_n(gamma, n) * v_load_n(g, n);
    s->sum[k] = s->sum[k] + d;
    s->square[k] = v_fma(d, d, s->square[k]);
    s->slope[k] = s->slope[k] + a;
    s->product[k] = v_fma(a, d, s->product[k]);
}

/* dx (N,C) = inv * (gamma * g - mean(gamma * g) - xhat * mean(gamma * g * xhat)) of g (N,C), x (N,C), gamma (C) */
static void kernel_layer_norm_dx(const struct step *step, const struct lane *lane)
{
    const int64_t rows = rows_of(&step->out[0]), c = columns_of(&step->out[0]);
    const float *gamma = step->in[2].data, epsilon = (float)step->attr.epsilon;
    EACH_LAYER_ROW(rows, c) {
        float *dx = (float *)step->out[0].data + row * c;
        const float *g = (const float *)step->in[0].data + row * c, *x = (const float *)step->in[1].data + row * c;
        const float near = near_mean(x, c);
        struct layer_sums s;
        UNROLL for (int k = 0; k < 2; k++) s.sum[k] = s.square[k] = s.slope[k] = s.product[k] = v_zero();
        int64_t i = 0;
        for (; i + 2 * VL <= c; i += 2 * VL) {
            add_to_layer_sums(&s, 0, g + i, x + i, gamma + i, near, VL);
            add_to_layer_sums(&s, 1, g + i + VL, x + i + VL, gamma + i + VL, near, VL);
        }
        for (; i < c; i += VL) add_to_layer_sums(&s, 0, g + i, x + i, gamma + i, near, c - i);
        const struct layer_moments m =
            exact_moments(near, v_sum(s.sum[0] + s.sum[1]), v_sum(s.square[0] + s.square[1]), c, epsilon);
        const float share = m.inv / (float)c, slope = v_sum(s.slope[0] + s.slope[1]);
        const float product = v_sum(s.product[0] + s.product[1]) - slope * (m.mean - near);
        const vf mean = v_set(m.mean), inv = v_set(m.inv), pull = v_set(slope * share);
        const vf tilt = v_set(product * share * m.inv * m.inv);
        for (i = 0; i < c; i += VL) {
            const vf d = v_load_n(x + i, c - i) - mean, a = v_load_n(gamma + i, c - i) * v_load_n(g + i, c - i);
            v_store_n(dx + i, v_fma(inv, a, -v_fma(d, tilt, pull)), c - i);
        }
    }
}

/* to (2,C) += of `count` rows, at most four */
INLINE void add_layer_rows(float *to, const float *g, const float *x, int64_t c, float epsilon, const int count)
{
    struct layer_moments m[4];
    UNROLL for (int r = 0; r < count; r++) m[r] = layer_moments(x + r * c, c, epsilon);
    for (int64_t i = 0; i < c; i += VL) {
        vf first = v_zero(), second = v_zero();
        UNROLL for (int r = 0; r < count; r++) {
            const vf a = v_load_n(g + r * c + i, c - i);
            first = first + a;
            second = v_fma(a, (v_load_n(x + r * c + i, c - i) - v_set(m[r].mean)) * v_set(m[r].inv), second);
        }
        v_store_n(to + i, v_load_n(to + i, c - i) + first, c - i);
        v_store_n(to + c + i, v_load_n(to + c + i, c - i) + second, c - i);
    }
}

/* out (2,C) = the sums over the rows of g (N,C) and of g * xhat, of x (N,C); in chunks of rows as norm_sums.c has them */
static void kernel_layer_norm_sums(const struct step *step, const struct lane *lane)
{
    const struct norm z = norm_of_batch(step, &step->in[1]);
    const int64_t c = z.channels, chunks = chunks_of(&z);
    const float *g = step->in[0].data, *x = step->in[1].data;
    float *out = step->out[0].data;
    for (int64_t t = lane->id; t < chunks; t += lane->count) {
        const struct chunk k = chunk_of(step, &z, t);
        float *to = (float *)k.first;
        memset(to, 0, sizeof *to * (size_t)(2 * c));
        int64_t row = k.begin;
        for (; row + 4 <= k.begin + k.places; row += 4) add_layer_rows(to, g + row * c, x + row * c, c, z.epsilon, 4);
        for (; row < k.begin + k.places; row++) add_layer_rows(to, g + row * c, x + row * c, c, z.epsilon, 1);
    }
    team_barrier(lane);
    for (int64_t at = lane->id * NORM_MERGE; at < 2 * c; at += lane->count * NORM_MERGE) {
        const int64_t width = least(2 * c - at, NORM_MERGE);
        double sum[NORM_MERGE] = {0};
        for (int64_t t = 0; t < chunks; t++) {
            const float *from = (const float *)chunk_of(step, &z, t).first + at;
            for (int64_t i = 0; i < width; i++) sum[i] += from[i];
        }
        for (int64_t i = 0; i < width; i++) out[at + i] = (float)sum[i];
    }
}
