#include "CRingBaseline.h"

#include <string.h>

#define HEADER 12
#define LONGEST (65535 + 18)

static inline uint16_t load16(const void *p) {
    return __atomic_load_n((const uint16_t *)p, __ATOMIC_RELAXED);
}

static inline uint64_t load64(const void *p) {
    return __atomic_load_n((const uint64_t *)p, __ATOMIC_RELAXED);
}

static inline void fence(void) {
#if defined(__x86_64__)
    __asm__ __volatile__("lock; addl $0,-128(%%rsp)" ::: "memory", "cc");
#else
    __atomic_thread_fence(__ATOMIC_SEQ_CST);
#endif
}

/// Chains that can be taken, at most `limit`.
static inline int pending(struct baseline_ring *ring, int limit) {
    uint16_t index, count;
    if (ring->broken) return 0;
    index = __atomic_load_n((const uint16_t *)(ring->available + 2), __ATOMIC_ACQUIRE);
    count = (uint16_t)(index - ring->next_available);
    if (count > ring->size || (uint16_t)(index - ring->next_used) > ring->size) {
        ring->broken = 1;
        return 0;
    }
    return count < limit ? count : limit;
}

/// The buffer of the next chain; NULL when it is anything but one buffer of that kind in memory.
static inline uint8_t *fetch(const struct baseline_ring *ring, uint16_t slot, unsigned kind,
                             uint16_t *head, uint32_t *length) {
    uint16_t index = load16(ring->available + 4 + 2 * (slot & (ring->size - 1)));
    uint64_t low, high, offset;
    if (index >= ring->size) return NULL;
    low = load64(ring->descriptors + 16 * index);
    high = load64(ring->descriptors + 16 * index + 8);
    if (((high >> 32) & 7) != kind) return NULL;
    offset = low - ring->region_start;
    if (offset >= ring->region_size || (uint32_t)high > ring->region_size - offset) return NULL;
    *head = index;
    *length = (uint32_t)high;
    return ring->region_host + offset;
}

static inline void use(struct baseline_ring *ring, uint16_t head, uint32_t written) {
    uint8_t *element = ring->used + 4 + 8 * (ring->next_used & (ring->size - 1));
    __atomic_store_n((uint32_t *)element, head, __ATOMIC_RELAXED);
    __atomic_store_n((uint32_t *)(element + 4), written, __ATOMIC_RELAXED);
    ring->next_used++;
}

int baseline_take(struct baseline_ring *shared, struct baseline_packet *packets, int limit) {
    // A private copy: stores to packets could otherwise change it, so every field would be
    // fetched again for each.
    struct baseline_ring local = *shared, *ring = &local;
    int count = pending(ring, limit), n;
    for (n = 0; n < count; n++) {
        uint32_t length = 0;
        uint64_t header;
        const uint8_t *bytes = fetch(ring, ring->next_available, 0, &packets[n].head, &length);
        if (!bytes || length <= HEADER || length > LONGEST + HEADER) {
            ring->broken = 1;
            break;
        }
        memcpy(&header, bytes, sizeof header);
        if (header & 0xFFFFFF01) {
            ring->broken = 1;
            break;
        }
        packets[n].bytes = bytes + HEADER;
        packets[n].length = length - HEADER;
        ring->bytes += length - HEADER;
        ring->next_available++;
    }
    ring->packets += (uint64_t)n;
    *shared = local;
    return n;
}

int baseline_publish(struct baseline_ring *ring) {
    __atomic_store_n((uint16_t *)(ring->used + 2), ring->next_used, __ATOMIC_RELEASE);
    if (ring->notified == ring->next_used) return 0;
    ring->notified = ring->next_used;
    fence();
    return !(load16(ring->available) & 1);
}

int baseline_return(struct baseline_ring *shared, const struct baseline_packet *packets,
                    int count) {
    struct baseline_ring local = *shared, *ring = &local;
    for (int n = 0; n < count; n++) use(ring, packets[n].head, 0);
    *shared = local;
    return baseline_publish(shared);
}

int baseline_dequeue(struct baseline_ring *ring, int limit, uint8_t *target, uint32_t stride) {
    struct baseline_packet packets[BASELINE_BURST];
    int count = baseline_take(ring, packets, limit);
    for (int n = 0; n < count; n++)
        memcpy(target + (uint64_t)stride * (unsigned)n, packets[n].bytes, packets[n].length);
    if (count) baseline_return(ring, packets, count);
    return count;
}

int baseline_put(struct baseline_ring *shared, const struct baseline_packet *packets, int count) {
    struct baseline_ring local = *shared, *ring = &local;
    int room = pending(ring, count), n;
    for (n = 0; n < room; n++) {
        uint16_t head = 0;
        uint32_t length = 0;
        uint8_t *buffer = fetch(ring, ring->next_available, 2, &head, &length);
        static const uint8_t header[HEADER] = {[10] = 1};
        if (!buffer || length < HEADER + packets[n].length) {
            ring->broken = 1;
            break;
        }
        memcpy(buffer, header, HEADER);
        memcpy(buffer + HEADER, packets[n].bytes, packets[n].length);
        ring->next_available++;
        use(ring, head, HEADER + packets[n].length);
        ring->bytes += packets[n].length;
    }
    ring->packets += (uint64_t)n;
    *shared = local;
    return n;
}
