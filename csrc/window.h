/* Windows that slide over signals, images and volumes, all seen as volumes: N batch, D H W, C channels. */
#ifndef FASTNN_WINDOW_H
#define FASTNN_WINDOW_H

#include "kernels.h"

enum { AXIS_D, AXIS_H, AXIS_W };

/* Input (n, size, c) under a window, output (n, out, ...). Element k of the window of output o is input
 * o * stride + k * dilation - before, along each axis. */
struct window {
    int64_t n, c;
    int64_t size[MAX_SPACE], out[MAX_SPACE], kernel[MAX_SPACE];
    int64_t stride[MAX_SPACE], dilation[MAX_SPACE], before[MAX_SPACE];
};

/* The sizes of axes D H W of an array (N, ..., C) that may lack the first ones. */
static inline void space_of(int64_t *size, const struct tensor *t)
{
    for (int a = 0; a < MAX_SPACE; a++) {
        const int axis = a - MAX_SPACE + t->rank - 1;
        size[a] = axis >= 1 ? t->size[axis] : 1;
    }
}

/* Input x (N, D, H, W, C), output y (N, OD, OH, OW, ...); the window's size from the attributes. */
static inline struct window window_of(const struct tensor *x, const struct tensor *y, const struct attributes *attr)
{
    struct window w = {.n = x->size[0], .c = x->size[x->rank - 1]};
    space_of(w.size, x);
    space_of(w.out, y);
    for (int a = 0; a < MAX_SPACE; a++) {
        w.kernel[a] = attr->kernel[a];
        w.stride[a] = attr->strides[a];
        w.dilation[a] = attr->dilations[a];
        w.before[a] = attr->before[a];
    }
    return w;
}

#endif
