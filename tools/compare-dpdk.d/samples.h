// samples.h: figures kept by placement class, and one line of text for each class at the end.
#ifndef SAMPLES_H
#define SAMPLES_H

#include <stddef.h>

#include "placement.h"

// Figures wait in `pending` until it is known that the placement at the end of their segment was the
// one at its start; only then do they count for that class.
struct samples {
    double *pending, *of[PLACEMENT_COUNT];
    size_t pending_count, count[PLACEMENT_COUNT], capacity;
};

// Room for `capacity` figures in each class; what comes beyond is dropped. Returns 0, or -1 without memory.
int samples_init(struct samples *samples, size_t capacity);

void samples_add(struct samples *samples, double figure);

// Ends a segment: its figures belong to `before` if that is also the class `after` it, else to no class.
void samples_settle(struct samples *samples, enum placement before, enum placement after);

// One line per class that has figures: "class=near n=… min=… p10=… p50=… p90=… p99=… max=…".
void samples_print(struct samples *samples);

#endif
