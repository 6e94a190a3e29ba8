/* The private thread team of the engine: a few threads of our own that run one function side by side.
 *
 * It is entered once per Program run; steps are kept apart by barriers. It does not use OpenMP, because programs that
 * fork (joblib, multiprocessing, web servers) hang or crash with it. Here a forked child simply starts threads of its own.
 */
#ifndef FASTNN_TEAM_H
#define FASTNN_TEAM_H

#include <stddef.h>

#ifdef __cplusplus
extern "C" {
#endif

#define TEAM_MAX 256                      /* most threads a team can have */
#define TEAM_SCRATCH ((size_t)16 << 20)   /* bytes of scratch memory of each thread; only what is used takes memory */

struct team;

/* A thread's place in the team: 0 <= id < count. Lane 0 is the thread that called team_run. A lane that works by itself
 * for a while is {0, 1, team, scratch}. */
struct lane {
    int id, count;
    struct team *team;
    void *scratch; /* TEAM_SCRATCH bytes, 64-byte aligned, this thread's alone until the run ends; holds anything at first */
};

/* Threads to use when nobody says otherwise: FASTNN_NUM_THREADS, else OMP_NUM_THREADS (the first number of a list),
 * else the CPUs that this process may use. Values that are not positive integers are passed over. 1 .. TEAM_MAX.
 * This and team_cpus() are in cpus.c. */
int team_default_size(void);

/* CPUs that the scheduler may put this process on. 1 .. TEAM_MAX. */
int team_cpus(void);

/* Sets the number of threads for the runs that start from now on. 0, or -1 if n is not in 1 .. TEAM_MAX. */
int team_set_size(int n);

/* Threads of the next run: what was set, else team_default_size(). Always 1 on systems without threads. */
int team_size(void);

/* Runs body on lanes 0 .. count-1 and returns when all are done. It may run on fewer lanes than asked: on one when
 * another thread is using the team or when the system has no threads, on some when threads cannot be created.
 * lane->count tells the truth, so body must divide its work by it, and give the same bits whatever it is.
 * Inside, denormal numbers count as zero and rounding is to nearest; the caller's floating-point mode comes back after. */
void team_run(int count, void (*body)(const struct lane *, void *arg), void *arg);

/* Waits until every lane of this run is here. All lanes must call it equally often. */
void team_barrier(const struct lane *lane);

#ifdef __cplusplus
}
#endif
#endif
