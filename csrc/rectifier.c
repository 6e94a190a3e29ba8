/* Rectifiers with a threshold and a limit, or with a slope that is learned. N batch. Outputs may be one of the inputs. */

/* Without a slope, -inf gives 0, not the NaN that 0 * -inf is. */
INLINE vf bounded_relu(vf x, float slope, float limit, float threshold)
{
    const vf below = x - v_set(threshold);
    return v_select(v_less(v_set(threshold), x), v_min(v_set(limit), x),
                    v_set(slope) * (slope == 0.0f ? v_max(v_set(-3e38f), below) : below));
}

INLINE vf bounded_relu_dx(vf g, vf x, float slope, float limit, float threshold)
{
    return v_select(v_less(v_set(threshold), x), v_select(v_less(x, v_set(limit)), g, v_zero()), v_set(slope) * g);
}

POINTWISE_1(bounded_relu, bounded_relu(x, (float)attr->negative_slope, (float)attr->limit, (float)attr->threshold))
POINTWISE_2(bounded_relu_dx, bounded_relu_dx(g, x, (float)attr->negative_slope, (float)attr->limit, (float)attr->threshold))
POINTWISE_2(prelu_parts, g * v_min(v_zero(), x))

/* How the slopes, of shape `alpha`, lie beside a row of x (N, ...): along the last axes, `count` elements in all, each has
 * its own slope or they all share one. */
struct slopes {
    const struct tensor *x, *alpha;
    int32_t axis;  /* of alpha, the first of those */
    int64_t count;
    int shared;
};

INLINE struct slopes slopes_of(const struct tensor *x, const struct tensor *alpha)
{
    struct slopes s = {.x = x, .alpha = alpha, .axis = alpha->rank - 1};
    while (s.axis > 0 && x->size[s.axis + 1] == 1) s.axis--;
    s.count = x->size[s.axis + 1];
    s.shared = alpha->size[s.axis] == 1;
    for (; s.axis > 0 && (x->size[s.axis] == 1 || (alpha->size[s.axis - 1] == 1) == s.shared); s.axis--)
        s.count *= x->size[s.axis];
    return s;
}

/* Where the slopes of such a run of elements begin. */
INLINE const float *slopes_at(const struct slopes *s, int64_t run)
{
    int64_t offset = 0, stride = 1;
    for (int32_t a = s->alpha->rank - 1; a >= s->axis; a--) stride *= s->alpha->size[a];
    for (int32_t a = s->axis - 1; a >= 0; a--) {
        if (s->alpha->size[a] != 1) offset += run % s->x->size[a + 1] * stride;
        stride *= s->alpha->size[a];
        run /= s->x->size[a + 1];
    }
    return (const float *)s->alpha->data + offset;
}

/* y (N, ...) = values where x is positive, else slope * values: x itself, or its gradient */
static void scale_negative(float *y, const float *values, const struct slopes *s, const struct lane *lane)
{
    const int64_t total = elements(s->x), runs = s->count ? total / s->count : 0;
    const int64_t block = COPY_FLOATS / (s->count + 1) + 1;
    int one = 1; /* whether all runs have the same slopes */
    for (int32_t a = 0; a < s->axis; a++) one &= s->alpha->size[a] == 1;
    const float *alpha = s->alpha->data, *x = s->x->data;
    for (int64_t first = lane->id * block; first < runs; first += lane->count * block)
        for (int64_t run = first; run < runs && run < first + block; run++) {
            const int64_t start = run * s->count;
            if (!one) alpha = slopes_at(s, run);
            for (int64_t i = 0; i < s->count; i += VL) {
                const int64_t n = s->count - i;
                const vf v = v_load_n(values + start + i, n), slope = s->shared ? v_set(*alpha) : v_load_n(alpha + i, n);
                v_store_n(y + start + i, v_select(v_less(v_zero(), v_load_n(x + start + i, n)), v, slope * v), n);
            }
        }
}

/* y (N, ...) = x where positive, else alpha * x */
static void kernel_prelu(const struct step *step, const struct lane *lane)
{
    const struct slopes s = slopes_of(&step->in[0], &step->in[1]);
    scale_negative(step->out[0].data, step->in[0].data, &s, lane);
}

/* dx (N, ...) = g where x is positive, else alpha * g */
static void kernel_prelu_dx(const struct step *step, const struct lane *lane)
{
    const struct slopes s = slopes_of(&step->in[1], &step->in[2]);
    scale_negative(step->out[0].data, step->in[0].data, &s, lane);
}
