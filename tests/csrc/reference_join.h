/* Arrays joined along an axis, and parts of them. */
#ifndef FASTNN_REFERENCE_JOIN_H
#define FASTNN_REFERENCE_JOIN_H

#include "reference.h"

/* Where an element of an array is, seen from an axis. */
struct seat {
    int64_t row, place, inside; /* along the axes before, the axis, and those behind it */
};

static int64_t behind(const struct tensor *t, int axis)
{
    int64_t n = 1;
    for (int a = axis + 1; a < t->rank; a++) n *= t->size[a];
    return n;
}

static struct seat seat_of(const struct tensor *t, int axis, int64_t i)
{
    const int64_t inner = behind(t, axis);
    return (struct seat){i / inner / t->size[axis], i / inner % t->size[axis], i % inner};
}

/* Element of an array at a seat whose place is moved. */
static double seated(const struct tensor *t, int axis, struct seat at, int64_t by)
{
    return ((const float *)t->data)[(at.row * t->size[axis] + at.place + by) * behind(t, axis) + at.inside];
}

static void ref_concatenate(const struct step *s, const struct answer *a)
{
    const int axis = s->attr.axis;
    for (int64_t i = 0; i < elements(&s->out[0]); i++) {
        const struct seat at = seat_of(&s->out[0], axis, i);
        int64_t before = 0;
        int from = 0;
        while (at.place - before >= s->in[from].size[axis]) before += s->in[from++].size[axis];
        put(a, 0, i, seated(&s->in[from], axis, at, -before), 0);
    }
}

static void ref_part(const struct step *s, const struct answer *a)
{
    for (int64_t i = 0; i < elements(&s->out[0]); i++)
        put(a, 0, i, seated(&s->in[0], s->attr.axis, seat_of(&s->out[0], s->attr.axis, i), s->attr.start), 0);
}

static void ref_embed(const struct step *s, const struct answer *a)
{
    const int axis = s->attr.axis;
    for (int64_t i = 0; i < elements(&s->out[0]); i++) {
        const struct seat at = seat_of(&s->out[0], axis, i);
        const int inside = at.place >= s->attr.start && at.place < s->attr.start + s->in[0].size[axis];
        put(a, 0, i, inside ? seated(&s->in[0], axis, at, -s->attr.start) : 0, 0);
    }
}

#endif
