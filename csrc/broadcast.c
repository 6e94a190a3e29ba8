/* Rows repeated along axes of size 1, and summed along axes. The larger array is items of R lines of L floats: L is what lies
 * side by side behind the last of the axes that differ, R these axes together. Before them, K items lie side by side in both
 * arrays; before these are axes of both kinds. */

#include "stream.h"

enum axis_kind { KEPT = 1, REPEATED = 2 };

struct spread {
    int64_t r, l, k;
    int axes; /* before the items */
    enum axis_kind kind[MAX_RANK];
    int64_t size[MAX_RANK], small[MAX_RANK], large[MAX_RANK]; /* and floats from one to the next in each array */
};

/* Axes of one kind side by side count as one; the batch stays apart. */
static struct spread spread_of(const struct tensor *large, const struct tensor *small)
{
    struct spread s = {.r = 1, .l = 1, .k = 1};
    int n = 0;
    for (int a = 0; a < large->rank; a++) {
        const enum axis_kind kind = large->size[a] == small->size[a] ? KEPT : REPEATED;
        if (a && large->size[a] == 1) continue;
        if (n > 1 && s.kind[n - 1] == kind) {
            s.size[n - 1] *= large->size[a];
        } else {
            s.kind[n] = kind;
            s.size[n++] = large->size[a];
        }
    }
    if (n > 1 && s.kind[n - 1] == KEPT) s.l = s.size[--n];
    if (n > 1 && s.kind[n - 1] == REPEATED) s.r = s.size[--n];
    if (s.kind[n - 1] == KEPT) s.k = s.size[--n];
    s.axes = n;
    int64_t apart = s.k * s.l, far = apart * s.r;
    while (n-- > 0) {
        s.small[n] = s.kind[n] == KEPT ? apart : 0;
        s.large[n] = far;
        if (s.kind[n] == KEPT) apart *= s.size[n];
        far *= s.size[n];
    }
    return s;
}

/* How many places there are along the axes of these kinds before the items. */
static int64_t places_of(const struct spread *s, int kinds)
{
    int64_t n = 1;
    for (int a = 0; a < s->axes; a++) n *= s->kind[a] & kinds ? s->size[a] : 1;
    return n;
}

/* Where such a place is, in floats. */
static int64_t place_at(const struct spread *s, int kinds, int64_t number, const int64_t *stride)
{
    int64_t at = 0;
    for (int a = s->axes - 1; a >= 0; a--) {
        if (!(s->kind[a] & kinds)) continue;
        at += number % s->size[a] * stride[a];
        number /= s->size[a];
    }
    return at;
}

/* ---- repeated ---- */

/* to (count, l) = the line `from` (l) again and again. What a short one writes too much, up to `end`, is written after it. */
INLINE void repeat_line(float *to, const float *end, const float *from, const float *from_end, int64_t count, int64_t l,
                        int stream)
{
    if (l == 1) {
        const vf v = v_set(*from);
        int64_t i = 0;
        if (stream)
            for (; i < count; i += LINE_FLOATS) UNROLL for (int j = 0; j < LINE; j++) v_stream(to + i + j * VL, v);
        for (; i + VL <= count; i += VL) v_store(to + i, v);
        if (i < count && end - to - i >= VL) v_store(to + i, v);
        else for (; i < count; i++) to[i] = *from;
    } else if (l < VL) {
        const vf v = from_end - from >= VL ? v_load(from) : v_load_part(from, l);
        for (int64_t i = 0; i < count; i++, to += l) {
            if (end - to >= VL) v_store(to, v);
            else for (int64_t j = 0; j < l; j++) to[j] = from[j];
        }
    } else {
        for (int64_t i = 0; i < count; i++, to += l) copy_run(to, from, l, stream);
    }
}

/* A task is some items, or lines of a large one. */
static void kernel_broadcast(const struct step *step, const struct lane *lane)
{
    const struct tensor *x = &step->in[0], *y = &step->out[0];
    if (!elements(y)) return;
    const struct spread s = spread_of(y, x);
    const float *first = x->data, *from_end = first + elements(x);
    const int64_t floats = s.r * s.l, items = places_of(&s, KEPT | REPEATED) * s.k;
    const int64_t lines = floats <= COPY_FLOATS ? s.r : s.l < COPY_FLOATS ? COPY_FLOATS / s.l : 1;
    const int64_t pieces = (s.r + lines - 1) / lines, block = pieces > 1 ? 1 : COPY_FLOATS / floats + 1;
    const int stream = streams(y, s.l == 1 ? s.r : s.l);
    for (int64_t t = lane->id; t < (items + block - 1) / block * pieces; t += lane->count) {
        const int64_t item0 = t / pieces * block, item1 = items - item0 < block ? items : item0 + block;
        const int64_t line = t % pieces * lines, count = s.r - line < lines ? s.r - line : lines;
        int64_t outer = item0 / s.k, inner = item0 % s.k;
        float *to = (float *)y->data + (item0 * s.r + line) * s.l;
        const float *end = to + ((item1 - item0 - 1) * s.r + count) * s.l;
        const float *from = first + place_at(&s, KEPT | REPEATED, outer, s.small) + inner * s.l;
        for (int64_t item = item0; item < item1; item++, to += floats, from += s.l) {
            if (inner == s.k) {
                inner = 0;
                from = first + place_at(&s, KEPT | REPEATED, ++outer, s.small);
            }
            repeat_line(to, end, from, from_end, count, s.l, stream);
            inner++;
        }
    }
    if (stream) stream_end();
}

/* ---- summed ---- */

/* The sum of x (n). */
INLINE float sum_run(const float *x, int64_t n)
{
    vf sum[4];
    int64_t i = 0;
    if (n < VL) {
        float total = x[0];
        for (i = 1; i < n; i++) total += x[i];
        return total;
    }
    UNROLL for (int c = 0; c < 4; c++) sum[c] = v_zero();
    for (; i + 4 * VL <= n; i += 4 * VL) UNROLL for (int c = 0; c < 4; c++) sum[c] = sum[c] + v_load(x + i + c * VL);
    for (; i < n; i += VL) sum[0] = sum[0] + v_load_n(x + i, n - i);
    return v_sum((sum[0] + sum[1]) + (sum[2] + sum[3]));
}

/* to (l) = [to +] the sum of `lines` lines of g */
INLINE void sum_lines_to(float *to, const float *g, int64_t lines, int64_t l, int add)
{
    if (l > 1) sum_part(to, g, lines, l, l, add);
    else *to = add ? *to + sum_run(g, lines) : sum_run(g, lines);
}

/* to (l) = the sum of an item's lines and of those of the items at other places along repeated axes: SUM_ROWS lines are added
 * up before their sum is added to that of the others. */
INLINE void sum_item(float *to, const float *g, const struct spread *s, int64_t places)
{
    for (int64_t place = 0; place < places; place++) {
        const float *from = g + place_at(s, REPEATED, place, s->large);
        for (int64_t line = 0; line < s->r; line += SUM_ROWS)
            sum_lines_to(to, from + line * s->l, s->r - line < SUM_ROWS ? s->r - line : SUM_ROWS, s->l, place || line);
    }
}

/* The same for many lines, all items: the sums of SUM_ROWS lines are shared out and wait in the workspace until all are there. */
static void sum_apart(const struct step *step, const struct spread *s, int64_t items, const struct lane *lane)
{
    const int64_t l = s->l, parts = (s->r + SUM_ROWS - 1) / SUM_ROWS, places = places_of(s, REPEATED), sums = places * parts;
    const float *g = step->in[0].data;
    float *y = step->out[0].data, *kept = step->workspace;
    for (int64_t t = lane->id; t < items * sums; t += lane->count) {
        const int64_t item = t / sums, line = t % parts * SUM_ROWS;
        const int64_t at = place_at(s, KEPT, item / s->k, s->large) + (item % s->k * s->r + line) * l;
        const float *from = g + at + place_at(s, REPEATED, t / parts % places, s->large);
        sum_lines_to(kept + t * l, from, s->r - line < SUM_ROWS ? s->r - line : SUM_ROWS, l, 0);
    }
    team_barrier(lane);
    for (int64_t item = lane->id; item < items; item += lane->count) {
        copy_row(y + item * l, kept + item * sums * l, l);
        for (int64_t i = 1; i < sums; i++) EACH_2(y + item * l, y + item * l, kept + (item * sums + i) * l, l, g + x);
    }
}

/* y (items, l) = sums over R, and over the repeated axes before the items */
static void kernel_sum_to(const struct step *step, const struct lane *lane)
{
    const struct tensor *g = &step->in[0], *y = &step->out[0];
    if (!elements(y)) return;
    const struct spread s = spread_of(g, y);
    const int64_t floats = s.r * s.l, items = places_of(&s, KEPT) * s.k, places = places_of(&s, REPEATED);
    const int64_t block = COPY_FLOATS / (places * floats + 1) + 1;
    if (s.r >= 4 * SUM_ROWS) {
        sum_apart(step, &s, items, lane);
        return;
    }
    for (int64_t item0 = lane->id * block; item0 < items; item0 += lane->count * block) {
        int64_t outer = item0 / s.k, inner = item0 % s.k;
        const float *from = (const float *)g->data + place_at(&s, KEPT, outer, s.large) + inner * floats;
        for (int64_t item = item0; item < items && item < item0 + block; item++, inner++, from += floats) {
            if (inner == s.k) {
                inner = 0;
                from = (const float *)g->data + place_at(&s, KEPT, ++outer, s.large);
            }
            if (s.l == 1 && s.r <= SUM_ROWS && places == 1) ((float *)y->data)[item] = sum_run(from, s.r);
            else sum_item((float *)y->data + item * s.l, from, &s, places);
        }
    }
}
