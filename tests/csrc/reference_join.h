/* Arrays joined along an axis, parts of them, and rows repeated or summed along axes. */
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

/* The element of the smaller array that element i of the larger one is, or is added to. */
static int64_t behind_element(const struct tensor *large, const struct tensor *small, int64_t i)
{
    int64_t at = 0, stride = 1;
    for (int a = large->rank - 1; a >= 0; a--) {
        at += i % large->size[a] % small->size[a] * stride;
        i /= large->size[a];
        stride *= small->size[a];
    }
    return at;
}

static void ref_broadcast(const struct step *s, const struct answer *a)
{
    for (int64_t i = 0; i < elements(&s->out[0]); i++) put(a, 0, i, IN(0)[behind_element(&s->out[0], &s->in[0], i)], 0);
}

/* Sums of 256 of the last summed axes that lie side by side; all sums there are. As in fastnn/ops/broadcast.py. */
static int64_t sums_apart(const struct tensor *g, const struct tensor *y, int64_t *side_by_side)
{
    int64_t all = 1;
    int a = g->rank - 1;
    while (a > 0 && g->size[a] == y->size[a]) a--;
    for (*side_by_side = 1; a > 0 && (g->size[a] != y->size[a] || g->size[a] == 1); a--) *side_by_side *= g->size[a];
    for (; a > 0; a--) all *= g->size[a] / y->size[a];
    return all * ((*side_by_side + 255) / 256);
}

static int64_t sum_to_workspace(const struct tensor *g, const struct tensor *y)
{
    int64_t side_by_side, sums = sums_apart(g, y, &side_by_side);
    return side_by_side >= 1024 ? sums * elements(y) : 0;
}

static void ref_sum_to(const struct step *s, const struct answer *a)
{
    const struct tensor *g = &s->in[0], *y = &s->out[0];
    const int whole = is_whole(g);
    int64_t side_by_side, sums = sums_apart(g, y, &side_by_side);
    const double terms = (double)((side_by_side < 256 ? side_by_side : 256) + sums);
    memset(a->want[0], 0, sizeof(double) * (size_t)elements(y));
    memset(a->slack[0], 0, sizeof(double) * (size_t)elements(y));
    for (int64_t i = 0; i < elements(g); i++) {
        const int64_t at = behind_element(g, y, i);
        a->want[0][at] += IN(0)[i];
        a->slack[0][at] += fabs(IN(0)[i]);
    }
    for (int64_t i = 0; i < elements(y); i++) a->slack[0][i] = sum_error(terms, a->slack[0][i], whole);
}

#endif
