// Counts heap allocations of the calling thread. Linking this target puts malloc and its relatives
// of the whole test process behind a counter; they forward to the C library.
#ifndef CALLOCATIONCOUNTER_H
#define CALLOCATIONCOUNTER_H

#include <stdint.h>

/// Allocations that this thread made so far; 0 for ever under a sanitizer, which has its own malloc.
uint64_t allocation_count(void);
/// True when allocations are counted.
int allocation_is_counted(void);

#endif
