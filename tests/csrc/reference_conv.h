/* Convolutions and their gradients, depthwise ones among them. */
#ifndef FASTNN_REFERENCE_CONV_H
#define FASTNN_REFERENCE_CONV_H

#include "reference_window.h"

/* Elements of the window. */
static double taps_of(const struct tensor *w)
{
    const struct volume kernel = kernel_of(w);
    return (double)(kernel.d * kernel.h * kernel.w);
}

static void correlate(const struct step *s, const struct answer *a, int64_t groups)
{
    const struct tensor *x = &s->in[0], *w = &s->in[1], *y = &s->out[0];
    const int64_t filters = last_size(y);
    const double terms = taps_of(w) * (double)(last_size(x) / groups) + 1;
    const int whole = is_whole(x) && is_whole(w) && s->inputs < 3;
    add_products(s, x, w, y, groups, OF_Y, a->want[0], a->slack[0]);
    for (int64_t i = 0; i < elements(y); i++) {
        const double b = s->inputs > 2 ? IN(2)[i % filters] : 0;
        put_activated(s, a, i, a->want[0][i] + b, sum_error(terms, a->slack[0][i] + fabs(b), whole));
    }
}

static void correlate_dx(const struct step *s, const struct answer *a, int64_t groups)
{
    const struct tensor *g = &s->in[0], *w = &s->in[1], *x = &s->out[0];
    const double terms = taps_of(w) * (double)(last_size(g) / groups);
    const int whole = is_whole(g) && is_whole(w);
    add_products(s, x, w, g, groups, OF_X, a->want[0], a->slack[0]);
    for (int64_t i = 0; i < elements(x); i++)
        put_sloped(s, a, i, a->want[0][i], s->inputs > 2 ? IN(2)[i] : 0, sum_error(terms, a->slack[0][i], whole));
}

/* With a bias, and an activation. */
static void ref_conv_transpose(const struct step *s, const struct answer *a)
{
    const struct tensor *g = &s->in[0], *w = &s->in[1], *x = &s->out[0];
    const int64_t channels = last_size(x);
    const double terms = taps_of(w) * (double)(last_size(g) / s->attr.groups) + 1;
    const int whole = is_whole(g) && is_whole(w) && s->inputs < 3;
    add_products(s, x, w, g, s->attr.groups, OF_X, a->want[0], a->slack[0]);
    for (int64_t i = 0; i < elements(x); i++) {
        const double b = s->inputs > 2 ? IN(2)[i % channels] : 0;
        put_activated(s, a, i, a->want[0][i] + b, sum_error(terms, a->slack[0][i] + fabs(b), whole));
    }
}

/* `parts`: as many sums, at most, are added up in the end. */
static void correlate_dw(const struct step *s, const struct answer *a, int64_t groups, double parts)
{
    const struct tensor *x = &s->in[0], *g = &s->in[1], *w = &s->out[0];
    const double terms = (double)(elements(g) / last_size(g)) + parts;
    const int whole = is_whole(x) && is_whole(g);
    add_products(s, x, w, g, groups, OF_W, a->want[0], a->slack[0]);
    for (int64_t i = 0; i < elements(w); i++) put(a, 0, i, a->want[0][i], sum_error(terms, a->slack[0][i], whole));
}

static void ref_conv(const struct step *s, const struct answer *a) { correlate(s, a, s->attr.groups); }
static void ref_conv_dx(const struct step *s, const struct answer *a) { correlate_dx(s, a, s->attr.groups); }
static void ref_conv_dw(const struct step *s, const struct answer *a) { correlate_dw(s, a, s->attr.groups, 8); }

/* Each channel is a group; weights (*kernel, C, M) lie as those of C groups do, (*kernel, 1, C * M). */
static void ref_depthwise(const struct step *s, const struct answer *a) { correlate(s, a, last_size(&s->in[0])); }
static void ref_depthwise_dx(const struct step *s, const struct answer *a) { correlate_dx(s, a, last_size(&s->out[0])); }
static void ref_depthwise_dw(const struct step *s, const struct answer *a) { correlate_dw(s, a, last_size(&s->in[0]), 64); }

/* ---- the floats of memory that ops ask for: as in fastnn/ops/conv.py and depthwise.py ---- */

static int64_t conv_dw_workspace(const struct tensor *w)
{
    const int64_t filters = last_size(w), sums = elements(w) / filters, tiles = (sums + 15) / 16 * ((filters + 31) / 32);
    const int64_t parts = tiles >= 16 ? 1 : tiles <= 2 ? 8 : 16 / tiles;
    return (parts - 1) * elements(w);
}

static int64_t depthwise_dw_workspace(const struct tensor *g, const struct tensor *w)
{
    const int64_t filters = last_size(g), weights = elements(w) / filters * ((filters + 15) / 16 * 16);
    const int64_t wanted = elements(g) / filters / 512, room = (1 << 22) / weights;
    int64_t parts = wanted < 64 ? wanted : 64;
    if (parts > room) parts = room;
    return (parts > 1 ? parts : 1) * weights;
}

#endif
