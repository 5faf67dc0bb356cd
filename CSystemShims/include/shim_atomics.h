// Atomic access to memory shared with another party. The address is not a Swift object, so the
// language's own Atomic cannot be stored there; these compile to the single instruction meant.
#ifndef SHIM_ATOMICS_H
#define SHIM_ATOMICS_H

#include <stdint.h>

#define SHIM_INLINE static inline __attribute__((always_inline))

SHIM_INLINE uint16_t shim_load_relaxed_u16(const void *p) {
    return __atomic_load_n((const uint16_t *)p, __ATOMIC_RELAXED);
}
SHIM_INLINE uint16_t shim_load_acquire_u16(const void *p) {
    return __atomic_load_n((const uint16_t *)p, __ATOMIC_ACQUIRE);
}
SHIM_INLINE void shim_store_relaxed_u16(void *p, uint16_t v) {
    __atomic_store_n((uint16_t *)p, v, __ATOMIC_RELAXED);
}
SHIM_INLINE void shim_store_release_u16(void *p, uint16_t v) {
    __atomic_store_n((uint16_t *)p, v, __ATOMIC_RELEASE);
}
SHIM_INLINE uint32_t shim_load_relaxed_u32(const void *p) {
    return __atomic_load_n((const uint32_t *)p, __ATOMIC_RELAXED);
}
SHIM_INLINE uint32_t shim_load_acquire_u32(const void *p) {
    return __atomic_load_n((const uint32_t *)p, __ATOMIC_ACQUIRE);
}
SHIM_INLINE void shim_store_relaxed_u32(void *p, uint32_t v) {
    __atomic_store_n((uint32_t *)p, v, __ATOMIC_RELAXED);
}
SHIM_INLINE void shim_store_release_u32(void *p, uint32_t v) {
    __atomic_store_n((uint32_t *)p, v, __ATOMIC_RELEASE);
}
SHIM_INLINE uint64_t shim_load_relaxed_u64(const void *p) {
    return __atomic_load_n((const uint64_t *)p, __ATOMIC_RELAXED);
}
SHIM_INLINE uint64_t shim_load_acquire_u64(const void *p) {
    return __atomic_load_n((const uint64_t *)p, __ATOMIC_ACQUIRE);
}
SHIM_INLINE void shim_store_relaxed_u64(void *p, uint64_t v) {
    __atomic_store_n((uint64_t *)p, v, __ATOMIC_RELAXED);
}
SHIM_INLINE void shim_store_release_u64(void *p, uint64_t v) {
    __atomic_store_n((uint64_t *)p, v, __ATOMIC_RELEASE);
}
/// Unaligned, and still fetched once: behind the barrier the compiler knows nothing of where the
/// value came from, so it cannot fetch it again.
SHIM_INLINE uint64_t shim_load_unaligned_u64(const void *p) {
    uint64_t v;
    __builtin_memcpy(&v, p, sizeof v);
    __asm__("" : "+r"(v));
    return v;
}
SHIM_INLINE uint32_t shim_load_unaligned_u32(const void *p) {
    uint32_t v;
    __builtin_memcpy(&v, p, sizeof v);
    __asm__("" : "+r"(v));
    return v;
}
SHIM_INLINE uint8_t shim_fetch_or_u8(void *p, uint8_t v) {
    return __atomic_fetch_or((uint8_t *)p, v, __ATOMIC_RELAXED);
}
/// Orders an earlier store before a later load: the fence that notification suppression needs
/// (virtio 1.3 §2.7.10). A locked read-modify-write of the stack is ten times cheaper than mfence.
SHIM_INLINE void shim_fence(void) {
#if defined(__x86_64__)
    __asm__ __volatile__("lock; addl $0,-128(%%rsp)" ::: "memory", "cc");
#else
    __atomic_thread_fence(__ATOMIC_SEQ_CST);
#endif
}

#endif
