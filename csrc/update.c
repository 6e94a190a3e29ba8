/* Optimizer updates, in place on flat vectors of all P parameters. `rates` are this step's. Formulas as in
 * fastnn/ops/update.py. */

/* For every vector of this lane: `at`, its first element, and `n`, how many are left (VL or more: a full one). */
#define EACH_VECTOR(total)                                                                               \
    for (int64_t t = lane->id; t * POINTWISE_TASK < (total); t += lane->count)                           \
        for (int64_t at = t * POINTWISE_TASK, end = at + task_size(t, total), n; n = end - at, at < end; at += VL)

/* p (P) -= rate * g */
static void kernel_sgd(const struct step *step, const struct lane *lane)
{
    float *p = step->out[0].data;
    const float *g = step->in[0].data, *rates = step->in[1].data;
    vf rate = v_set(rates[0]);
    int64_t total = elements(&step->out[0]);
    EACH_VECTOR(total) v_store_n(p + at, v_load_n(p + at, n) - rate * v_load_n(g + at, n), n);
}

/* v (P) = momentum * v - rate * g; p (P) += v, or with Nesterov momentum * v - rate * g */
static void kernel_momentum(const struct step *step, const struct lane *lane)
{
    float *p = step->out[0].data, *v = step->out[1].data;
    const float *g = step->in[0].data, *rates = step->in[1].data;
    vf rate = v_set(rates[0]), keep = v_set((float)step->attr.momentum);
    int nesterov = step->attr.nesterov;
    int64_t total = elements(&step->out[0]);
    EACH_VECTOR(total) {
        vf move = rate * v_load_n(g + at, n), speed = keep * v_load_n(v + at, n) - move;
        v_store_n(v + at, speed, n);
        if (nesterov) speed = keep * speed - move;
        v_store_n(p + at, v_load_n(p + at, n) + speed, n);
    }
}

/* m (P) += (g - m) * (1 - beta_1); v (P) += (g^2 - v) * (1 - beta_2); p (P) -= rates[1] * m / (sqrt(v) + epsilon),
 * after p *= 1 - decay where it `decays`, a constant */
INLINE void adam(const struct step *step, const struct lane *lane, const int decays, float decay)
{
    float *p = step->out[0].data, *m = step->out[1].data, *v = step->out[2].data;
    const float *g = step->in[0].data, *rates = step->in[1].data;
    vf rate = v_set(rates[1]), epsilon = v_set((float)step->attr.epsilon), less = v_set(decay);
    vf new_1 = v_set((float)(1.0 - step->attr.beta_1)), new_2 = v_set((float)(1.0 - step->attr.beta_2));
    int64_t total = elements(&step->out[0]);
    EACH_VECTOR(total) {
        vf grad = v_load_n(g + at, n), mean = v_load_n(m + at, n), square = v_load_n(v + at, n), w = v_load_n(p + at, n);
        mean = v_fma(grad - mean, new_1, mean);
        square = v_fma(v_fma(grad, grad, -square), new_2, square);
        v_store_n(m + at, mean, n);
        v_store_n(v + at, square, n);
        if (decays) w = w - w * less;
        v_store_n(p + at, w - rate * mean / (v_root(square) + epsilon), n);
    }
}

static void kernel_adam(const struct step *step, const struct lane *lane)
{
    adam(step, lane, 0, 0.0f);
}

static void kernel_adamw(const struct step *step, const struct lane *lane)
{
    adam(step, lane, 1, ((const float *)step->in[1].data)[0] * (float)step->attr.weight_decay);
}

/* v (P) = rho * v + (1 - rho) * g^2; p (P) -= rate * g / sqrt(v + epsilon) */
static void kernel_rmsprop(const struct step *step, const struct lane *lane)
{
    float *p = step->out[0].data, *v = step->out[1].data;
    const float *g = step->in[0].data, *rates = step->in[1].data;
    vf rate = v_set(rates[0]), epsilon = v_set((float)step->attr.epsilon);
    vf old = v_set((float)step->attr.rho), new = v_set((float)(1.0 - step->attr.rho));
    int64_t total = elements(&step->out[0]);
    EACH_VECTOR(total) {
        vf grad = v_load_n(g + at, n), square = v_fma(old, v_load_n(v + at, n), new * grad * grad);
        v_store_n(v + at, square, n);
        v_store_n(p + at, v_load_n(p + at, n) - rate * grad / v_root(square + epsilon), n);
    }
}

/* v (P) as above; b (P) = momentum * b + rate * g / sqrt(v + epsilon); p (P) -= b */
static void kernel_rmsprop_momentum(const struct step *step, const struct lane *lane)
{
    float *p = step->out[0].data, *v = step->out[1].data, *b = step->out[2].data;
    const float *g = step->in[0].data, *rates = step->in[1].data;
    vf rate = v_set(rates[0]), epsilon = v_set((float)step->attr.epsilon), keep = v_set((float)step->attr.momentum);
    vf old = v_set((float)step->attr.rho), new = v_set((float)(1.0 - step->attr.rho));
    int64_t total = elements(&step->out[0]);
    EACH_VECTOR(total) {
        vf grad = v_load_n(g + at, n), square = v_fma(old, v_load_n(v + at, n), new * grad * grad);
        vf speed = v_fma(keep, v_load_n(b + at, n), rate * grad / v_root(square + epsilon));
        v_store_n(v + at, square, n);
        v_store_n(b + at, speed, n);
        v_store_n(p + at, v_load_n(p + at, n) - speed, n);
    }
}

/* m (any) = momentum * m + (1 - momentum) * new (any) */
static void kernel_moving_average(const struct step *step, const struct lane *lane)
{
    float *m = step->out[0].data;
    const float *new = step->in[0].data;
    vf keep = v_set((float)step->attr.momentum), share = v_set((float)(1.0 - step->attr.momentum));
    int64_t total = elements(&step->out[0]);
    EACH_VECTOR(total) v_store_n(m + at, v_fma(keep, v_load_n(m + at, n), share * v_load_n(new + at, n)), n);
}
