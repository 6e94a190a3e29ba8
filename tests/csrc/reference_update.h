/* Updates, in place. */
#ifndef FASTNN_REFERENCE_UPDATE_H
#define FASTNN_REFERENCE_UPDATE_H

#include "reference.h"

static void ref_momentum(const struct step *s, const struct answer *a) /* and sgd: without a second output */
{
    for (int64_t i = 0; i < elements(&s->out[0]); i++) {
        int plain = s->outputs == 1;
        double p = OUT(0)[i], v = plain ? 0 : OUT(1)[i], move = (double)IN(1)[0] * IN(0)[i], keep = plain ? 0 : s->attr.momentum;
        double speed = keep * v - move, step = s->attr.nesterov ? keep * speed - move : speed;
        put(a, 0, i, p + step, 4 * EPS * (fabs(p) + fabs(v) + fabs(move)));
        if (!plain) put(a, 1, i, speed, 4 * EPS * (fabs(v) + fabs(move)));
    }
}

static void adam_reference(const struct step *s, const struct answer *a, double decay)
{
    for (int64_t i = 0; i < elements(&s->out[0]); i++) {
        double p = OUT(0)[i], m = OUT(1)[i], v = OUT(2)[i], g = IN(0)[i], rate = IN(1)[1];
        double mean = m + (g - m) * (1 - s->attr.beta_1), square = v + (g * g - v) * (1 - s->attr.beta_2);
        double root = sqrt(square) + s->attr.epsilon, size = fabs(p) + rate * (fabs(m) + fabs(g)) / root;
        put(a, 0, i, p - p * decay * IN(1)[0] - rate * mean / root, 8 * EPS * size);
        put(a, 1, i, mean, 4 * EPS * (fabs(m) + fabs(g)));
        put(a, 2, i, square, 4 * EPS * (v + g * g));
    }
}
static void ref_adam(const struct step *s, const struct answer *a) { adam_reference(s, a, 0); }
static void ref_adamw(const struct step *s, const struct answer *a) { adam_reference(s, a, s->attr.weight_decay); }

static void ref_rmsprop(const struct step *s, const struct answer *a) /* and with momentum: a third output */
{
    for (int64_t i = 0; i < elements(&s->out[0]); i++) {
        double p = OUT(0)[i], v = OUT(1)[i], g = IN(0)[i], rate = IN(1)[0];
        double square = s->attr.rho * v + (1 - s->attr.rho) * g * g, move = rate * g / sqrt(square + s->attr.epsilon);
        double b = s->outputs > 2 ? OUT(2)[i] : 0, speed = s->attr.momentum * b + move;
        put(a, 0, i, p - speed, 8 * EPS * (fabs(p) + fabs(b) + fabs(move)));
        put(a, 1, i, square, 4 * EPS * (v + g * g));
        if (s->outputs > 2) put(a, 2, i, speed, 8 * EPS * (fabs(b) + fabs(move)));
    }
}

static void ref_moving_average(const struct step *s, const struct answer *a)
{
    for (int64_t i = 0; i < elements(&s->out[0]); i++) {
        double old = s->attr.momentum * OUT(0)[i], new = (1 - s->attr.momentum) * IN(0)[i];
        put(a, 0, i, old + new, 3 * EPS * (fabs(old) + fabs(new)));
    }
}

#endif
