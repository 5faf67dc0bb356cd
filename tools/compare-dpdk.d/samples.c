// samples.c: see samples.h.
#include "samples.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

int samples_init(struct samples *samples, size_t capacity) {
    memset(samples, 0, sizeof *samples);
    samples->capacity = capacity;
    samples->pending = calloc(capacity, sizeof(double));
    if (samples->pending == NULL) return -1;
    for (int class = 0; class < PLACEMENT_COUNT; class++) {
        samples->of[class] = calloc(capacity, sizeof(double));
        if (samples->of[class] == NULL) return -1;
    }
    return 0;
}

void samples_add(struct samples *samples, double figure) {
    if (samples->pending_count < samples->capacity)
        samples->pending[samples->pending_count++] = figure;
}

void samples_settle(struct samples *samples, enum placement before, enum placement after) {
    enum placement class = before == after ? before : PLACEMENT_UNKNOWN;
    size_t room = samples->capacity - samples->count[class];
    size_t taken = samples->pending_count < room ? samples->pending_count : room;
    memcpy(samples->of[class] + samples->count[class], samples->pending, taken * sizeof(double));
    samples->count[class] += taken;
    samples->pending_count = 0;
}

static int ascending(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

void samples_print(struct samples *samples) {
    static const struct {
        const char *name;
        double share;
    } marks[] = {{"min", 0}, {"p10", .1}, {"p50", .5}, {"p90", .9}, {"p99", .99}, {"max", 1}};
    for (int class = 0; class < PLACEMENT_COUNT; class++) {
        size_t count = samples->count[class];
        if (count == 0) continue;
        qsort(samples->of[class], count, sizeof(double), ascending);
        printf("class=%s n=%zu", placement_names[class], count);
        for (size_t i = 0; i < sizeof marks / sizeof *marks; i++) {
            size_t at = (size_t)(marks[i].share * (double)(count - 1));
            printf(" %s=%.3f", marks[i].name, samples->of[class][at]);
        }
        printf("\n");
    }
}
