/* Element by element: activations with their gradients, and plain arithmetic. Formulas as in fastnn/ops/pointwise.py.
 * Outputs may be one of the inputs. */

enum { POINTWISE_TASK = 4096 }; /* elements */

INLINE vf v_clip(vf x, float low, float high) { return v_min(v_set(high), v_max(v_set(low), x)); }
INLINE vf v_sign(vf x) /* 0 at 0 */
{
    return v_select(v_less(v_zero(), x), v_set(1.0f), v_select(v_less(x, v_zero()), v_set(-1.0f), x));
}

/* ------------------------------------------------------------------------------------------------- activations */

#define SELU_ALPHA 1.67326324f
#define SELU_SCALE 1.05070099f

INLINE vf act_linear(vf x) { return x; }
INLINE vf act_relu(vf x) { return v_max(v_zero(), x); }
INLINE vf act_sigmoid(vf x) { return v_sigmoid(x); }
INLINE vf act_tanh(vf x) { return v_tanh(x); }
INLINE vf act_softplus(vf x) { return v_softplus(x); }
INLINE vf act_exponential(vf x) { return v_exp(x); }
INLINE vf act_softsign(vf x) { return x / (v_set(1.0f) + v_abs(x)); }
INLINE vf act_hard_sigmoid(vf x) { return v_clip(v_fma(x, v_set(1.0f / 6.0f), v_set(0.5f)), 0.0f, 1.0f); }
INLINE vf act_relu6(vf x) { return v_clip(x, 0.0f, 6.0f); }
INLINE vf act_elu(vf x, float scale, float alpha)
{
    return v_select(v_less(v_zero(), x), v_set(scale) * x, v_set(scale * alpha) * v_expm1(v_min(v_zero(), x)));
}
INLINE vf act_selu(vf x) { return act_elu(x, SELU_SCALE, SELU_ALPHA); }
INLINE vf act_gelu(vf x)
{
    vf bell;
    return x * v_normal_cdf(x, &bell);
}
INLINE vf act_silu(vf x) { return x * v_sigmoid(x); }
/* tanh(log(1 + e)) = n / (n + 2), n = e (e + 2), e = exp(x); it is 1 from x = 20 on. */
INLINE vf act_mish(vf x)
{
    vf e = v_exp(v_min(v_set(20.0f), x)), n = e * (e + v_set(2.0f));
    return x * (n / (n + v_set(2.0f)));
}
INLINE vf act_hard_silu(vf x) { return x * act_hard_sigmoid(x); }

/* Gradients: by the output y, the last four by the input x. */
INLINE vf act_linear_dx(vf g, vf y) { (void)y; return g; }
INLINE vf act_relu_dx(vf g, vf y) { return v_select(v_less(v_zero(), y), g, v_zero()); }
INLINE vf act_sigmoid_dx(vf g, vf y) { return g * y * (v_set(1.0f) - y); }
INLINE vf act_tanh_dx(vf g, vf y) { return g * ((v_set(1.0f) - y) * (v_set(1.0f) + y)); }
INLINE vf act_softplus_dx(vf g, vf y) { return g * -v_expm1(-y); }
INLINE vf act_exponential_dx(vf g, vf y) { return g * y; }
INLINE vf act_softsign_dx(vf g, vf y)
{
    vf s = v_set(1.0f) - v_abs(y);
    return g * (s * s);
}
/* slope * g where 0 < y < top, else 0 */
INLINE vf inside_dx(vf g, vf y, float top, float slope)
{
    return v_select(v_less(v_zero(), y), v_select(v_less(y, v_set(top)), v_set(slope) * g, v_zero()), v_zero());
}
INLINE vf act_hard_sigmoid_dx(vf g, vf y) { return inside_dx(g, y, 1.0f, 1.0f / 6.0f); }
INLINE vf act_relu6_dx(vf g, vf y) { return inside_dx(g, y, 6.0f, 1.0f); }
INLINE vf act_elu_dx(vf g, vf y, float scale, float alpha)
{
    return g * v_select(v_less(v_zero(), y), v_set(scale), y + v_set(scale * alpha));
}
INLINE vf act_selu_dx(vf g, vf y) { return act_elu_dx(g, y, SELU_SCALE, SELU_ALPHA); }
INLINE vf act_gelu_dx(vf g, vf x)
{
    vf bell, cdf = v_normal_cdf(x, &bell);
    return g * v_fma(v_clip(x, -15.0f, 15.0f) * v_set(0.398942280f), bell, cdf); /* 1 / sqrt(2 pi) */
}
INLINE vf act_silu_dx(vf g, vf x)
{
    vf s = v_sigmoid(x);
    return g * (s * v_fma(x, v_set(1.0f) - s, v_set(1.0f)));
}
INLINE vf act_mish_dx(vf g, vf x)
{
    vf top = v_min(v_set(20.0f), x), e = v_exp(top), n = e * (e + v_set(2.0f)), r = v_set(1.0f) / (n + v_set(2.0f));
    return g * (r * v_fma(top, v_set(4.0f) * e * (v_set(1.0f) + e) * r, n));
}
INLINE vf act_hard_silu_dx(vf g, vf x)
{
    vf slope = v_select(v_less(x, v_set(3.0f)), v_fma(x, v_set(1.0f / 3.0f), v_set(0.5f)), v_set(1.0f));
    slope = v_select(v_less(v_set(-3.0f), x), slope, v_zero());
    return g * v_select(v_equal(x, x), slope, x); /* NaN stays NaN */
}

/* y (n) = f of x (n), or of g (n) and y (n): the body and the tail of every loop below. `expression` is in terms of
 * vectors x and g, loaded from the arrays `xs` and `gs`. */
#define EACH_1(ys, xs, n, expression)                                                                             \
    do {                                                                                                          \
        int64_t i_ = 0;                                                                                           \
        for (; i_ + VL <= (n); i_ += VL) { vf x = v_load((xs) + i_); v_store((ys) + i_, expression); }            \
        if (i_ < (n)) { vf x = v_load_part((xs) + i_, (n) - i_); v_store_part((ys) + i_, expression, (n) - i_); } \
    } while (0)
#define EACH_2(ys, gs, xs, n, expression)                                                          \
    do {                                                                                           \
        int64_t i_ = 0;                                                                            \
        for (; i_ + VL <= (n); i_ += VL) {                                                         \
            vf g = v_load((gs) + i_), x = v_load((xs) + i_);                                       \
            v_store((ys) + i_, expression);                                                        \
        }                                                                                          \
        if (i_ < (n)) {                                                                            \
            vf g = v_load_part((gs) + i_, (n) - i_), x = v_load_part((xs) + i_, (n) - i_);         \
            v_store_part((ys) + i_, expression, (n) - i_);                                         \
        }                                                                                          \
    } while (0)

/* y (count) = activation of y, in place: what a fused product ends with. */
static void activate_rows(int32_t activation, float *y, int64_t count)
{
    switch (activation) {
#define CASE(name) case ACT_##name: if (ACT_##name != ACT_linear) EACH_1(y, y, count, act_##name(x)); break;
        ACTIVATIONS(CASE)
#undef CASE
    }
}

/* g (count) *= the activation's derivative, by y (count) as the op <activation>_dx has it, in place. */
static void activate_dx_rows(int32_t activation, float *g_y, const float *y, int64_t count)
{
    switch (activation) {
#define CASE(name) case ACT_##name: if (ACT_##name != ACT_linear) EACH_2(g_y, g_y, y, count, act_##name##_dx(g, x)); break;
        ACTIVATIONS(CASE)
#undef CASE
    }
}

/* ------------------------------------------------------------------------------------------------------ kernels */

/* The part [*first, *first + result) of n elements that task t works on. */
INLINE int64_t task_size(int64_t t, int64_t n)
{
    int64_t left = n - t * POINTWISE_TASK;
    return left < POINTWISE_TASK ? left : POINTWISE_TASK;
}

/* For every task of this lane: at, its first element, and n, their number. */
#define EACH_TASK(total) \
    for (int64_t t = lane->id, n, at; at = t * POINTWISE_TASK, at < (total) && (n = task_size(t, total), 1); t += lane->count)

/* out = f(x) */
#define POINTWISE_1(name, expression)                                         \
    static void kernel_##name(const struct step *step, const struct lane *lane) \
    {                                                                         \
        const struct attributes *attr = &step->attr;                          \
        float *y = step->out[0].data;                                         \
        const float *a = step->in[0].data;                                    \
        int64_t total = elements(&step->out[0]);                              \
        (void)attr;                                                           \
        EACH_TASK(total) EACH_1(y + at, a + at, n, expression);               \
    }
/* out = f(g, x), of the first and the second input */
#define POINTWISE_2(name, expression)                                         \
    static void kernel_##name(const struct step *step, const struct lane *lane) \
    {                                                                         \
        const struct attributes *attr = &step->attr;                          \
        float *y = step->out[0].data;                                         \
        const float *a = step->in[0].data, *b = step->in[1].data;             \
        int64_t total = elements(&step->out[0]);                              \
        (void)attr;                                                           \
        EACH_TASK(total) EACH_2(y + at, a + at, b + at, n, expression);       \
    }

#define NONLINEAR(X) X(relu) X(sigmoid) X(tanh) X(softplus) X(exponential) X(softsign) X(hard_sigmoid) X(relu6) X(selu) \
    X(gelu) X(silu) X(mish) X(hard_silu)
#define KERNELS(name) POINTWISE_1(name, act_##name(x)) POINTWISE_2(name##_dx, act_##name##_dx(g, x))
NONLINEAR(KERNELS)
#undef KERNELS

POINTWISE_1(leaky_relu, v_select(v_less(v_zero(), x), x, v_set((float)attr->negative_slope) * x))
POINTWISE_2(leaky_relu_dx, v_select(v_less(v_zero(), x), g, v_set((float)attr->negative_slope) * g))
POINTWISE_1(elu, act_elu(x, 1.0f, (float)attr->alpha))
POINTWISE_2(elu_dx, act_elu_dx(g, x, 1.0f, (float)attr->alpha))
POINTWISE_1(clip, v_clip(x, -(float)attr->limit, (float)attr->limit))
POINTWISE_1(affine, v_fma(v_set((float)attr->scale), x, v_set((float)attr->offset)))
POINTWISE_2(add, g + x)
POINTWISE_2(multiply, g * x)

/* The squares' sum of x (n) in double, in eight strands. */
static double sum_squares(const float *x, int64_t n)
{
    double strand[8] = {0};
    int64_t i = 0;
    for (; i + 8 <= n; i += 8)
        for (int j = 0; j < 8; j++) strand[j] += (double)x[i + j] * x[i + j];
    for (; i < n; i++) strand[i % 8] += (double)x[i] * x[i];
    for (int half = 4; half; half /= 2)
        for (int j = 0; j < half; j++) strand[j] += strand[j + half];
    return strand[0];
}

/* y (any) = x * min(1, limit / |x|) */
static void kernel_clip_norm(const struct step *step, const struct lane *lane)
{
    float *y = step->out[0].data;
    const float *a = step->in[0].data;
    int64_t n = elements(&step->out[0]);
    if (lane->id) return;
    double norm = sqrt(sum_squares(a, n));
    vf scale = v_set(norm > step->attr.limit ? (float)(step->attr.limit / norm) : 1.0f);
    EACH_1(y, a, n, scale * x);
}

/* r (1) = l1 * sum|w| + l2 * sum w^2 */
static void kernel_penalty(const struct step *step, const struct lane *lane)
{
    const float *w = step->in[0].data;
    int64_t n = elements(&step->in[0]);
    vf sum = v_zero(), squares = v_zero();
    if (lane->id) return;
    for (int64_t i = 0; i < n; i += VL) {
        vf x = v_load_n(w + i, n - i);
        sum = sum + v_abs(x);
        squares = v_fma(x, x, squares);
    }
    *(float *)step->out[0].data = (float)(step->attr.l1 * (double)v_sum(sum) + step->attr.l2 * (double)v_sum(squares));
}

/* dw (any) = g (1) * (l1 * sign(w) + 2 * l2 * w) */
static void kernel_penalty_dx(const struct step *step, const struct lane *lane)
{
    float *dw = step->out[0].data;
    const float *w = step->in[1].data;
    int64_t total = elements(&step->out[0]);
    vf g = v_set(*(const float *)step->in[0].data), l1 = v_set((float)step->attr.l1), l2 = v_set(2.0f * (float)step->attr.l2);
    EACH_TASK(total) EACH_1(dw + at, w + at, n, g * v_fma(l2, x, l1 * v_sign(x)));
}
