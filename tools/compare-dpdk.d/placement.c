// placement.c: the thread that sends a cache line back, and the probe that times it. See placement.h.
#define _GNU_SOURCE
#include "placement.h"

#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <unistd.h>
#include <x86intrin.h>

const char *const placement_names[PLACEMENT_COUNT] = {"sib", "near", "far", "unknown"};

enum { ROUNDS = 160, PROBE_LIMIT_US = 4000, IDLE_LIMIT = 4000000 };
#define HANG_UP UINT64_MAX

// Two lines, one per direction; 128 bytes apart, because the prefetcher fetches lines in pairs.
struct line {
    _Alignas(128) _Atomic uint64_t ball;
};
static struct line there, back;
static pthread_t thread;
static int doorbell = -1;
static int other_cpu;
static double ticks_per_ns;

// The balls of one probe are consecutive numbers. Zero hangs up until the doorbell rings again.
static void *return_balls(void *unused) {
    (void)unused;
    cpu_set_t set;
    CPU_ZERO(&set);
    CPU_SET(other_cpu, &set);
    if (pthread_setaffinity_np(pthread_self(), sizeof set, &set) != 0) return NULL;
    for (;;) {
        uint64_t rings, last = 0, ball;
        if (read(doorbell, &rings, sizeof rings) != (ssize_t)sizeof rings) return NULL;
        uint32_t idle = 0; // a count, not a clock: reading that would lengthen every return
        while ((ball = atomic_load_explicit(&there.ball, memory_order_acquire)) != 0) {
            if (ball == HANG_UP) return NULL;
            if (ball != last) {
                atomic_store_explicit(&back.ball, ball, memory_order_release);
                last = ball;
                idle = 0;
            } else if (++idle == IDLE_LIMIT) {
                break;
            }
        }
    }
}

int placement_start(int cpu, double ticks_per_second) {
    other_cpu = cpu;
    ticks_per_ns = ticks_per_second / 1e9;
    doorbell = eventfd(0, 0);
    if (doorbell < 0) return -1;
    int error = pthread_create(&thread, NULL, return_balls, NULL);
    if (error == 0) return 0;
    close(doorbell);
    doorbell = -1;
    errno = error;
    return -1;
}

static int ascending(const void *a, const void *b) {
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
    return (x > y) - (x < y);
}

// Throws `ball` and waits for it; false when `end` passes first.
static bool throw_ball(uint64_t ball, uint64_t end) {
    atomic_store_explicit(&there.ball, ball, memory_order_release);
    while (atomic_load_explicit(&back.ball, memory_order_acquire) != ball)
        if (__rdtsc() > end) return false;
    return true;
}

enum placement placement_probe(void) {
    static uint64_t ball;
    uint64_t ticks[ROUNDS], one = 1;
    uint64_t end = __rdtsc() + (uint64_t)(PROBE_LIMIT_US * 1000.0 * ticks_per_ns);
    int rounds = 0;
    atomic_store_explicit(&there.ball, ++ball, memory_order_release);
    if (write(doorbell, &one, sizeof one) != (ssize_t)sizeof one) return PLACEMENT_UNKNOWN;
    if (throw_ball(++ball, end)) {
        while (rounds < ROUNDS) {
            uint64_t begin = __rdtsc();
            if (!throw_ball(++ball, end)) break;
            ticks[rounds++] = __rdtsc() - begin;
        }
    }
    atomic_store_explicit(&there.ball, 0, memory_order_release);
    if (rounds < ROUNDS) return PLACEMENT_UNKNOWN;
    // The lower third: what the line takes when neither side was interrupted.
    qsort(ticks, ROUNDS, sizeof *ticks, ascending);
    double ns = (double)ticks[ROUNDS / 3] / ticks_per_ns;
    return ns < 85 ? PLACEMENT_SIBLING : ns < 375 ? PLACEMENT_NEAR : PLACEMENT_FAR;
}

void placement_stop(void) {
    uint64_t one = 1;
    if (doorbell < 0) return;
    atomic_store_explicit(&there.ball, HANG_UP, memory_order_release);
    if (write(doorbell, &one, sizeof one) == (ssize_t)sizeof one) pthread_join(thread, NULL);
    close(doorbell);
    doorbell = -1;
}
