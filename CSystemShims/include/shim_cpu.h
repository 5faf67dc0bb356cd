// Instructions without a Swift spelling.
#ifndef SHIM_CPU_H
#define SHIM_CPU_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include "shim_atomics.h"

/// Tells the core that this is a spin loop, so that a sibling hyper-thread gets its share.
SHIM_INLINE void shim_pause(void) {
#if defined(__x86_64__)
    __builtin_ia32_pause();
#else
    __asm__ __volatile__("yield" ::: "memory");
#endif
}
/// Time-stamp counter: constant rate on every CPU this project supports.
SHIM_INLINE uint64_t shim_cycles(void) {
#if defined(__x86_64__)
    return __builtin_ia32_rdtsc();
#else
    uint64_t v;
    __asm__ __volatile__("mrs %0, cntvct_el0" : "=r"(v));
    return v;
#endif
}
SHIM_INLINE void shim_prefetch(const void *p) { __builtin_prefetch(p, 0, 3); }
SHIM_INLINE void shim_prefetch_write(void *p) { __builtin_prefetch(p, 1, 3); }
/// Plain memcpy: Swift's own raw copy goes through memmove, half as fast for a frame.
SHIM_INLINE void shim_copy(void *target, const void *source, size_t count) {
    memcpy(target, source, count);
}

#endif
