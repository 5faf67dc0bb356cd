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
/// Spelled out for x86-64: without -mprfchw the builtin only asks for the line to be read.
SHIM_INLINE void shim_prefetch_write(void *p) {
#if defined(__x86_64__)
    __asm__ __volatile__("prefetchw %0" : : "m"(*(char *)p));
#else
    __builtin_prefetch(p, 1, 3);
#endif
}
/// Plain memcpy: Swift's own raw copy goes through memmove, half as fast for a frame.
SHIM_INLINE void shim_copy(void *target, const void *source, size_t count) {
    memcpy(target, source, count);
}

typedef unsigned char shim_wide __attribute__((vector_size(16)));

SHIM_INLINE shim_wide shim_wide_load(const unsigned char *p) {
    shim_wide v;
    __builtin_memcpy(&v, p, sizeof v);
    return v;
}
SHIM_INLINE void shim_wide_store(unsigned char *p, shim_wide v) {
    __builtin_memcpy(p, &v, sizeof v);
}
/// memcpy for packets: 16 to 128 bytes by loads and then stores that may overlap in the middle, so
/// that nothing outside either range is touched. Longer ones are better off with the C library,
/// which has the widest moves of the machine at hand.
SHIM_INLINE void shim_copy_packet(void *target, const void *source, size_t count) {
    unsigned char *to = (unsigned char *)target;
    const unsigned char *from = (const unsigned char *)source;
    if (count - 33 <= 64 - 33) {
        shim_wide a = shim_wide_load(from), b = shim_wide_load(from + 16);
        shim_wide c = shim_wide_load(from + count - 32), d = shim_wide_load(from + count - 16);
        shim_wide_store(to, a);
        shim_wide_store(to + 16, b);
        shim_wide_store(to + count - 32, c);
        shim_wide_store(to + count - 16, d);
    } else if (count - 65 <= 128 - 65) {
        shim_wide a = shim_wide_load(from), b = shim_wide_load(from + 16);
        shim_wide c = shim_wide_load(from + 32), d = shim_wide_load(from + 48);
        shim_wide e = shim_wide_load(from + count - 64), f = shim_wide_load(from + count - 48);
        shim_wide g = shim_wide_load(from + count - 32), h = shim_wide_load(from + count - 16);
        shim_wide_store(to, a);
        shim_wide_store(to + 16, b);
        shim_wide_store(to + 32, c);
        shim_wide_store(to + 48, d);
        shim_wide_store(to + count - 64, e);
        shim_wide_store(to + count - 48, f);
        shim_wide_store(to + count - 32, g);
        shim_wide_store(to + count - 16, h);
    } else if (count - 16 <= 32 - 16) {
        shim_wide a = shim_wide_load(from), b = shim_wide_load(from + count - 16);
        shim_wide_store(to, a);
        shim_wide_store(to + count - 16, b);
    } else {
        memcpy(target, source, count);
    }
}

#endif
