// The device side of split rings as one would write it in C: the yardstick for `bench ring`. It
// makes the same checks as ours for chains of one buffer, and knows nothing else: no chains of
// several buffers, no indirect tables, no merging.
#ifndef CRINGBASELINE_H
#define CRINGBASELINE_H

#include <stdint.h>

struct baseline_ring {
    const uint8_t *descriptors;
    const uint8_t *available;
    uint8_t *used;
    uint64_t region_start;
    uint64_t region_size;
    uint8_t *region_host;
    uint16_t size;
    uint16_t next_available;
    uint16_t next_used;
    uint16_t notified;
    int broken;
    uint64_t packets;
    uint64_t bytes;
};

struct baseline_packet {
    const uint8_t *bytes;
    uint32_t length;
    uint16_t head;
};

/// Most packets of a burst.
#define BASELINE_BURST 32

/// Takes up to `limit` packets of a transmit ring: translated, header checked and taken off.
/// Returns how many; 0 with `broken` set for anything but a good chain of one buffer.
int baseline_take(struct baseline_ring *ring, struct baseline_packet *packets, int limit);
/// Returns taken packets: used elements, one release store, the decision on a notification.
/// Returns 1 when the driver wants to be notified.
int baseline_return(struct baseline_ring *ring, const struct baseline_packet *packets, int count);
/// baseline_take, copying every packet to `target + n * stride`, and baseline_return.
int baseline_dequeue(struct baseline_ring *ring, int limit, uint8_t *target, uint32_t stride);
/// Copies packets into buffers of a receive ring, each behind a header; returns how many fitted.
/// baseline_publish shows them.
int baseline_put(struct baseline_ring *ring, const struct baseline_packet *packets, int count);
/// One release store and the decision on a notification.
int baseline_publish(struct baseline_ring *ring);

#endif
