/* How many threads to use: see team.h. What the user says, else what the scheduler and the container allow. */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE     /* sched_getaffinity */
#endif
#include "team.h"

#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#if defined(__unix__) || defined(__APPLE__)
#include <unistd.h>
#endif
#ifdef __linux__
#include <sched.h>
#endif

/* The positive integer at the start of the text (of a comma-separated list), at most TEAM_MAX; 0 if there is none. */
static int parse_count(const char *text)
{
    char *end;
    if (!text)
        return 0;
    long n = strtol(text, &end, 10);
    while (*end == ' ' || *end == '\t')
        end++;
    if (end == text || (*end && *end != ',') || n < 1)
        return 0;
    return n < TEAM_MAX ? (int)n : TEAM_MAX;
}

#ifdef __linux__
static int read_line(const char *path, char *line, int size)
{
    FILE *file = fopen(path, "re");
    if (!file)
        return 0;
    int found = fgets(line, size, file) != NULL;
    fclose(file);
    return found;
}

/* CPUs that the group in this directory may use, rounded up; INT_MAX if it has no limit. Version 2, then version 1. */
static int group_cpus(const char *directory)
{
    char path[PATH_MAX + 32], line[64];
    long long quota = -1, period = 0;
    snprintf(path, sizeof path, "%s/cpu.max", directory);
    if (read_line(path, line, sizeof line)) {
        if (sscanf(line, "%lld %lld", &quota, &period) != 2)    /* "max 100000" */
            return INT_MAX;
    } else {
        snprintf(path, sizeof path, "%s/cpu.cfs_quota_us", directory);
        if (!read_line(path, line, sizeof line) || sscanf(line, "%lld", &quota) != 1)
            return INT_MAX;
        snprintf(path, sizeof path, "%s/cpu.cfs_period_us", directory);
        if (!read_line(path, line, sizeof line) || sscanf(line, "%lld", &period) != 1)
            return INT_MAX;
    }
    if (quota <= 0 || period <= 0 || quota / period >= TEAM_MAX)
        return INT_MAX;
    return (int)((quota + period - 1) / period);
}

/* The tightest limit of the group `path` and of the groups around it, up to the mount itself. */
static int groups_cpus(const char *mount, const char *path)
{
    char directory[PATH_MAX];
    size_t root = strlen(mount);
    int length = snprintf(directory, sizeof directory, "%s%s", mount, path), least = INT_MAX;
    if (length < 0 || (size_t)length >= sizeof directory)
        return INT_MAX;
    for (;;) {
        int cpus = group_cpus(directory);
        least = cpus < least ? cpus : least;
        char *slash = strrchr(directory + root, '/');
        if (!slash)
            return least;
        *slash = 0;
    }
}

/* CPUs by the quotas of the control groups (containers). `list` is /proc/self/cgroup, `mount` is /sys/fs/cgroup. */
static int quota_cpus(const char *list, const char *mount)
{
    char line[PATH_MAX], where[PATH_MAX];
    int least = INT_MAX;
    FILE *file = fopen(list, "re");
    if (!file)
        return INT_MAX;
    while (fgets(line, sizeof line, file)) {        /* "0::/path" (version 2) or "4:cpu,cpuacct:/path" (version 1) */
        char *controllers = strchr(line, ':'), *path = controllers ? strchr(controllers + 1, ':') : NULL;
        if (!path)
            continue;
        *path++ = 0;
        controllers++;
        path[strcspn(path, "\n")] = 0;
        int version1 = strcmp(controllers, "cpu") == 0 || strstr(controllers, "cpu,") || strstr(controllers, ",cpu");
        if (*controllers && !version1)
            continue;
        const char *hierarchies[] = {*controllers ? "/cpu" : "", *controllers ? "/cpu,cpuacct" : "/unified"};
        for (int i = 0; i < 2; i++) {
            snprintf(where, sizeof where, "%s%s", mount, hierarchies[i]);
            int cpus = groups_cpus(where, path);
            least = cpus < least ? cpus : least;
        }
    }
    fclose(file);
    return least;
}
#endif

int team_cpus(void)
{
    long n = 1;
#if defined(__linux__)
    cpu_set_t set[8];       /* room for 8192 CPUs */
    if (sched_getaffinity(0, sizeof set, set) == 0)
        n = CPU_COUNT_S(sizeof set, set);
#elif defined(_SC_NPROCESSORS_ONLN)
    n = sysconf(_SC_NPROCESSORS_ONLN);
#endif
    return n < 1 ? 1 : n < TEAM_MAX ? (int)n : TEAM_MAX;
}

int team_default_size(void)
{
    int n = parse_count(getenv("FASTNN_NUM_THREADS"));
    if (!n)
        n = parse_count(getenv("OMP_NUM_THREADS"));
    if (!n) {
        n = team_cpus();
#ifdef __linux__
        int quota = quota_cpus("/proc/self/cgroup", "/sys/fs/cgroup");
        n = quota < n ? quota : n;
#endif
    }
    return n;
}
