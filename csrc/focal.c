/* Focal cross-entropies, one value a row, and their gradients. N rows, C outputs or classes; formulas as in
 * fastnn/ops/focal.py. */

/* e^gamma, e being EPSILON at least; NaN stays NaN */
INLINE vf focal_power(vf e, float gamma) { return v_exp(v_set(gamma) * v_log(v_max(v_set(EPSILON), e))); }

/* --------------------------------------------------------------------------------- each output a decision of its own */

INLINE vf focal_weight(vf y, const struct attributes *attr)
{
    return v_fma(y, v_set((float)attr->positive), (v_set(1.0f) - y) * v_set((float)attr->negative));
}

/* How wrong p is: 0 .. 1. */
INLINE vf focal_error(vf p, vf y) { return y * (v_set(1.0f) - p) + (v_set(1.0f) - y) * p; }

INLINE vf binary_focal_crossentropy(vf p, vf y, const struct attributes *attr)
{
    return focal_weight(y, attr) * focal_power(focal_error(p, y), (float)attr->gamma) * binary_crossentropy(p, y);
}
INLINE vf binary_focal_crossentropy_slope(vf p, vf y, const struct attributes *attr)
{
    const float gamma = (float)attr->gamma;
    const vf e = focal_error(p, y), turn = (v_set(1.0f) - v_set(2.0f) * y) * binary_crossentropy(p, y);
    const vf slope = v_set(gamma) * focal_power(e, gamma - 1.0f) * turn + focal_power(e, gamma) * binary_crossentropy_slope(p, y);
    return focal_weight(y, attr) * slope;
}

INLINE vf sigmoid_focal_crossentropy(vf z, vf y, const struct attributes *attr)
{
    const vf e = y * v_sigmoid(-z) + (v_set(1.0f) - y) * v_sigmoid(z);
    return focal_weight(y, attr) * focal_power(e, (float)attr->gamma) * sigmoid_crossentropy(z, y);
}
INLINE vf sigmoid_focal_crossentropy_slope(vf z, vf y, const struct attributes *attr)
{
    const vf q = v_sigmoid(z), r = v_sigmoid(-z), right = y * r, wrong = (v_set(1.0f) - y) * q, e = right + wrong;
    const vf turn = (v_set(1.0f) - v_set(2.0f) * y) * (q * r / v_max(v_set(EPSILON), e)) * sigmoid_crossentropy(z, y);
    const vf slope = v_fma(v_set((float)attr->gamma), turn, wrong - right);
    return focal_weight(y, attr) * focal_power(e, (float)attr->gamma) * slope;
}

ROW_MEANS(binary_focal_crossentropy, binary_focal_crossentropy(g, x, attr))
ROW_MEANS_DX(binary_focal_crossentropy_dx, binary_focal_crossentropy_slope(g, x, attr))
ROW_MEANS(sigmoid_focal_crossentropy, sigmoid_focal_crossentropy(g, x, attr))
ROW_MEANS_DX(sigmoid_focal_crossentropy_dx, sigmoid_focal_crossentropy_slope(g, x, attr))

/* ---------------------------------------------------------------------------------------------------------- classes */

/* Classes i .. i + VL of a row's target, weighted; labels where `columns` is less than c. */
INLINE vf focal_target(const struct step *step, const struct tensor *targets, int64_t row, int64_t i, int64_t c)
{
    const int64_t columns = columns_of(targets);
    const vf y = target((const float *)targets->data + row * columns, i, c, columns < c);
    return y * v_load_n(step->attr.class_weights + i, c - i);
}

/* loss (N) = -sum(w y (1 - q)^gamma log q), q = p / sum(p) */
static void kernel_categorical_focal_crossentropy(const struct step *step, const struct lane *lane)
{
    const int64_t rows = rows_of(&step->in[0]), c = columns_of(&step->in[0]);
    const float gamma = (float)step->attr.gamma;
    EACH_ROW(rows) {
        const float *p = (const float *)step->in[0].data + row * c;
        const vf total = v_set(row_sum(p, c));
        vf sum = v_zero();
        for (int64_t i = 0; i < c; i += VL) {
            const vf q = probability(v_load_n(p + i, c - i) / total);
            const vf term = focal_target(step, &step->in[1], row, i, c) * focal_power(v_set(1.0f) - q, gamma) * v_log(q);
            sum = sum + v_fill(term, c - i, 0.0f);
        }
        ((float *)step->out[0].data)[row] = -v_sum(sum);
    }
}

/* dp (N,C) = g (N) * (slope - sum(slope * q)) / sum(p) */
static void kernel_categorical_focal_crossentropy_dx(const struct step *step, const struct lane *lane)
{
    const int64_t rows = rows_of(&step->out[0]), c = columns_of(&step->out[0]);
    const float gamma = (float)step->attr.gamma;
    EACH_ROW(rows) {
        float *dp = (float *)step->out[0].data + row * c;
        const float *p = (const float *)step->in[1].data + row * c;
        const float sum_p = row_sum(p, c);
        vf sum = v_zero();
        for (int64_t i = 0; i < c; i += VL) {
            const vf share = v_load_n(p + i, c - i) / v_set(sum_p), q = probability(share), e = v_set(1.0f) - q;
            const vf part = v_set(gamma) * focal_power(e, gamma - 1.0f) * v_log(q) - focal_power(e, gamma) / q;
            const vf slope = where_inside(share, focal_target(step, &step->in[2], row, i, c) * part);
            v_store_n(dp + i, slope, c - i);
            sum = sum + v_fill(slope * q, c - i, 0.0f);
        }
        const vf dot = v_set(v_sum(sum)), scale = v_set(((const float *)step->in[0].data)[row] / sum_p);
        for (int64_t i = 0; i < c; i += VL) v_store_n(dp + i, (v_load_n(dp + i, c - i) - dot) * scale, c - i);
    }
}

/* loss (N) = -sum(w y (1 - q)^gamma log q), log q = z - max(z) - log(sum(exp(z - max(z)))) */
static void kernel_softmax_focal_crossentropy(const struct step *step, const struct lane *lane)
{
    const int64_t rows = rows_of(&step->in[0]), c = columns_of(&step->in[0]);
    const float gamma = (float)step->attr.gamma;
    EACH_ROW(rows) {
        const float *z = (const float *)step->in[0].data + row * c;
        const float most = row_max(z, c);
        const vf log_total = v_log(v_set(row_exp(NULL, z, c, most)));
        vf sum = v_zero();
        for (int64_t i = 0; i < c; i += VL) {
            const vf log_q = (v_load_n(z + i, c - i) - v_set(most)) - log_total;
            const vf term = focal_target(step, &step->in[1], row, i, c) * focal_power(-v_expm1(log_q), gamma) * log_q;
            sum = sum + v_fill(term, c - i, 0.0f);
        }
        ((float *)step->out[0].data)[row] = -v_sum(sum);
    }
}

/* dz (N,C) = g (N) * (h - q * sum(h)), h = w y (gamma (1 - q)^(gamma - 1) q log q - (1 - q)^gamma) */
static void kernel_softmax_focal_crossentropy_dx(const struct step *step, const struct lane *lane)
{
    const int64_t rows = rows_of(&step->out[0]), c = columns_of(&step->out[0]);
    const float gamma = (float)step->attr.gamma;
    EACH_ROW(rows) {
        float *dz = (float *)step->out[0].data + row * c;
        const float *z = (const float *)step->in[1].data + row * c;
        const float most = row_max(z, c);
        const vf log_total = v_log(v_set(row_exp(NULL, z, c, most)));
        vf sum = v_zero();
        for (int64_t i = 0; i < c; i += VL) {
            const vf log_q = (v_load_n(z + i, c - i) - v_set(most)) - log_total, e = -v_expm1(log_q);
            const vf part = v_set(gamma) * focal_power(e, gamma - 1.0f) * v_exp(log_q) * log_q - focal_power(e, gamma);
            const vf h = focal_target(step, &step->in[2], row, i, c) * part;
            v_store_n(dz + i, h, c - i);
            sum = sum + v_fill(h, c - i, 0.0f);
        }
        const vf g = v_set(((const float *)step->in[0].data)[row]), total = v_set(v_sum(sum));
        for (int64_t i = 0; i < c; i += VL) {
            const vf q = v_exp((v_load_n(z + i, c - i) - v_set(most)) - log_total);
            v_store_n(dz + i, g * (v_load_n(dz + i, c - i) - q * total), c - i);
        }
    }
}
