/* Data that are brought in, and random numbers. Sizes in letters: N batch, C channels. */
#ifndef FASTNN_REFERENCE_DATA_H
#define FASTNN_REFERENCE_DATA_H

#include "reference.h"

static void ref_gather(const struct step *s, const struct answer *a)
{
    int64_t n = s->out[0].size[0], f = elements(&s->out[0]) / n;
    const int64_t *index = s->in[1].data;
    for (int64_t i = 0; i < n * f; i++) put(a, 0, i, IN(0)[index[i / f] * f + i % f], 0);
}

static void ref_scatter(const struct step *s, const struct answer *a)
{
    int64_t n = s->in[0].size[0], f = s->in[0].size[1];
    const int64_t *index = s->in[1].data;
    for (int64_t i = 0; i < elements(&s->out[0]); i++) put(a, 0, i, OUT(0)[i], 0);
    for (int64_t i = 0; i < n * f; i++) put(a, 0, index[i / f] * f + i % f, IN(0)[i], 0);
}

static void ref_take(const struct step *s, const struct answer *a)
{
    int64_t c = last_size(&s->in[0]), r = s->in[0].size[s->in[0].rank - 2];
    for (int64_t i = 0; i < elements(&s->out[0]); i++) put(a, 0, i, IN(0)[(i / c * r + s->attr.index) * c + i % c], 0);
}

static void ref_fill(const struct step *s, const struct answer *a)
{
    for (int64_t i = 0; i < elements(&s->out[0]); i++) put(a, 0, i, (float)s->attr.fill_value, 0);
}

/* ---- random numbers: see fastnn/ops/random.py ---- */

/* x, kept or dropped as the number of an element says. */
static double dropped(const struct step *s, double x, int64_t element)
{
    float number = (float)(word_of(s, &s->in[1], element) >> 8) / 16777216.0f, scale = (float)(1.0 / (1.0 - s->attr.rate));
    volatile float kept = (float)x * scale;
    return number < (float)s->attr.rate ? 0 : kept;
}

static void ref_dropout(const struct step *s, const struct answer *a)
{
    for (int64_t i = 0; i < elements(&s->out[0]); i++) put(a, 0, i, dropped(s, IN(0)[i], i), 0);
}

static void ref_spatial_dropout(const struct step *s, const struct answer *a)
{
    int64_t c = last_size(&s->in[0]), row = elements(&s->in[0]) / s->in[0].size[0];
    for (int64_t i = 0; i < elements(&s->out[0]); i++) put(a, 0, i, dropped(s, IN(0)[i], i / row * c + i % c), 0);
}

/* The probability that a normal number has at least the size of that of the word. */
static double normal_chance(uint32_t word) { return (double)(word >> 1 | 1) / 2147483648.0; }

/* The normal number of a word: the size x with erfc(x / sqrt(2)) = its chance, by Newton's method. */
static double normal_of(uint32_t word)
{
    const double chance = normal_chance(word);
    double x = chance > 0.5 ? (1 - chance) * sqrt(M_PI / 2) : sqrt(-2 * log(chance));
    for (int i = 0; i < 50; i++) {
        const double over = erfc(x / sqrt(2)) - chance, slope = sqrt(2 / M_PI) * exp(-x * x / 2);
        x += over / slope;
    }
    return word & 1 ? -x : x;
}

/* By the given approximations the size is found to 8 eps of 1 + itself. */
static void ref_gaussian_noise(const struct step *s, const struct answer *a)
{
    for (int64_t i = 0; i < elements(&s->out[0]); i++) {
        double x = IN(0)[i], z = normal_of(word_of(s, &s->in[1], i)), y = x + s->attr.stddev * z;
        put(a, 0, i, y, EPS * (fabs(y) + s->attr.stddev * 8 * (1 + fabs(z))));
    }
}

#endif
