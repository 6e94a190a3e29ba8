/* Quotients, roots and logarithms, and rows times a vector. Formulas as in fastnn/ops/arithmetic.py. Outputs of the first four
 * may be one of the inputs, that of scale_columns the first. */

POINTWISE_1(log, v_log(x))
POINTWISE_1(sqrt, v_sqrt(x))
POINTWISE_1(reciprocal, v_set(1.0f) / x)
POINTWISE_2(divide, g / x)

/* out (N, F) = x (N, F) * v (F) */
static void kernel_scale_columns(const struct step *s, const struct lane *lane)
{
    const int64_t n = rows_of(&s->in[0]), f = columns_of(&s->in[0]), block = COPY_FLOATS / (f + 1) + 1;
    const float *x = s->in[0].data, *v = s->in[1].data;
    float *out = s->out[0].data;
    for (int64_t first = lane->id * block; first < n; first += lane->count * block)
        for (int64_t i = first; i < n && i < first + block; i++)
            for (int64_t j = 0; j < f; j += VL)
                v_store_n(out + i * f + j, v_load_n(x + i * f + j, f - j) * v_load_n(v + j, f - j), f - j);
}

/* out (N, F) = v (F) again and again; of x only the number of rows counts */
static void kernel_repeat_rows(const struct step *s, const struct lane *lane)
{
    const int64_t n = s->in[0].size[0], f = columns_of(&s->out[0]), block = COPY_FLOATS / (f + 1) + 1;
    const float *v = s->in[1].data;
    float *out = s->out[0].data;
    for (int64_t first = lane->id * block; first < n; first += lane->count * block)
        for (int64_t i = first; i < n && i < first + block; i++)
            for (int64_t j = 0; j < f; j += VL) v_store_n(out + i * f + j, v_load_n(v + j, f - j), f - j);
}
