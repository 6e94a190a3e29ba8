/* Normalization of groups and of batches. Formulas as in fastnn/ops/norm.py and batch_norm.py.
 *
 * N items of S places with C channels in G groups of neighbours; a batch is one item that has all its places and in which
 * each channel is a group. Moments (N,2,G), or (2,C) of a batch, are means, then variances; inv = 1 / sqrt(variance +
 * epsilon). Here is what is done element by element; norm_sums.c sums over places. */

enum {
    NORM_WIDTH = 1024, /* columns worked on at a time: their tables stay in the nearest cache */
    NORM_TASK = 16384  /* elements */
};

struct norm {
    int64_t items, places, channels, groups, size; /* N, S, C, G, C / G */
    float epsilon;
    int apart; /* places of the result do not lie side by side */
};

static struct norm norm_of_batch(const struct step *step, const struct tensor *x)
{
    const int64_t c = columns_of(x);
    return (struct norm){1, rows_of(x), c, c, 1, (float)step->attr.epsilon, 0};
}

static struct norm norm_of_groups(const struct step *step, const struct tensor *x, int64_t groups)
{
    const int64_t n = x->size[0], c = columns_of(x);
    return (struct norm){n, n ? rows_of(x) / n : 0, c, groups, c / groups, (float)step->attr.epsilon, 0};
}

INLINE int64_t least(int64_t a, int64_t b) { return a < b ? a : b; }

/* ------------------------------------------------------------------------------------------------ columns and tables */

/* A block of columns of some places: `rows` rows of `width` floats, `stride` apart, and `rest` floats of one more. Where
 * there are few channels, a row is several places side by side, so that vectors are full: the channels repeat. */
struct strip {
    int64_t first, channels, width, stride, rows, rest;
};

static int64_t places_side_by_side(int64_t channels)
{
    int64_t common = channels, other = 4 * VL;
    while (other) { /* Euclid */
        const int64_t left = common % other;
        common = other, other = left;
    }
    const int64_t side_by_side = 4 * VL / common;
    return side_by_side * channels <= NORM_WIDTH ? side_by_side : 1;
}

static int64_t strips_of(const struct norm *z) { return (z->channels + NORM_WIDTH - 1) / NORM_WIDTH; }

static struct strip strip_of(const struct norm *z, int64_t number, int64_t places)
{
    const int64_t c = z->channels, together = places_side_by_side(c), first = number * NORM_WIDTH;
    if (together > 1 && !z->apart) return (struct strip){0, c, together * c, together * c, places / together, places % together * c};
    const int64_t width = least(c - first, NORM_WIDTH);
    return (struct strip){first, width, width, c, places, 0};
}

/* What the loops along a row need of each column:
 *     y = (x - mean) * scale + offset                   scale = gamma * inv, offset = beta
 *     dx = scale * g - ((x - mean) * tilt + pull)       pull = inv * mean(gamma g), tilt = inv^2 * mean(gamma g xhat) */
struct norm_table {
    float mean[NORM_WIDTH], scale[NORM_WIDTH], offset[NORM_WIDTH], pull[NORM_WIDTH], tilt[NORM_WIDTH];
};

/* What a kernel reads and writes; those of moments are of the first item. */
struct norm_arrays {
    float *out;
    const float *g, *x, *mean, *variance, *gamma, *beta, *sums;
    int32_t activation;
    int64_t out_skip; /* floats after each place of `out` that are not its own */
};

/* What is done with the rows: a constant wherever it is an argument. */
enum norm_work { FORWARD, FORWARD_RELU, BACKWARD, BACKWARD_RELU, SCALE, SUM_DEVIATIONS, SUM_GRADIENTS, SUM_RELU_GRADIENTS };

/* to (channels of the strip) = numbers of their groups, of all (G) */
static void of_groups(float *to, const float *all, const struct norm *z, const struct strip *s)
{
    if (z->size == 1) {
        memcpy(to, all + s->first, sizeof *to * (size_t)s->channels);
        return;
    }
    for (int64_t i = 0; i < s->channels;) {
        const int64_t group = (s->first + i) / z->size, end = least((group + 1) * z->size - s->first, s->channels);
        for (; i < end; i++) to[i] = all[group];
    }
}

/* to (width), whose first channels are there: they repeat */
static void repeat_channels(float *to, const struct strip *s)
{
    for (int64_t i = s->channels; i < s->width; i += s->channels) memcpy(to + i, to, sizeof *to * (size_t)s->channels);
}

/* pull and tilt by channel: the sums over each group of gamma * sums (2,C) */
static void group_sums(struct norm_table *t, const struct norm *z, const struct strip *s, const float *gamma, const float *sums)
{
    for (int64_t i = 0; i < s->channels;) {
        const int64_t group = (s->first + i) / z->size, end = least((group + 1) * z->size - s->first, s->channels);
        double first = 0, second = 0;
        for (int64_t c = group * z->size; c < (group + 1) * z->size; c++) {
            first += (double)gamma[c] * sums[c];
            second += (double)gamma[c] * sums[z->channels + c];
        }
        for (; i < end; i++) t->pull[i] = (float)first, t->tilt[i] = (float)second;
    }
}

static void fill_table(struct norm_table *t, const struct norm_arrays *a, const struct norm *z, const struct strip *s,
                       int64_t item, enum norm_work work)
{
    const int64_t n = s->channels;
    const int backward = work == BACKWARD || work == BACKWARD_RELU;
    const vf share = v_set(1.0f / (float)(z->places * z->size));
    of_groups(t->mean, a->mean + item * 2 * z->groups, z, s);
    of_groups(t->scale, a->variance + item * 2 * z->groups, z, s);
    if (backward) group_sums(t, z, s, a->gamma, a->sums + item * 2 * z->channels);
    for (int64_t i = 0; i < n; i += VL) { /* tables are whole vectors long */
        const vf inv = v_set(1.0f) / v_sqrt(v_load(t->scale + i) + v_set(z->epsilon));
        vf scale = inv;
        if (a->gamma) scale = scale * v_load_n(a->gamma + s->first + i, n - i);
        v_store(t->scale + i, scale);
        if (a->beta) v_store(t->offset + i, v_load_n(a->beta + s->first + i, n - i));
        if (backward) {
            v_store(t->pull + i, v_load(t->pull + i) * inv * share);
            v_store(t->tilt + i, v_load(t->tilt + i) * inv * inv * share);
        }
    }
    repeat_channels(t->mean, s);
    repeat_channels(t->scale, s);
    if (a->beta) repeat_channels(t->offset, s);
    if (backward) repeat_channels(t->pull, s), repeat_channels(t->tilt, s);
}

/* ------------------------------------------------------------------------------------------------------ along places */

/* Element i of a row, or as many as are left where that is less than a vector. */
INLINE void work_vector(float *out, const float *g, const float *x, const struct norm_table *t, int64_t i, int64_t left,
                        const enum norm_work work)
{
    const vf scale = v_load(t->scale + i), v = v_load_n(x + i, left);
    vf y = v * scale;
    if (work != SCALE) {
        const vf d = v - v_load(t->mean + i);
        if (work != BACKWARD) y = v_fma(d, scale, v_load(t->offset + i));
        if (work == FORWARD_RELU) y = act_relu(y);
        if (work == BACKWARD || work == BACKWARD_RELU) {
            vf slope = v_load_n(g + i, left);
            if (work == BACKWARD_RELU) slope = act_relu_dx(slope, y);
            y = scale * slope - v_fma(d, v_load(t->tilt + i), v_load(t->pull + i));
        }
    }
    v_store_n(out + i, y, left);
}

INLINE void work_row(float *out, const float *g, const float *x, const struct norm_table *t, int64_t n, const enum norm_work work)
{
    int64_t i = 0;
    for (; i + VL <= n; i += VL) work_vector(out, g, x, t, i, VL, work);
    if (i < n) work_vector(out, g, x, t, i, n - i, work);
}

/* out (N,S,C), element by element. A task is a few rows of a strip of an item. They are taken from the end on: what was read
 * or written last before is in the caches still. */
INLINE void work_rows(const struct norm_arrays *a, const struct norm *z, const struct lane *lane, const enum norm_work work)
{
    struct norm_table *table = lane->scratch;
    const int64_t strips = strips_of(z), item_size = z->places * z->channels;
    const struct strip widest = strip_of(z, 0, z->places);
    const int64_t block = NORM_TASK / widest.width, blocks = widest.rows / block + 1; /* the last has the rest */
    int64_t filled = -1;
    for (int64_t task = z->items * strips * blocks - 1 - lane->id; task >= 0; task -= lane->count) {
        const int64_t number = task / blocks, item = number / strips, first = task % blocks * block;
        const struct strip s = strip_of(z, number % strips, z->places);
        const int64_t end = least(first + block, s.rows), at = item * item_size + s.first + first * s.stride;
        const int64_t rest = task % blocks == blocks - 1 ? s.rest : 0;
        const int joined = s.width == s.stride && !a->out_skip;
        if (first == end && !rest) continue;
        if (filled != number) fill_table(table, a, z, &s, item, work);
        filled = number;
        for (int64_t row = 0; row < end - first; row++) {
            const int64_t i = at + row * s.stride;
            float *out = a->out + i + (item * z->places + first + row) * a->out_skip;
            work_row(out, a->g + i, a->x + i, table, s.width, work);
            if (a->activation && !joined) activate_rows(a->activation, out, s.width);
        }
        const int64_t i = at + (end - first) * s.stride;
        if (rest) work_row(a->out + i, a->g + i, a->x + i, table, rest, work);
        if (a->activation && joined) activate_rows(a->activation, a->out + at, i - at + rest);
    }
}

/* ------------------------------------------------------------------------------------------------------------- kernels */

/* y = gamma * (x - mean) * inv + beta, then the activation; relu is done on the way. */
static void norm_forward(const struct step *step, const struct lane *lane, struct norm z, const float *mean,
                         const float *variance, int gamma, int32_t activation)
{
    struct norm_arrays a = {.out = step->out[0].data, .g = step->in[0].data, .x = step->in[0].data, .mean = mean,
                            .variance = variance, .gamma = step->in[gamma].data, .beta = step->in[gamma + 1].data,
                            .out_skip = step->out[0].skip};
    z.apart = a.out_skip != 0;
    if (activation == ACT_relu) {
        work_rows(&a, &z, lane, FORWARD_RELU);
    } else {
        a.activation = activation;
        work_rows(&a, &z, lane, FORWARD);
    }
}

/* y (N,...,C) of x (N,...,C), moments (2,C), gamma (C), beta (C) */
static void kernel_fused_batch_norm(const struct step *step, const struct lane *lane)
{
    const struct norm z = norm_of_batch(step, &step->in[0]);
    const float *m = step->in[1].data;
    norm_forward(step, lane, z, m, m + z.groups, 2, step->attr.activation);
}

static void kernel_batch_norm(const struct step *step, const struct lane *lane) { kernel_fused_batch_norm(step, lane); }

/* y (N,...,C) of x (N,...,C), mean (C), variance (C), gamma (C), beta (C) */
static void kernel_fused_normalize(const struct step *step, const struct lane *lane)
{
    const struct norm z = norm_of_batch(step, &step->in[0]);
    norm_forward(step, lane, z, step->in[1].data, step->in[2].data, 3, step->attr.activation);
}

static void kernel_normalize(const struct step *step, const struct lane *lane) { kernel_fused_normalize(step, lane); }

/* y (N,...,C) of x (N,...,C), moments (N,2,G), gamma (C), beta (C) */
static void kernel_group_norm(const struct step *step, const struct lane *lane)
{
    const struct norm z = norm_of_groups(step, &step->in[0], step->in[1].size[2]);
    const float *m = step->in[1].data;
    norm_forward(step, lane, z, m, m + z.groups, 2, ACT_linear);
}

/* dx (N,...,C) = g (N,...,C) * gamma (C) * inv, by the variance (C) */
static void kernel_normalize_dx(const struct step *step, const struct lane *lane)
{
    const struct norm z = norm_of_batch(step, &step->in[0]);
    const float *variance = step->in[1].data;
    const struct norm_arrays a = {.out = step->out[0].data, .g = step->in[0].data, .x = step->in[0].data, .mean = variance,
                                  .variance = variance, .gamma = step->in[2].data};
    work_rows(&a, &z, lane, SCALE);
}

INLINE void norm_backward(const struct step *step, const struct lane *lane, const struct norm *z, const float *beta, int sums,
                          const enum norm_work work)
{
    const float *m = step->in[2].data;
    const struct norm_arrays a = {.out = step->out[0].data, .g = step->in[0].data, .x = step->in[1].data, .mean = m,
                                  .variance = m + z->groups, .gamma = step->in[3].data, .beta = beta,
                                  .sums = step->in[sums].data};
    work_rows(&a, z, lane, work);
}

/* dx (N,...,C) of g, x (N,...,C), moments (2,C), gamma (C), sums (2,C) */
static void kernel_batch_norm_dx(const struct step *step, const struct lane *lane)
{
    const struct norm z = norm_of_batch(step, &step->in[1]);
    norm_backward(step, lane, &z, NULL, 4, BACKWARD);
}

/* dx (N,...,C) of g, x (N,...,C), moments (2,C), gamma (C), beta (C), sums (2,C); g counts where relu let y through */
static void kernel_fused_batch_norm_dx(const struct step *step, const struct lane *lane)
{
    const struct norm z = norm_of_batch(step, &step->in[1]);
    norm_backward(step, lane, &z, step->in[4].data, 5, BACKWARD_RELU);
}

/* dx (N,...,C) of g, x (N,...,C), moments (N,2,G), gamma (C), sums (N,2,C) */
static void kernel_group_norm_dx(const struct step *step, const struct lane *lane)
{
    const struct norm z = norm_of_groups(step, &step->in[1], step->in[2].size[2]);
    norm_backward(step, lane, &z, NULL, 4, BACKWARD);
}
