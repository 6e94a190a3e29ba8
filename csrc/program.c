#if !defined(_POSIX_C_SOURCE)
#define _POSIX_C_SOURCE 200809L
#endif
#include "program.h"
#include "dispatch.h"

#include <time.h>

/* A step is shared out among the threads if it has at least so many operations. */
static const double WORTH_SHARING = 5e5;

static double now(void)
{
    struct timespec t;
#if defined(_WIN32)
    timespec_get(&t, TIME_UTC);
#else
    clock_gettime(CLOCK_MONOTONIC, &t);
#endif
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static struct tensor *bound(const struct program *p, const struct binding *b)
{
    struct step *s = &p->steps[b->step];
    return b->array < s->outputs ? &s->out[b->array] : &s->in[b->array - s->outputs];
}

void program_bind(struct program *p, struct binding binding)
{
    struct binding *place = &p->bindings[p->n_bindings++];
    if (binding.stream) {
        *place = p->bindings[p->n_streams];
        place = &p->bindings[p->n_streams++];
    }
    *place = binding;
}

static void bind_fixed(struct program *p, void *const *bases)
{
    for (int32_t i = 0; i < p->n_bindings; i++) {
        const struct binding *b = &p->bindings[i];
        bound(p, b)->data = (char *)bases[b->buffer] + b->offset;
    }
}

/* Streams to batch k, and all batch axes to `size` rows if that has changed. */
static void bind_batch(struct program *p, void *const *bases, int64_t k, int64_t batch, int64_t size, int resize)
{
    for (int32_t i = 0; i < p->n_streams; i++) {
        const struct binding *b = &p->bindings[i];
        struct tensor *t = bound(p, b);
        t->data = (char *)bases[b->buffer] + b->offset + k * b->advance * (t->batch ? batch : 1);
    }
    if (!resize) return;
    for (int32_t i = 0; i < p->n_bindings; i++) {
        struct tensor *t = bound(p, &p->bindings[i]);
        if (t->batch) t->size[0] = size;
    }
}

static int64_t batch_rows(int64_t k, int64_t batch, int64_t rows)
{
    return rows - k * batch < batch ? rows - k * batch : batch;
}

struct run {
    struct program *program;
    void *const *bases;
    int64_t first, last, batch, rows;
    double deadline;
    int64_t next; /* the batch that comes next; written by lane 0 between barriers */
    int stop;
};

/* One thread does everything. */
static void run_alone(struct run *run, const struct lane *lane)
{
    struct program *p = run->program;
    const struct lane solo = {0, 1, lane->team, lane->scratch};
    bind_fixed(p, run->bases);
    int64_t k = run->first, size = -1;
    while (k < run->last) {
        const int64_t rows = batch_rows(k, run->batch, run->rows);
        bind_batch(p, run->bases, k, run->batch, rows, rows != size);
        size = rows;
        for (int32_t i = 0; i < p->n_steps; i++) p->steps[i].run(&p->steps[i], &solo);
        k++;
        if (run->deadline > 0 && now() > run->deadline) break;
    }
    run->next = k;
}

/* The steps from .. to-1, all lanes; each is done when the next begins, and the last at the return. */
static void share_steps(const struct program *p, const struct lane *lane, double share, int32_t from, int32_t to)
{
    const struct lane solo = {0, 1, lane->team, lane->scratch};
    int settled = 1; /* whether all that was done before can be read by all lanes */
    for (int32_t i = from; i < to; i++) {
        const struct step *s = &p->steps[i];
        if (s->work * share >= WORTH_SHARING) {
            if (!settled) team_barrier(lane);
            s->run(s, lane);
            team_barrier(lane);
            settled = 1;
        } else {
            if (lane->id == 0) s->run(s, &solo);
            settled = 0;
        }
    }
    if (!settled) team_barrier(lane);
}

/* All lanes come here. Between two barriers either lane 0 works alone or all lanes share one step. */
static void run_together(struct run *run, const struct lane *lane)
{
    struct program *p = run->program;
    if (lane->id == 0) bind_fixed(p, run->bases);
    int64_t size = -1;
    for (int64_t k = run->first; k < run->last; k++) {
        const int64_t rows = batch_rows(k, run->batch, run->rows);
        const double share = (double)rows / (double)p->batch;
        if (lane->id == 0) {
            run->stop = run->deadline > 0 && k > run->first && now() > run->deadline;
            if (!run->stop) {
                bind_batch(p, run->bases, k, run->batch, rows, rows != size);
                run->next = k + 1;
            }
        }
        team_barrier(lane);
        if (run->stop) return;
        size = rows;
        share_steps(p, lane, share, 0, p->n_steps);
    }
}

static void run_body(const struct lane *lane, void *arg)
{
    if (lane->count == 1) run_alone(arg, lane);
    else run_together(arg, lane);
}

int64_t program_run(struct program *p, void *const *bases, int64_t first, int64_t last, int64_t batch, int64_t rows,
                    double seconds)
{
    int shared = 0;
    for (int32_t i = 0; i < p->n_steps; i++)
        shared |= p->steps[i].work * (double)(rows < batch ? rows : batch) / (double)p->batch >= WORTH_SHARING;
    struct run run = {p, bases, first, last, batch, rows, seconds > 0 ? now() + seconds : 0, first, 0};
    team_run(shared ? team_size() : 1, run_body, &run);
    return run.next;
}

void program_begin(struct program *p, void *const *bases, int64_t k, int64_t batch, int64_t rows)
{
    bind_fixed(p, bases);
    bind_batch(p, bases, k, batch, batch_rows(k, batch, rows), 1);
}

struct stretch {
    struct program *program;
    double share;
    int32_t from, to;
};

static void stretch_body(const struct lane *lane, void *arg)
{
    const struct stretch *s = arg;
    share_steps(s->program, lane, s->share, s->from, s->to);
}

void program_steps(struct program *p, int64_t size, int32_t from, int32_t to)
{
    struct stretch stretch = {p, (double)size / (double)p->batch, from, to};
    int shared = 0;
    for (int32_t i = from; i < to; i++) shared |= p->steps[i].work * stretch.share >= WORTH_SHARING;
    team_run(shared ? team_size() : 1, stretch_body, &stretch);
}

struct apart {
    struct program *const *programs;
    void *const *const *bases;
    int64_t last, batch, rows;
};

static void apart_body(const struct lane *lane, void *arg)
{
    const struct apart *a = arg;
    struct program *p = a->programs[lane->id];
    void *const *bases = a->bases[lane->id];
    const struct lane solo = {0, 1, lane->team, lane->scratch};
    bind_fixed(p, bases);
    int64_t size = -1;
    for (int64_t k = lane->id; k < a->last; k += lane->count) {
        const int64_t rows = batch_rows(k, a->batch, a->rows);
        bind_batch(p, bases, k, a->batch, rows, rows != size);
        size = rows;
        for (int32_t i = 0; i < p->n_steps; i++) p->steps[i].run(&p->steps[i], &solo);
    }
}

void program_run_apart(struct program *const *programs, void *const *const *bases, int count, int64_t last,
                       int64_t batch, int64_t rows)
{
    struct apart apart = {programs, bases, last, batch, rows};
    team_run(count, apart_body, &apart);
}

struct timing {
    struct program *program;
    int64_t rows;
    int32_t from, to;
    double *seconds;
};

static void timing_body(const struct lane *lane, void *arg)
{
    const struct timing *t = arg;
    struct program *p = t->program;
    const struct lane solo = {0, 1, lane->team, lane->scratch};
    const double share = (double)t->rows / (double)p->batch;
    for (int32_t i = t->from; i < t->to; i++) {
        const struct step *s = &p->steps[i];
        const double start = now();
        if (s->work * share >= WORTH_SHARING) s->run(s, lane);
        else if (lane->id == 0) s->run(s, &solo);
        team_barrier(lane);
        if (lane->id == 0) t->seconds[i - t->from] = now() - start;
    }
}

void program_time(struct program *p, int64_t size, int32_t from, int32_t to, double *seconds)
{
    struct timing timing = {p, size, from, to, seconds};
    team_run(team_size(), timing_body, &timing);
}

struct race {
    double deadline, done[TEAM_MAX];
};

static void race_body(const struct lane *lane, void *arg)
{
    struct race *race = arg;
    double done = 0;
    do done += dispatch_table()->peak();
    while (now() < race->deadline);
    race->done[lane->id] = done;
}

double program_peak(double seconds)
{
    const double start = now();
    struct race race = {start + seconds, {0}};
    team_run(team_size(), race_body, &race);
    double done = 0;
    for (int i = 0; i < TEAM_MAX; i++) done += race.done[i];
    return done / (now() - start);
}
