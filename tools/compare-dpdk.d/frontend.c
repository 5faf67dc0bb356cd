// frontend.c: a front-end on DPDK's virtio_user driver, against any vhost-user back-end.
//
//   frontend EAL-ARGUMENTS -- MODE SIZE SECONDS BACKEND_CPU [IN_FLIGHT [BURST]]
//
//   tx       sends as fast as the ring takes packets
//   rx       receives as fast as they come
//   loop     keeps IN_FLIGHT packets on their way through a back-end that returns them; checks length,
//            order and contents of each
//   latency  one packet at a time, from before its transmission to after its reception
//
// Prints one line for each placement class met (samples.h): millions of packets a second over windows of
// 250 us, or nanoseconds for latency. A window in which no packet moved for 15 us does not count:
// somebody else had one of the two CPUs. Then a line "packets=… seconds=… damaged=… lost=…".
// Exit status 0, or 1 when nothing could be measured.
#include <rte_cycles.h>
#include <rte_eal.h>
#include <rte_ethdev.h>
#include <rte_mbuf.h>
#include <rte_pause.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "samples.h"

enum { RING = 256, MAX_BURST = 64, POOL = 4095, PORT = 0, QUEUE = 0 };
static const double window_s = 250e-6, stall_s = 15e-6, segment_s = 40e-3, warm_up_s = 50e-3, dead_s = 1;
static const uint16_t magic = 0x7650;

// What loop and latency put behind the Ethernet header, which a back-end may rewrite.
struct stamp {
    uint8_t ethernet[14];
    uint16_t magic;
    uint32_t length;
    uint64_t sequence;
} __attribute__((packed));

static struct rte_mempool *pool;
static double hz;
static uint32_t size;
static uint16_t burst = 32;
static uint64_t moved_total, damaged, lost;

static void quit(const char *why) {
    fprintf(stderr, "frontend: %s\n", why);
    exit(1);
}

static void start_port(void) {
    struct rte_eth_conf conf;
    memset(&conf, 0, sizeof conf);
    if (rte_eth_dev_count_avail() != 1) quit("no virtio_user port");
    pool = rte_pktmbuf_pool_create("packets", POOL, 256, 0, RTE_MBUF_DEFAULT_BUF_SIZE, 0);
    if (pool == NULL) quit("no memory for packets");
    if (rte_eth_dev_configure(PORT, 1, 1, &conf) != 0 ||
        rte_eth_rx_queue_setup(PORT, QUEUE, RING, 0, NULL, pool) != 0 ||
        rte_eth_tx_queue_setup(PORT, QUEUE, RING, 0, NULL) != 0)
        quit("the port takes no configuration");
    // Every buffer gets a frame once, so that sending costs no stores into it.
    struct rte_mbuf *all[POOL];
    unsigned count = 0;
    while (count < POOL && (all[count] = rte_pktmbuf_alloc(pool)) != NULL) {
        static const uint8_t ethernet[14] = {2, 0, 0, 0, 0, 2, 2, 0, 0, 0, 0, 1, 0x88, 0xb5};
        uint8_t *frame = rte_pktmbuf_mtod(all[count], uint8_t *);
        memset(frame, (int)count, 2048);
        memcpy(frame, ethernet, sizeof ethernet);
        count++;
    }
    rte_pktmbuf_free_bulk(all, count);
    if (rte_eth_dev_start(PORT) != 0) quit("the port does not start");
}

static void set_length(struct rte_mbuf *packet) {
    packet->data_len = (uint16_t)size;
    packet->pkt_len = size;
}

static uint8_t last_byte(uint64_t sequence) { return (uint8_t)(sequence * 31 + 7); }

static void mark(struct rte_mbuf *packet, uint64_t sequence) {
    struct stamp *stamp = rte_pktmbuf_mtod(packet, struct stamp *);
    stamp->magic = magic;
    stamp->length = size;
    stamp->sequence = sequence;
    rte_pktmbuf_mtod(packet, uint8_t *)[size - 1] = last_byte(sequence);
}

// Whether a returned packet is the one sent as number `sequence`, unharmed.
static bool intact(struct rte_mbuf *packet, uint64_t sequence) {
    const struct stamp *stamp = rte_pktmbuf_mtod(packet, const struct stamp *);
    return packet->pkt_len == size && packet->data_len == size && stamp->magic == magic &&
           stamp->length == size && stamp->sequence == sequence &&
           rte_pktmbuf_mtod(packet, const uint8_t *)[size - 1] == last_byte(sequence);
}

// --- the three modes that count packets: each step moves what it can and says how many ---

static struct rte_mbuf *ready[MAX_BURST];
static uint16_t ready_count;

static uint16_t step_tx(void) {
    if (ready_count == 0) {
        if (rte_pktmbuf_alloc_bulk(pool, ready, burst) != 0) return 0;
        for (uint16_t i = 0; i < burst; i++) set_length(ready[i]);
        ready_count = burst;
    }
    uint16_t sent = rte_eth_tx_burst(PORT, QUEUE, ready + (burst - ready_count), ready_count);
    ready_count = (uint16_t)(ready_count - sent);
    return sent;
}

static uint16_t step_rx(void) {
    struct rte_mbuf *packets[MAX_BURST];
    uint16_t received = rte_eth_rx_burst(PORT, QUEUE, packets, burst);
    if (received == 0) return 0;
    for (uint16_t i = 0; i < received; i++) damaged += packets[i]->pkt_len != size;
    rte_pktmbuf_free_bulk(packets, received);
    return received;
}

static uint64_t next_out = 1, next_in = 1;

static void send_all(struct rte_mbuf **packets, uint16_t count) {
    uint64_t end = rte_rdtsc() + (uint64_t)(dead_s * hz);
    for (uint16_t sent = 0; sent < count;) {
        uint16_t taken = rte_eth_tx_burst(PORT, QUEUE, packets + sent, (uint16_t)(count - sent));
        sent = (uint16_t)(sent + taken);
        if (taken == 0) {
            if (rte_rdtsc() > end) quit("the back-end takes no more packets");
            rte_pause();
        }
    }
}

static void fill_loop(unsigned in_flight) {
    for (unsigned i = 0; i < in_flight; i++) {
        struct rte_mbuf *packet = rte_pktmbuf_alloc(pool);
        if (packet == NULL) quit("no packet to send");
        set_length(packet);
        mark(packet, next_out++);
        send_all(&packet, 1);
    }
}

static uint16_t step_loop(void) {
    struct rte_mbuf *packets[MAX_BURST];
    uint16_t received = rte_eth_rx_burst(PORT, QUEUE, packets, burst);
    for (uint16_t i = 0; i < received; i++) {
        if (!intact(packets[i], next_in)) {
            damaged++;
            // Go on from what this one says, so that one gap counts once.
            next_in = rte_pktmbuf_mtod(packets[i], struct stamp *)->sequence;
        }
        next_in++;
        set_length(packets[i]);
        mark(packets[i], next_out++);
    }
    if (received > 0) send_all(packets, received);
    return received;
}

static void count_packets(uint16_t (*step)(void), double seconds, struct samples *rates) {
    const uint64_t window = (uint64_t)(window_s * hz), stall = (uint64_t)(stall_s * hz);
    const uint64_t segment = (uint64_t)(segment_s * hz), dead = (uint64_t)(dead_s * hz);
    uint64_t begin = rte_rdtsc(), now = begin, last_move = begin;
    while (step() == 0) // until the back-end is there
        if (rte_rdtsc() - begin > 10 * dead) quit("no packet moved in 10 s");
    begin = last_move = rte_rdtsc();
    const uint64_t warm = begin + (uint64_t)(warm_up_s * hz);
    const uint64_t end = warm + (uint64_t)(seconds * hz);
    uint64_t window_begin = begin, segment_begin = begin, in_window = 0;
    bool disturbed = true;
    enum placement placement = placement_probe();
    while (now < end) {
        uint16_t moved = step();
        now = rte_rdtsc();
        if (moved > 0) {
            if (now - last_move > stall) disturbed = true;
            last_move = now;
            in_window += moved;
        } else {
            if (now - last_move > dead) quit("packets stopped moving");
            rte_pause(); // a hyper-thread of the same core gets the cycles
        }
        if (now - window_begin < window) continue;
        if (now - last_move > stall) disturbed = true;
        if (!disturbed && now > warm)
            samples_add(rates, (double)in_window / ((double)(now - window_begin) / hz) / 1e6);
        moved_total += in_window;
        in_window = 0;
        disturbed = false;
        if (now - segment_begin > segment || now >= end) {
            enum placement then = placement_probe();
            samples_settle(rates, placement, then);
            placement = then;
            disturbed = true; // the probe took time from both sides
            segment_begin = last_move = rte_rdtsc();
        }
        window_begin = rte_rdtsc();
    }
}

// --- latency ---

// One round trip in ticks; 0 when the packet did not come back.
static uint64_t round_trip(uint64_t sequence) {
    struct rte_mbuf *packet = rte_pktmbuf_alloc(pool);
    if (packet == NULL) quit("no packet to send");
    set_length(packet);
    mark(packet, sequence);
    uint64_t begin = rte_rdtsc(), end = begin + (uint64_t)(dead_s * hz), now = begin;
    send_all(&packet, 1);
    while (now < end) {
        uint16_t received = rte_eth_rx_burst(PORT, QUEUE, &packet, 1);
        now = rte_rdtsc();
        if (received == 0) continue;
        uint64_t got = rte_pktmbuf_mtod(packet, struct stamp *)->sequence;
        bool good = intact(packet, sequence);
        rte_pktmbuf_free(packet);
        if (good) return now - begin;
        if (got >= sequence) damaged++; // an earlier one is only late
    }
    return 0;
}

static void measure_latency(double seconds, struct samples *times) {
    const uint64_t segment = (uint64_t)(segment_s * hz);
    uint64_t sequence = 0;
    for (int i = 0; i < 2000; i++) // warm, and the back-end may not be there yet
        if (round_trip(++sequence) == 0 && i > 10) quit("packets do not come back");
    uint64_t begin = rte_rdtsc(), end = begin + (uint64_t)(seconds * hz), now = begin;
    enum placement placement = placement_probe();
    while (now < end) {
        uint64_t ticks = round_trip(++sequence);
        if (ticks == 0 && ++lost > 20) quit("packets do not come back");
        if (ticks != 0) {
            samples_add(times, (double)ticks * 1e9 / hz);
            moved_total++;
        }
        now = rte_rdtsc();
        if (now - begin > segment || now >= end) {
            enum placement then = placement_probe();
            samples_settle(times, placement, then);
            placement = then;
            begin = rte_rdtsc();
        }
    }
}

int main(int argc, char **argv) {
    int used = rte_eal_init(argc, argv);
    if (used < 0) quit("EAL does not start");
    argc -= used;
    argv += used;
    if (argc < 5) quit("usage: frontend EAL-ARGUMENTS -- MODE SIZE SECONDS BACKEND_CPU [IN_FLIGHT [BURST]]");
    const char *mode = argv[1];
    size = (uint32_t)atoi(argv[2]);
    double seconds = atof(argv[3]);
    unsigned in_flight = argc > 5 ? (unsigned)atoi(argv[5]) : 128;
    if (argc > 6) burst = (uint16_t)atoi(argv[6]);
    if (size < sizeof(struct stamp) + 1 || size > 2048 || seconds <= 0 || burst < 1 ||
        burst > MAX_BURST || in_flight < 1 || in_flight >= RING)
        quit("an argument is out of its range");
    bool latency = strcmp(mode, "latency") == 0;
    uint16_t (*step)(void) = strcmp(mode, "tx") == 0     ? step_tx
                             : strcmp(mode, "rx") == 0   ? step_rx
                             : strcmp(mode, "loop") == 0 ? step_loop
                                                         : NULL;
    if (step == NULL && !latency) quit("MODE is tx, rx, loop or latency");
    hz = (double)rte_get_tsc_hz();
    start_port();
    usleep(200000);
    if (placement_start(atoi(argv[4]), hz) != 0) quit("no thread for the placement probe");
    struct samples samples;
    if (samples_init(&samples, latency ? (size_t)(seconds * 6e6) : (size_t)(seconds / window_s) + 64) != 0)
        quit("no memory for samples");
    uint64_t begin = rte_rdtsc();
    if (step == step_loop) fill_loop(in_flight);
    if (latency)
        measure_latency(seconds, &samples);
    else
        count_packets(step, seconds, &samples);
    double took = (double)(rte_rdtsc() - begin) / hz;
    samples_print(&samples);
    printf("packets=%lu seconds=%.3f damaged=%lu lost=%lu\n", moved_total, took, damaged, lost);
    fflush(stdout);
    placement_stop();
    rte_eth_dev_stop(PORT);
    rte_eth_dev_close(PORT);
    rte_eal_cleanup();
    return damaged + lost == 0 ? 0 : 1;
}
