/* A window's taps along one axis, seen from the outputs of a convolution or, backward, from its inputs: a row of places,
 * each of which reads what its taps fall on. */
#ifndef FASTNN_SLIDE_H
#define FASTNN_SLIDE_H

#include "window.h"

/* All are numbers of elements, not of floats. */
struct slide {
    int64_t base, advance, tap; /* tap t of output j reads the input at base + j * advance + t * tap, if that is inside */
    int64_t size;               /* of the input */
    int64_t taps, w, w_step;    /* tap t has the weight w + t * w_step */
};

/* For b > 0, most often 1. */
static int64_t floor_div(int64_t a, int64_t b) { return b == 1 ? a : a / b - (a % b < 0); }
static int64_t ceil_div(int64_t a, int64_t b) { return -floor_div(-a, b); }
static int64_t clamp(int64_t x, int64_t low, int64_t high) { return x < low ? low : x < high ? x : high; }

/* Outputs first, first + 1, ... of the convolution. */
static struct slide slide_forward(const struct window *w, int axis, int64_t first)
{
    return (struct slide){.base = first * w->stride[axis] - w->before[axis], .advance = w->stride[axis],
                          .tap = w->dilation[axis], .size = w->size[axis], .taps = w->kernel[axis], .w_step = 1};
}

/* Elements first, first + stride, ... of the input, made of the outputs. Element i went into output o with weight k where
 * i + before = o * stride + k * dilation; the last such k lies on the first output. */
static struct slide slide_backward(const struct window *w, int axis, int64_t first)
{
    const int64_t stride = w->stride[axis], dilation = w->dilation[axis], at = first + w->before[axis];
    if (stride == 1)
        return (struct slide){.base = at - (w->kernel[axis] - 1) * dilation, .advance = 1, .tap = dilation,
                              .size = w->out[axis], .taps = w->kernel[axis], .w = w->kernel[axis] - 1, .w_step = -1};
    int64_t common = stride;
    for (int64_t rest = dilation; common > 1 && rest;) {
        const int64_t next = common % rest;
        common = rest;
        rest = next;
    }
    const int64_t every = stride / common, end = every < w->kernel[axis] ? every : w->kernel[axis];
    int64_t k = 0;
    while (k < end && (at - k * dilation) % stride) k++;
    const int64_t taps = k < end ? (w->kernel[axis] - 1 - k) / every + 1 : 0;
    k += (taps - 1) * every;
    return (struct slide){.base = floor_div(at - k * dilation, stride), .advance = 1, .tap = dilation / common,
                          .size = w->out[axis], .taps = taps, .w = k, .w_step = -every};
}

/* The taps of output j that lie inside, as the taps of output 0. */
static struct slide taps_inside(struct slide s, int64_t j)
{
    s.base += j * s.advance;
    const int64_t t0 = clamp(ceil_div(-s.base, s.tap), 0, s.taps);
    const int64_t t1 = clamp(floor_div(s.size - 1 - s.base, s.tap) + 1, t0, s.taps);
    s.base += t0 * s.tap;
    s.w += t0 * s.w_step;
    s.taps = t1 - t0;
    return s;
}

/* The outputs of *from ... *to - 1 all of whose taps lie inside. */
static void outputs_inside(const struct slide *s, int64_t *from, int64_t *to)
{
    const int64_t last = s->size - 1 - s->base - (s->taps - 1) * s->tap;
    const int64_t end = clamp(floor_div(last, s->advance) + 1, *from, *to);
    *from = clamp(ceil_div(-s->base, s->advance), *from, end);
    *to = end;
}

#endif
