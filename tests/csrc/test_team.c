/* Tests of the thread team. They include its source, to see inside and to make pthread_create fail. */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <pthread.h>

static int threads_allowed;

static int create_thread(pthread_t *thread, const pthread_attr_t *attributes, void *(*body)(void *), void *arg)
{
    return threads_allowed-- > 0 ? pthread_create(thread, attributes, body, arg) : 11 /* EAGAIN */;
}

#define pthread_create create_thread
#include "cpus.c"
#include "team.c"
#undef pthread_create

#include <fenv.h>
#include <sys/stat.h>
#include <sys/wait.h>

#define CHECK(condition)                                                                \
    do {                                                                                \
        if (!(condition)) {                                                             \
            fprintf(stderr, "%s:%d: failed: %s\n", __FILE__, __LINE__, #condition);     \
            exit(1);                                                                    \
        }                                                                               \
    } while (0)

enum { N = 1000, PHASES = 50, LANES = 4 };

/* ---------------------------------------------------------------------------------------------------- how many CPUs */

static void the_size_follows_the_environment(void)
{
    static const struct { const char *fastnn, *omp; int size; } cases[] = {
        {"3", "5", 3}, {NULL, "5", 5}, {NULL, "4,2,1", 4}, {"", "6", 6}, {"0", "6", 6}, {"-2", "6", 6}, {"many", "6", 6},
        {"3x", "6", 6}, {" 7 ", "6", 7}, {"100000", NULL, TEAM_MAX}, {"99999999999999999999", NULL, TEAM_MAX},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        unsetenv("FASTNN_NUM_THREADS");
        unsetenv("OMP_NUM_THREADS");
        if (cases[i].fastnn)
            setenv("FASTNN_NUM_THREADS", cases[i].fastnn, 1);
        if (cases[i].omp)
            setenv("OMP_NUM_THREADS", cases[i].omp, 1);
        CHECK(team_default_size() == cases[i].size);
    }
    unsetenv("FASTNN_NUM_THREADS");
    unsetenv("OMP_NUM_THREADS");
    CHECK(team_default_size() >= 1 && team_default_size() <= team_cpus());
    CHECK(team_size() == team_default_size());
}

#ifdef __linux__
static void the_size_follows_the_affinity(void)
{
    cpu_set_t all, one;
    CHECK(sched_getaffinity(0, sizeof all, &all) == 0);
    CPU_ZERO(&one);
    for (int cpu = 0; cpu < CPU_SETSIZE && CPU_COUNT(&one) == 0; cpu++)
        if (CPU_ISSET(cpu, &all))
            CPU_SET(cpu, &one);
    CHECK(team_cpus() == CPU_COUNT(&all));
    CHECK(sched_setaffinity(0, sizeof one, &one) == 0);
    CHECK(team_cpus() == 1 && team_default_size() == 1);
    CHECK(sched_setaffinity(0, sizeof all, &all) == 0);
}

static char root[] = "/tmp/fastnn-team-XXXXXX";

static const char *put(const char *name, const char *text)
{
    static char path[200];
    snprintf(path, sizeof path, "%s/%s", root, name);
    for (char *slash = path + sizeof root; (slash = strchr(slash, '/')); *slash++ = '/') {
        *slash = 0;
        mkdir(path, 0700);
    }
    FILE *file = fopen(path, "w");
    CHECK(file && fputs(text, file) >= 0 && fclose(file) == 0);
    return path;
}

static int quota_of(const char *list)
{
    char mount[100];
    snprintf(mount, sizeof mount, "%s/mount", root);
    return quota_cpus(put("list", list), mount);
}

static void the_size_follows_the_quota_of_the_container(void)
{
    CHECK(mkdtemp(root));
    put("mount/free/cpu.max", "max 100000\n");
    put("mount/half/cpu.max", "50000 100000\n");
    put("mount/some/cpu.max", "250000 100000\n");
    put("mount/some/inner/cpu.max", "max 100000\n");
    put("mount/some/tight/cpu.max", "100000 100000\n");
    put("mount/odd/cpu.max", "nonsense\n");
    put("mount/unified/hybrid/cpu.max", "400000 100000\n");
    put("mount/cpu/old/cpu.cfs_quota_us", "350000\n");
    put("mount/cpu/old/cpu.cfs_period_us", "100000\n");
    put("mount/cpu/open/cpu.cfs_quota_us", "-1\n");
    put("mount/cpu/open/cpu.cfs_period_us", "100000\n");
    CHECK(quota_of("0::/free\n") == INT_MAX);
    CHECK(quota_of("0::/nowhere\n") == INT_MAX);
    CHECK(quota_of("0::/odd\n") == INT_MAX);
    CHECK(quota_of("") == INT_MAX);
    CHECK(quota_of("rubbish\n") == INT_MAX);
    CHECK(quota_of("0::/half\n") == 1);
    CHECK(quota_of("0::/some\n") == 3);
    CHECK(quota_of("0::/some/inner\n") == 3);
    CHECK(quota_of("0::/some/tight\n") == 1);
    CHECK(quota_of("0::/hybrid\n") == 4);
    CHECK(quota_of("5:memory:/half\n4:cpu,cpuacct:/old\n0::/\n") == 4);
    CHECK(quota_of("4:cpu:/old\n") == 4);
    CHECK(quota_of("4:cpu:/open\n") == INT_MAX);
    char command[100];
    snprintf(command, sizeof command, "rm -r '%s'", root);
    CHECK(system(command) == 0);
}
#endif

/* ------------------------------------------------------------------------------------------------------------- runs */

struct task {
    int terms[N], lanes, visits[TEAM_MAX];
    long sums[TEAM_MAX];
};

static void add_slice(const struct lane *lane, void *arg)
{
    struct task *task = arg;
    int first = N * lane->id / lane->count, last = N * (lane->id + 1) / lane->count;
    task->visits[lane->id]++;
    task->sums[lane->id] = 0;
    for (int i = first; i < last; i++)
        task->sums[lane->id] += task->terms[i];
    if (lane->id == 0)
        task->lanes = lane->count;
}

/* Runs the sum on `count` lanes, checks it, and returns how many lanes took part. */
static int run_sum(int count, int seed)
{
    static _Thread_local struct task task;
    long expected = 0, sum = 0;
    memset(&task, 0, sizeof task);
    for (int i = 0; i < N; i++)
        expected += task.terms[i] = i * 7 + seed;
    team_run(count, add_slice, &task);
    for (int id = 0; id < TEAM_MAX; id++) {
        CHECK(task.visits[id] == (id < task.lanes));
        sum += task.sums[id];
    }
    CHECK(sum == expected);
    CHECK(task.lanes >= 1 && task.lanes <= count);
    return task.lanes;
}

static void it_runs_with_the_threads_it_can_get(void)     /* before any other run: there are no workers yet */
{
    threads_allowed = 0;
    CHECK(run_sum(4, 1) == 1);
    threads_allowed = 2;
    CHECK(run_sum(6, 2) == 3);
    CHECK(run_sum(2, 3) == 2);
    threads_allowed = 100;
    CHECK(run_sum(6, 4) == 6);
}

static void a_run_uses_as_many_lanes_as_asked(void)
{
    for (int count = 1; count <= 9; count++)
        CHECK(run_sum(count, count) == count);
    CHECK(run_sum(1, 0) == 1);
}

static void many_small_runs(int runs)
{
    for (int i = 0; i < runs; i++)
        CHECK(run_sum(i % 3 + 1, i) == i % 3 + 1);
}

static void the_size_can_change_between_runs(void)
{
    CHECK(team_set_size(0) == -1 && team_set_size(-1) == -1 && team_set_size(TEAM_MAX + 1) == -1);
    CHECK(team_set_size(TEAM_MAX) == 0 && team_size() == TEAM_MAX);
    static const int sizes[] = {2, 6, 1, 3, 12, 2};
    for (int i = 0; i < 6; i++) {
        CHECK(team_set_size(sizes[i]) == 0 && team_size() == sizes[i]);
        CHECK(run_sum(team_size(), i) == sizes[i]);
    }
}

static void runs_go_on_after_sleep(void)
{
    for (int i = 0; i < 20; i++) {
        usleep(2000);       /* long enough for the workers to sleep in the kernel */
        CHECK(run_sum(3, i) == 3);
    }
}

struct relay {
    int cells[PHASES][LANES], errors[LANES];
};

static void pass_round(const struct lane *lane, void *arg)
{
    struct relay *relay = arg;
    for (int phase = 0; phase < PHASES; phase++) {
        if (phase % 16 == lane->id)
            usleep(200);    /* let the others fall asleep at the barrier */
        relay->cells[phase][lane->id] = phase * LANES + lane->id;
        team_barrier(lane);
        for (int id = 0; id < lane->count; id++)
            relay->errors[lane->id] += relay->cells[phase][id] != phase * LANES + id;
    }
}

static void a_barrier_waits_for_every_lane(void)
{
    for (int count = 1; count <= LANES; count++) {
        static struct relay relay;
        memset(&relay, 0xff, sizeof relay.cells);
        memset(relay.errors, 0, sizeof relay.errors);
        team_run(count, pass_round, &relay);
        for (int id = 0; id < LANES; id++)
            CHECK(relay.errors[id] == 0);
    }
}

static void fill_scratch(const struct lane *lane, void *arg)
{
    int *errors = arg;
    unsigned char *scratch = lane->scratch;
    errors[lane->id] = (uintptr_t)scratch % 64 != 0;
    memset(scratch, lane->id + 1, TEAM_SCRATCH);
    team_barrier(lane);
    for (size_t i = 0; i < TEAM_SCRATCH; i += 61)
        errors[lane->id] += scratch[i] != lane->id + 1;
    errors[lane->id] += scratch[TEAM_SCRATCH - 1] != lane->id + 1;
}

static void every_lane_has_its_own_scratch_memory(void)
{
    for (int count = 1; count <= LANES; count += LANES - 1) {
        int errors[LANES] = {0};
        team_run(count, fill_scratch, errors);
        for (int id = 0; id < LANES; id++)
            CHECK(errors[id] == 0);
    }
}

#if defined(__x86_64__) || defined(__aarch64__)
static void round_to_zero(const struct lane *lane, void *arg)
{
    volatile float smallest = 1.17549435e-38f, denormal = 1e-40f, one = 1, tiny = 1e-20f, *out = arg;
    out[3 * lane->id] = smallest * 0.5f;
    out[3 * lane->id + 1] = denormal * 1e10f;
    out[3 * lane->id + 2] = one - tiny - one;       /* not zero if it rounds down */
}

static void denormals_are_zero_and_rounding_is_to_nearest_inside_a_run_only(void)
{
    volatile float smallest = 1.17549435e-38f, least = 1e-20f;
    for (int count = 1; count <= LANES; count++) {
        float out[3 * LANES];
        memset(out, 0x7f, sizeof out);
        CHECK(fesetround(FE_DOWNWARD) == 0);
        team_run(count, round_to_zero, out);
        CHECK(fegetround() == FE_DOWNWARD && 1 - least < 1);
        CHECK(fesetround(FE_TONEAREST) == 0);
        for (int i = 0; i < 3 * count; i++)
            CHECK(out[i] == 0);
        CHECK(smallest * 0.5f > 0);
    }
}
#endif

static void nest(const struct lane *lane, void *arg)
{
    (void)arg;
    memset(lane->scratch, lane->id, TEAM_SCRATCH);
    CHECK(run_sum(3, lane->id) == 1);
    team_barrier(lane);
    CHECK(*(unsigned char *)lane->scratch == lane->id);
}

static void a_run_within_a_run_is_done_by_its_caller_alone(void)
{
    team_run(3, nest, NULL);
}

static void *run_again_and_again(void *arg)
{
    for (int i = 0; i < *(int *)arg; i++)
        run_sum(i % 3 + 1, i);
    return NULL;
}

static void threads_that_call_at_once_do_not_disturb_each_other(int runs)
{
    pthread_t threads[5];
    for (int i = 0; i < 5; i++)
        CHECK(pthread_create(&threads[i], NULL, run_again_and_again, &runs) == 0);
    for (int i = 0; i < 5; i++)
        CHECK(pthread_join(threads[i], NULL) == 0);
    CHECK(run_sum(3, 0) == 3);
}

/* ----------------------------------------------------------------------------------------------- -------- forks */

static int is_child;

int __lsan_is_turned_off(void);     /* the leak checker asks; in a child it complains about threads that are not there */
int __lsan_is_turned_off(void)
{
    return is_child;
}

static void fork_and_run(int number)
{
    pid_t child = fork();
    CHECK(child >= 0);
    if (child == 0) {
        is_child = 1;
        alarm(60);
        if (number % 3)     /* every third one never uses the team */
            for (int i = 0; i < 5; i++)
                CHECK(run_sum(3, i) == 3);
        if (number % 2)
            exit(0);        /* joins the workers */
        _exit(0);
    }
    int status;
    CHECK(waitpid(child, &status, 0) == child);
    CHECK(WIFEXITED(status) && WEXITSTATUS(status) == 0);
}

static void a_forked_child_starts_workers_of_its_own(int forks)
{
    for (int i = 0; i < forks; i++) {
        CHECK(run_sum(3, i) == 3);
        fork_and_run(i);
    }
}

static atomic_int stop;

static void *run_until_stopped(void *arg)
{
    for (int i = 0; !atomic_load(&stop); i++)
        run_sum(i % 2 + 2, i);
    return arg;
}

static void a_fork_while_others_run_is_safe(int forks)
{
    pthread_t threads[2];
    for (int i = 0; i < 2; i++)
        CHECK(pthread_create(&threads[i], NULL, run_until_stopped, NULL) == 0);
    for (int i = 0; i < forks; i++)
        fork_and_run(i);
    atomic_store(&stop, 1);
    for (int i = 0; i < 2; i++)
        CHECK(pthread_join(threads[i], NULL) == 0);
    CHECK(run_sum(3, 0) == 3);
}

/* test_team [RUNS [nofork]]: fewer runs for slow checkers; no forks for those that lose track of threads in a child. */
int main(int argc, char **argv)
{
    int runs = argc > 1 ? atoi(argv[1]) : 10000, forks = argc < 3;
    alarm(300);             /* a hang is a failure */
    it_runs_with_the_threads_it_can_get();
    the_size_follows_the_environment();
#ifdef __linux__
    the_size_follows_the_affinity();
    the_size_follows_the_quota_of_the_container();
#endif
    a_run_uses_as_many_lanes_as_asked();
    many_small_runs(runs);
    the_size_can_change_between_runs();
    runs_go_on_after_sleep();
    a_barrier_waits_for_every_lane();
    every_lane_has_its_own_scratch_memory();
#if defined(__x86_64__) || defined(__aarch64__)
    denormals_are_zero_and_rounding_is_to_nearest_inside_a_run_only();
#endif
    a_run_within_a_run_is_done_by_its_caller_alone();
    threads_that_call_at_once_do_not_disturb_each_other(runs / 5);
    if (forks) {
        a_forked_child_starts_workers_of_its_own(30);
        a_fork_while_others_run_is_safe(runs / 500 + 1);
    }
    printf("test_team: passed\n");
    return 0;
}
