/* Random changes of images (N, H, W, C): see fastnn/ops/augment.py. */
#ifndef FASTNN_REFERENCE_AUGMENT_H
#define FASTNN_REFERENCE_AUGMENT_H

#include "reference.h"

/* Number k of row n, in [0, 1). */
static double drawn(const struct step *s, const struct tensor *number, int64_t n, int k)
{
    uint32_t words[4];
    words_of(s, number, (uint32_t)n, words);
    return words[k] / 4294967296.0;
}

static double drawn_between(const double range[2], double number) { return range[0] + (range[1] - range[0]) * number; }

static void ref_random_flip(const struct step *s, const struct answer *a)
{
    const int64_t *size = s->in[0].size, h = size[1], w = size[2], c = size[3];
    for (int64_t i = 0; i < elements(&s->out[0]); i++) {
        const int64_t n = i / c / w / h, row = i / c / w % h, column = i / c % w;
        const int down = s->attr.vertical && drawn(s, &s->in[1], n, 1) < 0.5;
        const int across = s->attr.horizontal && drawn(s, &s->in[1], n, 0) < 0.5;
        const int64_t from = (n * h + (down ? h - 1 - row : row)) * w + (across ? w - 1 - column : column);
        put(a, 0, i, IN(0)[from * c + i % c], 0);
    }
}

/* ---- matrices: the linear part leaves the centre where it is; then everything moves ---- */

static void put_matrix(const struct step *s, const struct answer *a, int64_t n, const double linear[4], double right,
                       double down)
{
    const double x = (double)(s->in[0].size[2] - 1) / 2, y = (double)(s->in[0].size[1] - 1) / 2;
    const double moved_x = x - (linear[0] * x + linear[1] * y) - right, moved_y = y - (linear[2] * x + linear[3] * y) - down;
    const double rows[6] = {linear[0], linear[1], moved_x, linear[2], linear[3], moved_y};
    for (int i = 0; i < 6; i++) /* sine and cosine may be off by 1e-13 */
        put(a, 0, 6 * n + i, rows[i], EPS * fabs(rows[i]) + 1e-12 * (1 + x + y));
}

static void ref_rotation_matrices(const struct step *s, const struct answer *a)
{
    for (int64_t n = 0; n < s->out[0].size[0]; n++) {
        const double angle = 2 * M_PI * drawn_between(s->attr.turns, drawn(s, &s->in[1], n, 0));
        put_matrix(s, a, n, (const double[]){cos(angle), -sin(angle), sin(angle), cos(angle)}, 0, 0);
    }
}

static void ref_zoom_matrices(const struct step *s, const struct answer *a)
{
    for (int64_t n = 0; n < s->out[0].size[0]; n++) {
        const double high = drawn_between(s->attr.heights, drawn(s, &s->in[1], n, 0));
        const double wide = s->attr.widths[1] == 0 ? high : drawn_between(s->attr.widths, drawn(s, &s->in[1], n, 1));
        put_matrix(s, a, n, (const double[]){wide, 0, 0, high}, 0, 0);
    }
}

static void ref_translation_matrices(const struct step *s, const struct answer *a)
{
    for (int64_t n = 0; n < s->out[0].size[0]; n++) {
        const double down = drawn_between(s->attr.heights, drawn(s, &s->in[1], n, 0)) * (double)s->in[0].size[1];
        const double right = drawn_between(s->attr.widths, drawn(s, &s->in[1], n, 1)) * (double)s->in[0].size[2];
        put_matrix(s, a, n, (const double[]){1, 0, 0, 1}, right, down);
    }
}

/* ---- images seen through matrices ---- */

/* Pixel i of an axis that goes on beyond its ends; -1 for the filling. */
static int64_t extend(int64_t i, int64_t size, int32_t mode)
{
    if (i >= 0 && i < size) return i;
    if (mode == FILL_CONSTANT) return -1;
    if (mode == FILL_NEAREST) return i < 0 ? 0 : size - 1;
    const int64_t period = mode == FILL_WRAP ? size : 2 * size, place = (i % period + period) % period;
    return place < size ? place : period - 1 - place;
}

/* The places `at` along an axis: up to two pixels and their weights; returns how many. */
static int taps_at(const struct step *s, double at, int64_t size, int64_t index[2], double weight[2])
{
    at = at > -1073741824.0 ? fmin(at, 1073741824.0) : -1073741824.0; /* NaN is far away */
    const int bilinear = s->attr.interpolation == INTERPOLATION_BILINEAR;
    const double low = floor(bilinear ? at : at + 0.5);
    for (int i = 0; i < 2; i++) index[i] = extend((int64_t)low + i, size, s->attr.fill_mode);
    weight[0] = bilinear ? 1 - (at - low) : 1;
    weight[1] = at - low;
    return 1 + bilinear;
}

static void sample(const struct step *s, const struct answer *a, int backward)
{
    const int64_t *shape = s->in[0].size, h = shape[1], w = shape[2], c = shape[3], total = elements(&s->in[0]);
    double *sum = a->want[0], *size = a->slack[0], *terms = malloc(sizeof *terms * (size_t)total);
    for (int64_t i = 0; i < total; i++) sum[i] = size[i] = 0, terms[i] = 8;
    for (int64_t i = 0; i < total; i++) {
        const double x = (double)(i / c % w), y = (double)(i / c / w % h);
        const float *m = IN(1) + i / c / w / h * 6;
        int64_t columns[2], rows[2];
        double across[2], down[2];
        const int wide = taps_at(s, ((double)m[1] * y + m[2]) + (double)m[0] * x, w, columns, across);
        const int high = taps_at(s, ((double)m[4] * y + m[5]) + (double)m[3] * x, h, rows, down);
        for (int tap = 0; tap < wide * high; tap++) {
            const int64_t row = rows[tap / wide], column = columns[tap % wide], inside = row >= 0 && column >= 0;
            const int64_t pixel = ((i / c / w / h * h + row) * w + column) * c + i % c, at = backward ? pixel : i;
            if (backward && !inside) continue;
            const double v = backward ? IN(0)[i] : inside ? IN(0)[pixel] : (float)s->attr.fill_value;
            sum[at] += down[tap / wide] * across[tap % wide] * v;
            size[at] += fabs(down[tap / wide] * across[tap % wide] * v);
            terms[at]++;
        }
    }
    for (int64_t i = 0; i < total; i++) size[i] *= EPS * terms[i];
    free(terms);
}
static void ref_affine_transform(const struct step *s, const struct answer *a) { sample(s, a, 0); }
static void ref_affine_transform_dx(const struct step *s, const struct answer *a) { sample(s, a, 1); }

/* ---- contrast ---- */

static void change_contrast(const struct step *s, const struct answer *a, int backward)
{
    const int64_t *shape = s->in[0].size, c = shape[3], pixels = shape[1] * shape[2];
    const double low = (float)s->attr.limits[0], high = (float)s->attr.limits[1];
    for (int64_t n = 0; n < shape[0]; n++) {
        const double factor = (float)drawn_between(s->attr.factors, drawn(s, &s->in[1 + backward], n, 0));
        for (int64_t j = 0; j < c; j++) {
            double mean = 0, size = 0;
            for (int pass = 0; pass < 2; pass++)
                for (int64_t p = 0; p < pixels; p++) {
                    const int64_t i = (n * pixels + p) * c + j;
                    const double v = backward && !(low < IN(1)[i] && IN(1)[i] < high) ? 0 : IN(0)[i];
                    if (!pass) {
                        mean += v / (double)pixels;
                        size += fabs(v) / (double)pixels;
                        continue;
                    }
                    const double y = backward ? factor * v + (1 - factor) * mean : (v - mean) * factor + mean;
                    const double want = backward ? y : fmax(low, fmin(high, y));
                    put(a, 0, i, want, EPS * ((double)pixels + 8) * (fabs(v) + size) * (1 + factor));
                }
        }
    }
}
static void ref_random_contrast(const struct step *s, const struct answer *a) { change_contrast(s, a, 0); }
static void ref_random_contrast_dx(const struct step *s, const struct answer *a) { change_contrast(s, a, 1); }

#endif
