/* Sums over places: moments, and the sums that gradients need. Sizes as in norm.c.
 *
 * A sum is summed in chunks that depend on S and C only: at most NORM_CHUNKS, of at least NORM_PLACES places and NORM_ELEMENTS
 * elements; up to NORM_SINGLE places in single precision, then in double. */

enum { NORM_CHUNKS = 32, NORM_PLACES = 16, NORM_ELEMENTS = 1 << 15, NORM_SINGLE = 64 };

/* Sums of a and of a * d for each column; d = x - mean, and a = d or a = g. The totals of columns whose channels repeat
 * are added up in the end. */
struct norm_sums {
    float part[2][NORM_WIDTH];
    double total[2][NORM_WIDTH];
};

/* The sums over a chunk of places for each channel (or, in the end, group), and what is subtracted from x before. */
struct chunk {
    double *first, *second;
    float *shift;
    int64_t item, begin, places;
};

static int64_t chunks_of(const struct norm *z)
{
    const int64_t most = least(least(NORM_CHUNKS, z->places / NORM_PLACES), z->places * z->channels / NORM_ELEMENTS);
    return most < 1 ? 1 : most;
}

static struct chunk chunk_of(const struct step *step, const struct norm *z, int64_t number)
{
    const int64_t chunks = chunks_of(z), item = number / chunks, k = number % chunks, begin = k * z->places / chunks;
    double *memory = (double *)step->workspace + number * ((5 * z->channels + 15) / 16 * 8);
    return (struct chunk){memory, memory + z->channels, (float *)(memory + 2 * z->channels), item, begin,
                          (k + 1) * z->places / chunks - begin};
}

/* Adds the rows' columns i .. i + left, or as many as a vector has. */
INLINE void add_vector(struct norm_sums *sums, const struct norm_table *t, const float *g, const float *x, int64_t stride,
                       int64_t i, int64_t left, const int rows, const enum norm_work work)
{
    const vf mean = v_load(t->mean + i);
    vf first = v_zero(), second = v_zero();
    UNROLL for (int r = 0; r < rows; r++) {
        const vf d = v_fill(v_load_n(x + r * stride + i, left) - mean, left, 0.0f);
        vf a = d;
        if (work != SUM_DEVIATIONS) a = v_load_n(g + r * stride + i, left);
        if (work == SUM_RELU_GRADIENTS) a = act_relu_dx(a, v_fma(d, v_load(t->scale + i), v_load(t->offset + i)));
        first = first + a;
        second = v_fma(a, d, second);
    }
    v_store(sums->part[0] + i, v_load(sums->part[0] + i) + first);
    v_store(sums->part[1] + i, v_load(sums->part[1] + i) + second);
}

INLINE void add_rows(struct norm_sums *sums, const struct norm_table *t, const float *g, const float *x, int64_t stride,
                     int64_t n, const int rows, const enum norm_work work)
{
    int64_t i = 0;
    for (; i + VL <= n; i += VL) add_vector(sums, t, g, x, stride, i, VL, rows, work);
    if (i < n) add_vector(sums, t, g, x, stride, i, n - i, rows, work);
}

/* The sums so far go to total (width), which they begin or go on with, and start again. */
INLINE void to_doubles(double *total, float *part, int64_t width, int begin)
{
    if (begin)
        for (int64_t i = 0; i < width; i++) total[i] = part[i];
    else
        for (int64_t i = 0; i < width; i++) total[i] += part[i];
    memset(part, 0, sizeof *part * (size_t)width);
}

/* c->first and second (C): the sums over the first `places` places of a chunk. Subtracts c->shift where it sums deviations,
 * else the mean. */
INLINE void sum_chunk(const struct chunk *c, const struct norm_arrays *a, const struct norm *z, int64_t places,
                      const struct lane *lane, const enum norm_work work)
{
    struct norm_table *table = lane->scratch;
    struct norm_sums *sums = (struct norm_sums *)(table + 1);
    for (int64_t number = 0; number < strips_of(z); number++) {
        const struct strip s = strip_of(z, number, places);
        const int64_t at = (c->item * z->places + c->begin) * z->channels + s.first;
        if (work == SUM_DEVIATIONS) {
            memcpy(table->mean, c->shift + s.first, sizeof(float) * (size_t)s.channels);
            repeat_channels(table->mean, &s);
        } else {
            fill_table(table, a, z, &s, c->item, work);
        }
        double *first = c->first + s.first, *second = c->second + s.first;
        if (s.width > s.channels) first = sums->total[0], second = sums->total[1];
        memset(sums->part[0], 0, sizeof(float) * (size_t)s.width);
        memset(sums->part[1], 0, sizeof(float) * (size_t)s.width);
        const float *g = a->g + at, *x = a->x + at;
        int64_t row = 0;
        do {
            const int64_t begin = row, end = least(row + NORM_SINGLE, s.rows);
            for (; row + 8 <= end; row += 8) add_rows(sums, table, g + row * s.stride, x + row * s.stride, s.stride, s.width, 8, work);
            for (; row < end; row++) add_rows(sums, table, g + row * s.stride, x + row * s.stride, s.stride, s.width, 1, work);
            if (row == s.rows && s.rest) add_rows(sums, table, g + row * s.stride, x + row * s.stride, 0, s.rest, 1, work);
            to_doubles(first, sums->part[0], s.width, begin == 0);
            to_doubles(second, sums->part[1], s.width, begin == 0);
        } while (row < s.rows);
        if (s.width > s.channels) {
            for (int64_t i = s.channels; i < s.width; i += s.channels)
                for (int64_t j = 0; j < s.channels; j++) first[j] += first[i + j], second[j] += second[i + j];
            memcpy(c->first, first, sizeof *first * (size_t)s.channels);
            memcpy(c->second, second, sizeof *second * (size_t)s.channels);
        }
    }
}

/* Adds up the channels of each group: to (G) = the sums of from (C), which may be the same memory. */
static void add_groups(double *to, const double *from, const struct norm *z)
{
    if (z->size == 1) {
        if (to != from) memcpy(to, from, sizeof *to * (size_t)z->groups);
        return;
    }
    for (int64_t group = 0; group < z->groups; group++) {
        double sum = 0;
        for (int64_t i = group * z->size; i < (group + 1) * z->size; i++) sum += from[i];
        to[group] = sum;
    }
}

/* shift (C), for each group one number near its mean: the mean of the first `places` places of a chunk. Deviations from a
 * number of the group itself are summed for it: all equal, they are 0, and so is the variance. */
static void find_shift(const struct chunk *c, const struct norm_arrays *a, const struct norm *z, int64_t places,
                       const struct lane *lane)
{
    const float *x = a->x + (c->item * z->places + c->begin) * z->channels;
    const double share = 1.0 / (double)(places * z->size);
    for (int64_t i = 0; i < z->channels; i++) c->shift[i] = x[z->size == 1 ? i : i - i % z->size];
    sum_chunk(c, a, z, places, lane, SUM_DEVIATIONS);
    add_groups(c->first, c->first, z);
    if (z->size == 1)
        for (int64_t i = 0; i < z->channels; i++) c->shift[i] += (float)(c->first[i] * share);
    else
        for (int64_t i = 0; i < z->channels; i++) c->shift[i] += (float)(c->first[i / z->size] * share);
}

/* first and second (G) = mean and sum of squared deviations of each group of a chunk */
static void chunk_moments(const struct chunk *c, const struct norm_arrays *a, const struct norm *z, const struct lane *lane)
{
    const double share = 1.0 / (double)(c->places * z->size);
    find_shift(c, a, z, c->places < 16 ? 1 : c->places / 16, lane);
    sum_chunk(c, a, z, c->places, lane, SUM_DEVIATIONS);
    add_groups(c->first, c->first, z);
    add_groups(c->second, c->second, z);
    for (int64_t i = 0; i < z->groups; i++) {
        const double mean = c->first[i] * share, rest = c->second[i] - c->first[i] * mean;
        c->first[i] = mean;
        c->second[i] = rest < 0 ? 0 : rest;
    }
    for (int64_t i = 0; i < z->groups; i++) c->first[i] += c->shift[i * z->size];
}

enum { NORM_MERGE = 64 }; /* channels or groups a task */

/* out (N,2,G) from the chunks' means and squares (Chan et al. 1979) */
static void merge_moments(float *out, const struct step *step, const struct norm *z, const struct lane *lane)
{
    const int64_t chunks = chunks_of(z), blocks = (z->groups + NORM_MERGE - 1) / NORM_MERGE;
    for (int64_t task = lane->id; task < z->items * blocks; task += lane->count) {
        const int64_t item = task / blocks, at = task % blocks * NORM_MERGE, width = least(z->groups - at, NORM_MERGE);
        double mean[NORM_MERGE] = {0}, squares[NORM_MERGE] = {0};
        for (int64_t k = 0; k < chunks; k++) {
            const struct chunk c = chunk_of(step, z, item * chunks + k);
            const double share = (double)c.places / (double)z->places;
            for (int64_t i = 0; i < width; i++) mean[i] += share * c.first[at + i];
        }
        for (int64_t k = 0; k < chunks; k++) {
            const struct chunk c = chunk_of(step, z, item * chunks + k);
            const double n = (double)(c.places * z->size);
            for (int64_t i = 0; i < width; i++) {
                const double d = c.first[at + i] - mean[i];
                squares[i] += c.second[at + i] + n * d * d;
            }
        }
        float *to = out + item * 2 * z->groups + at;
        const double n = (double)(z->places * z->size);
        for (int64_t i = 0; i < width; i++) to[i] = (float)mean[i], to[z->groups + i] = (float)(squares[i] / n);
    }
}

static void norm_moments(const struct step *step, const struct lane *lane, struct norm z)
{
    const struct norm_arrays a = {.g = step->in[0].data, .x = step->in[0].data};
    for (int64_t t = lane->id; t < z.items * chunks_of(&z); t += lane->count) {
        const struct chunk c = chunk_of(step, &z, t);
        chunk_moments(&c, &a, &z, lane);
    }
    team_barrier(lane);
    merge_moments(step->out[0].data, step, &z, lane);
}

/* out (N,2,C) from the chunks' sums */
static void merge_sums(const struct norm_arrays *a, const struct step *step, const struct norm *z, const struct lane *lane)
{
    const int64_t chunks = chunks_of(z), blocks = (z->channels + NORM_MERGE - 1) / NORM_MERGE;
    for (int64_t task = lane->id; task < z->items * blocks; task += lane->count) {
        const int64_t item = task / blocks, at = task % blocks * NORM_MERGE, width = least(z->channels - at, NORM_MERGE);
        double first[NORM_MERGE] = {0}, second[NORM_MERGE] = {0};
        for (int64_t k = 0; k < chunks; k++) {
            const struct chunk c = chunk_of(step, z, item * chunks + k);
            for (int64_t i = 0; i < width; i++) first[i] += c.first[at + i], second[i] += c.second[at + i];
        }
        float *to = a->out + item * 2 * z->channels + at;
        const float *variance = a->variance + item * 2 * z->groups;
        for (int64_t i = 0; i < width; i++) {
            to[i] = (float)first[i];
            to[z->channels + i] = (float)second[i] / sqrtf(variance[(at + i) / z->size] + z->epsilon);
        }
    }
}

INLINE void norm_sums(const struct step *step, const struct lane *lane, struct norm z, const float *gamma, const float *beta,
                      const enum norm_work work)
{
    const float *m = step->in[2].data;
    const struct norm_arrays a = {.out = step->out[0].data, .g = step->in[0].data, .x = step->in[1].data, .mean = m,
                                  .variance = m + z.groups, .gamma = gamma, .beta = beta};
    for (int64_t t = lane->id; t < z.items * chunks_of(&z); t += lane->count) {
        const struct chunk c = chunk_of(step, &z, t);
        sum_chunk(&c, &a, &z, c.places, lane, work);
    }
    team_barrier(lane);
    merge_sums(&a, step, &z, lane);
}

/* ------------------------------------------------------------------------------------------------------------- kernels */

/* out (2,C) = moments of x (N,...,C) */
static void kernel_moments(const struct step *step, const struct lane *lane)
{
    norm_moments(step, lane, norm_of_batch(step, &step->in[0]));
}

/* out (N,2,G) = moments of x (N,...,C) */
static void kernel_group_moments(const struct step *step, const struct lane *lane)
{
    norm_moments(step, lane, norm_of_groups(step, &step->in[0], step->attr.groups));
}

/* out (2,C) = sums of g (N,...,C) and of g * (x - mean) * inv, of x (N,...,C) and moments (2,C) */
static void kernel_batch_norm_sums(const struct step *step, const struct lane *lane)
{
    norm_sums(step, lane, norm_of_batch(step, &step->in[1]), NULL, NULL, SUM_GRADIENTS);
}

/* The same of g where relu let y through, with gamma (C), beta (C) behind the moments */
static void kernel_fused_batch_norm_sums(const struct step *step, const struct lane *lane)
{
    norm_sums(step, lane, norm_of_batch(step, &step->in[1]), step->in[3].data, step->in[4].data, SUM_RELU_GRADIENTS);
}

/* out (N,2,C) = sums of g (N,...,C) and of g * (x - mean) * inv, of x (N,...,C) and moments (N,2,G) */
static void kernel_group_norm_sums(const struct step *step, const struct lane *lane)
{
    norm_sums(step, lane, norm_of_groups(step, &step->in[1], step->in[2].size[2]), NULL, NULL, SUM_GRADIENTS);
}
