/* Two arrays made one, element by element. Formulas as in fastnn/ops/merge.py. Outputs may be one of the inputs. */

POINTWISE_2(subtract, g - x)
POINTWISE_2(add_relu, act_relu(g + x))
POINTWISE_2(maximum, v_top(g, x))
POINTWISE_2(minimum, v_select(v_equal(x, x), v_min(x, g), x))

/* da = g where a > b, half of it where they are equal */
static void kernel_maximum_dx(const struct step *step, const struct lane *lane)
{
    const float *g = step->in[0].data, *a = step->in[1].data, *b = step->in[2].data;
    float *da = step->out[0].data;
    const int64_t total = elements(&step->out[0]);
    const vf half = v_set(0.5f);
    EACH_TASK(total)
        for (int64_t i = at; i < at + n; i += VL) {
            const int64_t left = at + n - i;
            const vf share = v_load_n(g + i, left), x = v_load_n(a + i, left), y = v_load_n(b + i, left);
            const vf rest = v_select(v_equal(x, y), half * share, v_zero());
            v_store_n(da + i, v_select(v_less(y, x), share, rest), left);
        }
}

/* dx = a + b where y > 0 */
static void kernel_add_relu_dx(const struct step *step, const struct lane *lane)
{
    const float *a = step->in[0].data, *b = step->in[1].data, *y = step->in[2].data;
    float *dx = step->out[0].data;
    const int64_t total = elements(&step->out[0]);
    EACH_TASK(total)
        for (int64_t i = at; i < at + n; i += VL) {
            const int64_t left = at + n - i;
            v_store_n(dx + i, act_relu_dx(v_load_n(a + i, left) + v_load_n(b + i, left), v_load_n(y + i, left)), left);
        }
}
