/* Pooling. Sizes in letters: N batch, D H W space, C channels, KD KH KW window, OD OH OW output. Padding is no pixel. */
#ifndef FASTNN_REFERENCE_POOL_H
#define FASTNN_REFERENCE_POOL_H

#include "reference_window.h"

/* Images x under windows, of which there is one an image if y is (N, C). */
struct pool {
    struct volume x, y, kernel;
};

static struct pool pool_of(const struct step *s, const struct tensor *x, const struct tensor *y)
{
    struct pool p = {.x = volume_of(x)};
    if (y->rank == 2) {
        p.y = (struct volume){y->size[0], 1, 1, 1, y->size[1]};
        p.kernel = p.x;
    } else {
        p.y = volume_of(y);
        p.kernel = (struct volume){1, s->attr.kernel[0], s->attr.kernel[1], s->attr.kernel[2], 1};
    }
    return p;
}

static int64_t windows_of(const struct pool *p) { return p->y.n * p->y.d * p->y.h * p->y.w; }
static int64_t places_of(const struct pool *p) { return p->kernel.d * p->kernel.h * p->kernel.w; }

/* The number of pixel k under window o among all pixels; -1 if there is none. */
static int64_t pixel_of(const struct step *s, const struct pool *p, int64_t o, int64_t k)
{
    const int64_t d = under(s, 0, o / p->y.w / p->y.h % p->y.d, k / p->kernel.w / p->kernel.h);
    const int64_t h = under(s, 1, o / p->y.w % p->y.h, k / p->kernel.w % p->kernel.h);
    const int64_t w = under(s, 2, o % p->y.w, k % p->kernel.w), n = o / p->y.w / p->y.h / p->y.d;
    if (d < 0 || d >= p->x.d || h < 0 || h >= p->x.h || w < 0 || w >= p->x.w) return -1;
    return ((n * p->x.d + d) * p->x.h + h) * p->x.w + w;
}

static void ref_max_pool(const struct step *s, const struct answer *a)
{
    const struct pool p = pool_of(s, &s->in[0], &s->out[0]);
    for (int64_t i = 0; i < windows_of(&p) * p.x.c; i++) {
        double most = -INFINITY;
        for (int64_t k = 0; k < places_of(&p) && most == most; k++) {
            const int64_t pixel = pixel_of(s, &p, i / p.x.c, k);
            const double x = pixel < 0 ? -INFINITY : IN(0)[pixel * p.x.c + i % p.x.c];
            most = x > most || x != x ? x : most;
        }
        put(a, 0, i, most, 0);
    }
}

static void ref_average_pool(const struct step *s, const struct answer *a)
{
    const struct pool p = pool_of(s, &s->in[0], &s->out[0]);
    const int whole = is_whole(&s->in[0]);
    for (int64_t i = 0; i < windows_of(&p) * p.x.c; i++) {
        double sum = 0, size = 0, count = 0;
        for (int64_t k = 0; k < places_of(&p); k++) {
            const int64_t pixel = pixel_of(s, &p, i / p.x.c, k);
            const double x = pixel < 0 ? 0 : IN(0)[pixel * p.x.c + i % p.x.c];
            sum += x;
            size += fabs(x);
            count += pixel >= 0;
        }
        put(a, 0, i, sum / count, (sum_error(count, size, whole) + 2 * EPS * fabs(sum)) / count);
    }
}

/* The place of window o that channel c has its largest number at: of the first of the largest, or of NaN. */
static int64_t first_most(const struct step *s, const struct pool *p, int64_t o, int64_t c)
{
    const double y = IN(2)[o * p->x.c + c];
    for (int64_t k = 0; k < places_of(p); k++) {
        const int64_t pixel = pixel_of(s, p, o, k);
        const double x = pixel < 0 ? 0 : IN(1)[pixel * p->x.c + c];
        if (pixel >= 0 && (x == y || x != x)) return k;
    }
    CHECK(0, "none of window %lld is %g", (long long)o, y);
    return 0;
}

static void spread(const struct step *s, const struct answer *a, int most)
{
    const struct pool p = pool_of(s, &s->out[0], &s->in[0]);
    const int64_t total = elements(&s->out[0]);
    double *sum = a->want[0], *size = a->slack[0], terms = 1;
    memset(sum, 0, sizeof *sum * (size_t)total);
    memset(size, 0, sizeof *size * (size_t)total);
    for (int64_t i = 0; i < windows_of(&p) * p.x.c; i++) {
        const int64_t first = most ? first_most(s, &p, i / p.x.c, i % p.x.c) : 0, last = most ? first : places_of(&p) - 1;
        double count = 0;
        for (int64_t k = first; k <= last; k++) count += pixel_of(s, &p, i / p.x.c, k) >= 0;
        for (int64_t k = first; k <= last; k++) {
            const int64_t pixel = pixel_of(s, &p, i / p.x.c, k);
            if (pixel < 0) continue;
            sum[pixel * p.x.c + i % p.x.c] += IN(0)[i] / count;
            size[pixel * p.x.c + i % p.x.c] += fabs(IN(0)[i]) / count;
        }
    }
    const int64_t kernel[] = {p.kernel.d, p.kernel.h, p.kernel.w};
    for (int axis = 0; axis < MAX_SPACE; axis++) /* as many windows share a pixel */
        terms *= (double)((kernel[axis] + s->attr.strides[axis] - 1) / s->attr.strides[axis]);
    for (int64_t i = 0; i < total; i++) size[i] *= EPS * (s->in[0].rank == 2 ? !most : terms - 1 + 2 * !most);
}
static void ref_max_pool_dx(const struct step *s, const struct answer *a) { spread(s, a, 1); }
static void ref_average_pool_dx(const struct step *s, const struct answer *a) { spread(s, a, 0); }

#endif
