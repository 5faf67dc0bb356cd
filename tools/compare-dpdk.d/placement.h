// placement.h: how far apart are this thread's CPU and another one just now?
//
// On a rented machine the hypervisor moves virtual CPUs between hyper-threads of one core, cores of one
// cache and cores of different caches, every few seconds, and packet rates change by a factor of two or
// three with it. Nothing in /sys tells. The time a cache line takes to the other CPU and back does.
#ifndef PLACEMENT_H
#define PLACEMENT_H

#include <stdint.h>

enum placement {
    PLACEMENT_SIBLING, // two threads of one core: below 85 ns there and back
    PLACEMENT_NEAR,    // two cores of one chip or one cache: below 375 ns
    PLACEMENT_FAR,     // anything beyond
    PLACEMENT_UNKNOWN, // the other CPU did not answer in time
    PLACEMENT_COUNT
};

extern const char *const placement_names[PLACEMENT_COUNT];

// Starts a thread on `cpu` that sleeps until a probe wakes it. `ticks_per_second` is the TSC's rate.
// Returns 0, or -1 with errno set.
int placement_start(int cpu, double ticks_per_second);

// One probe: at most 4 ms, as a rule 50 us. The thread on the other CPU takes the time from whatever
// polls there, so whoever measures must not count the interval in which a probe fell.
enum placement placement_probe(void);

// Ends the thread and waits for it.
void placement_stop(void);

#endif
