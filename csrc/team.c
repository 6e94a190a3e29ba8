/* The thread team: see team.h.
 *
 * One team has threads, `crew`; all others in the list behind it have only their caller, and serve those who find the
 * crew taken. A team is taken by setting its `busy` flag and nothing else is ever locked, so that a fork at any moment
 * leaves nothing to repair but flags. Waiting is on a counter: spin for a moment, then sleep in the kernel.
 */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE     /* sched_getaffinity, syscall */
#endif
#include "team.h"

#include <limits.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#if defined(__EMSCRIPTEN__) && !defined(__EMSCRIPTEN_PTHREADS__)
#define TEAM_THREADS 0
#elif defined(__unix__) || defined(__APPLE__)
#define TEAM_THREADS 1
#else
#define TEAM_THREADS 0
#endif

#if TEAM_THREADS
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <time.h>
#include <unistd.h>
#endif
#if defined(__linux__)
#include <sys/mman.h>
#endif
#if defined(__linux__) && !defined(TEAM_NO_FUTEX)
#include <linux/futex.h>
#include <sys/syscall.h>
#define TEAM_FUTEX 1
#else
#define TEAM_FUTEX 0
#endif
#if defined(__x86_64__) || defined(_M_X64)
#include <xmmintrin.h>
#endif

#define LINE 64             /* bytes of a cache line */
#define SPIN_NS 20000       /* how long to spin before sleeping: about what it costs to sleep and wake */
#define STACK_BYTES ((size_t)4 << 20)

/* ------------------------------------------------------------------------------------------ floating-point mode */

/* Sets the mode that every lane computes in (round to nearest, no traps, denormals are zero); returns the old one. */
static uint64_t mode_enter(void)
{
#if defined(__x86_64__) || defined(_M_X64)
    uint64_t old = _mm_getcsr();
    _mm_setcsr(0x1f80u | 0x8000u | 0x0040u);    /* all exceptions masked, FTZ, DAZ */
    return old;
#elif defined(__aarch64__)
    uint64_t old, mode = (uint64_t)1 << 24;     /* FZ */
    __asm__ volatile("mrs %0, fpcr" : "=r"(old));
    __asm__ volatile("msr fpcr, %0" : : "r"(mode) : "memory");
    return old;
#else
    return 0;
#endif
}

static void mode_leave(uint64_t old)
{
#if defined(__x86_64__) || defined(_M_X64)
    _mm_setcsr((unsigned)old);
#elif defined(__aarch64__)
    __asm__ volatile("msr fpcr, %0" : : "r"(old) : "memory");
#else
    (void)old;
#endif
}

/* ------------------------------------------------------------------------------------------------------- its size */

static atomic_int wanted_size;      /* 0: not asked for yet */

int team_set_size(int n)
{
    if (n < 1 || n > TEAM_MAX)
        return -1;
    atomic_store(&wanted_size, n);
    return 0;
}

int team_size(void)
{
    int n = atomic_load(&wanted_size), unset = 0;
    if (n == 0) {
        n = team_default_size();
        if (!atomic_compare_exchange_strong(&wanted_size, &unset, n))
            n = unset;      /* somebody set it meanwhile */
    }
    return TEAM_THREADS ? n : 1;
}

/* ---------------------------------------------------------------------------------------------------------- waiting */

/* A counter that threads wait on. */
struct event {
    _Alignas(LINE) atomic_uint value;
    atomic_uint sleepers;
#if TEAM_THREADS && !TEAM_FUTEX
    pthread_mutex_t mutex;
    pthread_cond_t cond;
#endif
};

static void event_reset(struct event *event)
{
    atomic_store(&event->value, 0);
    atomic_store(&event->sleepers, 0);
#if TEAM_THREADS && !TEAM_FUTEX
    pthread_mutex_init(&event->mutex, NULL);
    pthread_cond_init(&event->cond, NULL);
#endif
}

#if TEAM_THREADS
static inline void relax(void)
{
#if defined(__x86_64__) || defined(__i386__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    __asm__ volatile("yield");
#endif
}

static int64_t now_ns(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
}

/* Counts up and wakes whoever sleeps. Whoever then sees the new value sees all that was written before. */
static void event_post(struct event *event)
{
    /* The order matters, and is sequential: we count up, then look for sleepers; they sign in, then look at the count. */
    atomic_fetch_add(&event->value, 1);
    if (atomic_load(&event->sleepers) == 0)
        return;
#if TEAM_FUTEX
    syscall(SYS_futex, &event->value, FUTEX_WAKE_PRIVATE, INT_MAX, NULL, NULL, 0);
#else
    pthread_mutex_lock(&event->mutex);
    pthread_cond_broadcast(&event->cond);
    pthread_mutex_unlock(&event->mutex);
#endif
}

/* Waits until the counter is no longer `seen`. */
static void event_wait(struct event *event, unsigned seen, int spin)
{
    if (spin) {
        int64_t start = 0;
        for (int turn = 1;; turn++) {
            if (atomic_load_explicit(&event->value, memory_order_acquire) != seen)
                return;
            relax();
            if (turn % 64 == 0) {
                int64_t now = now_ns();
                if (!start)
                    start = now;
                else if (now - start > SPIN_NS)
                    break;
                sched_yield();      /* on a busy machine the one we wait for may be queued behind us */
            }
        }
    }
    atomic_fetch_add(&event->sleepers, 1);
#if TEAM_FUTEX
    while (atomic_load(&event->value) == seen)
        syscall(SYS_futex, &event->value, FUTEX_WAIT_PRIVATE, seen, NULL, NULL, 0);
#else
    pthread_mutex_lock(&event->mutex);
    while (atomic_load(&event->value) == seen)
        pthread_cond_wait(&event->cond, &event->mutex);
    pthread_mutex_unlock(&event->mutex);
#endif
    atomic_fetch_sub(&event->sleepers, 1);
}
#endif

/* --------------------------------------------------------------------------------------------------------- the team */

struct worker {
    struct event go;            /* counts the runs that this worker is called to */
#if TEAM_THREADS
    pthread_t thread;
#endif
    int id;
};

struct team {
    _Alignas(LINE) atomic_flag busy;
    struct team *_Atomic next;
    void (*body)(const struct lane *, void *arg);
    void *arg;
    int count;
    int started;                /* workers that exist: 1 .. started */
    int stopping;
    struct worker *workers;     /* [TEAM_MAX], the first is not used; NULL in a team of one */
    void *scratch[TEAM_MAX];
    _Alignas(LINE) atomic_int running, arrived;
    atomic_int spin;
    struct event done, phase;
};

/* Kernels walk through their scratch memory in long strides: in huge pages, their addresses are found at once. */
enum { HUGE_PAGE = 2 << 20 };
static void want_huge_pages(void *scratch)
{
#if defined(MADV_HUGEPAGE)
    madvise(scratch, TEAM_SCRATCH, MADV_HUGEPAGE); /* a wish */
#else
    (void)scratch;
#endif
}

static _Alignas(HUGE_PAGE) char crew_scratch[TEAM_SCRATCH], spare_scratch[TEAM_SCRATCH];
static struct worker crew_workers[TEAM_MAX];
static struct team spare = {.busy = ATOMIC_FLAG_INIT, .scratch = {spare_scratch}};
static struct team crew = {.busy = ATOMIC_FLAG_INIT, .next = &spare, .workers = crew_workers, .scratch = {crew_scratch}};

#if TEAM_THREADS
static void *work(void *arg)
{
    struct worker *self = arg;
    mode_enter();
    for (unsigned seen = 0;; seen++) {
        event_wait(&self->go, seen, atomic_load_explicit(&crew.spin, memory_order_relaxed));
        if (crew.stopping)
            return NULL;
        const struct lane lane = {self->id, crew.count, &crew, crew.scratch[self->id]};
        crew.body(&lane, crew.arg);
        if (atomic_fetch_sub(&crew.running, 1) == 1)
            event_post(&crew.done);
    }
}

static int start_worker(int id)
{
    struct worker *worker = &crew.workers[id];
    pthread_attr_t attributes;
    sigset_t all, old;
    if (!crew.scratch[id] && posix_memalign(&crew.scratch[id], HUGE_PAGE, TEAM_SCRATCH)) {
        crew.scratch[id] = NULL;
        return -1;
    }
    want_huge_pages(crew.scratch[id]);
    if (pthread_attr_init(&attributes))
        return -1;
    pthread_attr_setstacksize(&attributes, STACK_BYTES);
    event_reset(&worker->go);
    worker->id = id;
    sigfillset(&all);           /* signals are for the program's own threads; only a fault of ours is ours */
    sigdelset(&all, SIGSEGV);
    sigdelset(&all, SIGBUS);
    sigdelset(&all, SIGFPE);
    sigdelset(&all, SIGILL);
    pthread_sigmask(SIG_SETMASK, &all, &old);
    int failed = pthread_create(&worker->thread, &attributes, work, worker);
    pthread_sigmask(SIG_SETMASK, &old, NULL);
    pthread_attr_destroy(&attributes);
    return failed ? -1 : 0;
}

/* In a forked child only the forking thread lives: whatever the others held is free, and there are no workers.
 * Their scratch memory stays for those that will be started. */
static void forget_threads(void)
{
    crew.started = crew.stopping = 0;
    atomic_store(&crew.arrived, 0);
    event_reset(&crew.done);
    event_reset(&crew.phase);
    for (struct team *team = &crew; team; team = atomic_load(&team->next))
        atomic_flag_clear(&team->busy);
}

__attribute__((constructor)) static void team_load(void)
{
    forget_threads();
    pthread_atfork(NULL, NULL, forget_threads);
}

/* At exit or when the library is unloaded. If the crew is at work, the end of the process ends it. */
__attribute__((destructor)) static void team_unload(void)
{
    if (atomic_flag_test_and_set(&crew.busy))
        return;
    crew.stopping = 1;
    for (int id = 1; id <= crew.started; id++)
        event_post(&crew.workers[id].go);
    for (int id = 1; id <= crew.started; id++)
        pthread_join(crew.workers[id].thread, NULL);
    for (int id = 1; id < TEAM_MAX; id++) {
        free(crew.scratch[id]);
        crew.scratch[id] = NULL;
    }
    crew.started = crew.stopping = 0;
    atomic_flag_clear(&crew.busy);
}
#endif

/* A team without workers, with its scratch memory behind it; taken. NULL if there is no memory. */
static struct team *make_team(void)
{
    char *block = malloc(LINE + sizeof(struct team) + TEAM_SCRATCH);
    if (!block)
        return NULL;
    struct team *team = (struct team *)(block + LINE - (uintptr_t)block % LINE);
    memset(team, 0, sizeof *team);
    atomic_flag_test_and_set(&team->busy);
    team->scratch[0] = team + 1;
    return team;
}

/* A team that nobody uses: the crew if it is wanted and free, else one without workers. Those are made as callers turn
 * up at the same time, and stay. Without memory for one more, waits for another to come back. */
static struct team *take_team(int count)
{
    if (count > 1 && !atomic_flag_test_and_set(&crew.busy))
        return &crew;
    for (;;) {
        struct team *last = NULL;
        for (struct team *team = &spare; team; team = atomic_load(&team->next)) {
            if (!atomic_flag_test_and_set(&team->busy))
                return team;
            last = team;
        }
        struct team *made = make_team();
        for (struct team *end = NULL; made; last = end, end = NULL)
            if (atomic_compare_exchange_strong(&last->next, &end, made))
                return made;
#if TEAM_THREADS
        sched_yield();
#endif
    }
}

void team_run(int count, void (*body)(const struct lane *, void *arg), void *arg)
{
    static atomic_flag asked = ATOMIC_FLAG_INIT;
    if (!atomic_flag_test_and_set_explicit(&asked, memory_order_relaxed)) want_huge_pages(crew_scratch);
    struct team *team = take_team(count);
    uint64_t mode = mode_enter();
    count = count > TEAM_MAX ? TEAM_MAX : count;
#if TEAM_THREADS
    if (team == &crew) {
        while (crew.started < count - 1 && start_worker(crew.started + 1) == 0)
            crew.started++;
        count = crew.started < count - 1 ? crew.started + 1 : count;
        crew.body = body;
        crew.arg = arg;
        crew.count = count;
        atomic_store_explicit(&crew.running, count, memory_order_relaxed);
        atomic_store_explicit(&crew.spin, count <= team_cpus(), memory_order_relaxed);
        unsigned seen = atomic_load(&crew.done.value);
        for (int id = 1; id < count; id++)
            event_post(&crew.workers[id].go);
        const struct lane lane = {0, count, &crew, crew.scratch[0]};
        body(&lane, arg);
        if (atomic_fetch_sub(&crew.running, 1) != 1)
            event_wait(&crew.done, seen, atomic_load_explicit(&crew.spin, memory_order_relaxed));
    } else
#endif
    {
        const struct lane lane = {0, 1, team, team->scratch[0]};
        body(&lane, arg);
    }
    mode_leave(mode);
    atomic_flag_clear(&team->busy);
}

void team_barrier(const struct lane *lane)
{
#if TEAM_THREADS
    struct team *team = lane->team;
    if (lane->count == 1)
        return;
    unsigned seen = atomic_load(&team->phase.value);
    if (atomic_fetch_add(&team->arrived, 1) == lane->count - 1) {
        atomic_store_explicit(&team->arrived, 0, memory_order_relaxed);
        event_post(&team->phase);
    } else
        event_wait(&team->phase, seen, atomic_load_explicit(&team->spin, memory_order_relaxed));
#else
    (void)lane;
#endif
}
