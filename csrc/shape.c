/* Padding, cropping and transposition. N batch; D H W input sizes, OD OH OW output sizes; C channels. A line is what lies
 * along W: W * C floats side by side. */

#include "window.h"

/* For every line of this lane: tasks are so many lines that they write about COPY_FLOATS floats. */
#define EACH_LINE(lines, floats)                                                                                  \
    for (int64_t block_ = COPY_FLOATS / ((floats) + 1) + 1, t_ = lane->id * block_; t_ < (lines);                 \
         t_ += (int64_t)lane->count * block_)                                                                     \
        for (int64_t line = t_; line < (lines) && line < t_ + block_; line++)

/* ---- padding and cropping ---- */

/* y (N, OD, OH, OW, C) = x (N, D, H, W, C) with zeros around it */
static void kernel_zero_pad(const struct step *step, const struct lane *lane)
{
    const struct window w = window_of(&step->in[0], &step->out[0], &step->attr);
    const int64_t width = w.out[AXIS_W] * w.c, inside = w.size[AXIS_W] * w.c, before = w.before[AXIS_W] * w.c;
    const float *x = step->in[0].data;
    float *y = step->out[0].data;
    EACH_LINE(w.n * w.out[AXIS_D] * w.out[AXIS_H], width) {
        const int64_t h = line % w.out[AXIS_H] - w.before[AXIS_H];
        const int64_t d = line / w.out[AXIS_H] % w.out[AXIS_D] - w.before[AXIS_D];
        const int64_t n = line / (w.out[AXIS_H] * w.out[AXIS_D]);
        float *to = y + line * width;
        if (h < 0 || h >= w.size[AXIS_H] || d < 0 || d >= w.size[AXIS_D]) {
            memset(to, 0, (size_t)width * sizeof *to);
            continue;
        }
        memset(to, 0, (size_t)before * sizeof *to);
        copy_row(to + before, x + ((n * w.size[AXIS_D] + d) * w.size[AXIS_H] + h) * inside, inside);
        memset(to + before + inside, 0, (size_t)(width - before - inside) * sizeof *to);
    }
}

/* y (N, OD, OH, OW, C) = the inside of x (N, D, H, W, C) */
static void kernel_crop(const struct step *step, const struct lane *lane)
{
    const struct window w = window_of(&step->in[0], &step->out[0], &step->attr);
    const int64_t width = w.out[AXIS_W] * w.c, whole = w.size[AXIS_W] * w.c;
    const float *x = (const float *)step->in[0].data + w.before[AXIS_W] * w.c;
    float *y = step->out[0].data;
    EACH_LINE(w.n * w.out[AXIS_D] * w.out[AXIS_H], width) {
        const int64_t h = line % w.out[AXIS_H] + w.before[AXIS_H];
        const int64_t d = line / w.out[AXIS_H] % w.out[AXIS_D] + w.before[AXIS_D];
        const int64_t n = line / (w.out[AXIS_H] * w.out[AXIS_D]);
        copy_row(y + line * width, x + ((n * w.size[AXIS_D] + d) * w.size[AXIS_H] + h) * whole, width);
    }
}

/* ---- transposition ---- */

/* y (L, K; rows ldy apart) = x (K, L; rows ldx apart) turned round: a block of VL by VL at a time. */
static void turn(float *y, int64_t ldy, const float *x, int64_t ldx, int64_t k, int64_t l)
{
    for (int64_t i = 0; i < k; i += VL)
        for (int64_t j = 0; j < l; j += VL) {
            if (k - i < VL || l - j < VL) {
                for (int64_t row = j; row < l && row < j + VL; row++)
                    for (int64_t column = i; column < k && column < i + VL; column++)
                        y[row * ldy + column] = x[column * ldx + row];
                continue;
            }
            const float *from[VL];
            vf block[VL];
            UNROLL for (int r = 0; r < VL; r++) from[r] = x + (i + r) * ldx + j;
            v_load_transposed(block, from);
            UNROLL for (int r = 0; r < VL; r++) v_store(y + (j + r) * ldy + i, block[r]);
        }
}

/* y (N, ...) = x (N, ...) with axis perm[i] of x as axis i. The last axis of y and that of x are turned round together, or
 * copied if they are the same; the axes between are counted through. */
static void kernel_transpose(const struct step *step, const struct lane *lane)
{
    const struct tensor *x = &step->in[0], *y = &step->out[0];
    const int last = y->rank - 1;
    int64_t stride_x[MAX_RANK], stride[MAX_RANK], pitch[MAX_RANK]; /* of x; of x and y by the axes of y */
    stride_x[last] = pitch[last] = 1;
    for (int a = last; a > 0; a--) {
        stride_x[a - 1] = stride_x[a] * x->size[a];
        pitch[a - 1] = pitch[a] * y->size[a];
    }
    int inner = last; /* the axis of y that is the last of x */
    stride[0] = stride_x[0];
    for (int a = 1; a <= last; a++) {
        stride[a] = stride_x[step->attr.perm[a]];
        if (step->attr.perm[a] == last) inner = a;
    }
    const int copied = inner == last;
    const int64_t l = y->size[inner], k = copied ? 1 : y->size[last];
    const int free = last - 1 - (last - 1 == inner), along = free > 0 ? free : 0; /* the last axis between, or 0 */
    const int64_t m = along ? y->size[along] : 1;
    int64_t count = 1;
    for (int a = 0; a < last; a++) count *= a == inner || (a && a == along) ? 1 : y->size[a];
    EACH_LINE(count, m * k * l) {
        int64_t from = 0, to = 0, rest = line;
        for (int a = last - 1; a >= 0; a--) {
            if (a == inner || (a && a == along)) continue;
            from += rest % y->size[a] * stride[a];
            to += rest % y->size[a] * pitch[a];
            rest /= y->size[a];
        }
        for (int64_t i = 0; i < m; i++) {
            const float *source = (const float *)x->data + from + i * stride[along];
            float *target = (float *)y->data + to + i * pitch[along];
            if (copied) copy_row(target, source, l);
            else turn(target, pitch[inner], source, stride[last], k, l);
        }
    }
}
