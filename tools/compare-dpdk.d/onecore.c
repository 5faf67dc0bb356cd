// onecore.c: both halves of DPDK's vhost-user in one process and on one core, in turn: virtio_user sends
// a burst, librte_vhost takes it (dequeue), puts it back (enqueue), virtio_user receives it.
//
//   onecore EAL-ARGUMENTS -- SOCKET VIRTIO_USER_ARGUMENTS SIZE BURST PACKETS
//
// Nobody waits and no cache line travels, so what a call costs is its instructions and the first caches.
// Prints "packets=… dequeue_best=… dequeue_median=… enqueue_best=… enqueue_median=…": the packets that
// went each way and TSC ticks a packet over blocks of 4096. Under callgrind the ticks mean nothing and
// the packets are what to divide the instructions of the two calls by.
#include <rte_bus_vdev.h>
#include <rte_cycles.h>
#include <rte_dev.h>
#include <rte_eal.h>
#include <rte_ethdev.h>
#include <rte_mbuf.h>
#include <rte_vhost.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { RING = 256, MAX_BURST = 32, BLOCK = 4096, RECEIVE = 0, TRANSMIT = 1, MAX_BLOCKS = 4096 };

static atomic_int device = -1;

// The notifications off, as a polling back-end has them.
static int device_ready(int id) {
    rte_vhost_enable_guest_notification(id, RECEIVE, 0);
    rte_vhost_enable_guest_notification(id, TRANSMIT, 0);
    atomic_store(&device, id);
    return 0;
}

static void device_gone(int id) {
    (void)id;
    atomic_store(&device, -1);
}

static const struct rte_vhost_device_ops operations = {
    .new_device = device_ready,
    .destroy_device = device_gone,
};

static void quit(const char *why) {
    fprintf(stderr, "onecore: %s\n", why);
    exit(1);
}

static struct rte_mempool *make_pool(const char *name) {
    struct rte_mempool *pool = rte_pktmbuf_pool_create(name, 4095, 256, 0, RTE_MBUF_DEFAULT_BUF_SIZE, 0);
    if (pool == NULL) quit("no memory for packets");
    return pool;
}

// Connects the two halves; returns the vhost device's id.
static int connect_halves(const char *socket, const char *arguments, struct rte_mempool *pool) {
    char text[512];
    struct rte_eth_conf conf;
    memset(&conf, 0, sizeof conf);
    unlink(socket);
    if (rte_vhost_driver_register(socket, 0) != 0 ||
        rte_vhost_driver_callback_register(socket, &operations) != 0 ||
        rte_vhost_driver_start(socket) != 0)
        quit("librte_vhost does not take the socket");
    snprintf(text, sizeof text, "path=%s,queues=1,queue_size=%d,%s", socket, RING, arguments);
    if (rte_eal_hotplug_add("vdev", "net_virtio_user0", text) != 0) quit("no virtio_user device");
    if (rte_eth_dev_configure(0, 1, 1, &conf) != 0 ||
        rte_eth_rx_queue_setup(0, 0, RING, 0, NULL, pool) != 0 ||
        rte_eth_tx_queue_setup(0, 0, RING, 0, NULL) != 0 || rte_eth_dev_start(0) != 0)
        quit("the port does not start");
    for (int tries = 0; tries < 5000 && atomic_load(&device) < 0; tries++) usleep(1000);
    if (atomic_load(&device) < 0) quit("librte_vhost sees no device");
    usleep(100000);
    return atomic_load(&device);
}

static int ascending(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

int main(int argc, char **argv) {
    int used = rte_eal_init(argc, argv);
    if (used < 0) quit("EAL does not start");
    argc -= used;
    argv += used;
    if (argc != 6) quit("usage: onecore EAL-ARGUMENTS -- SOCKET VIRTIO_USER_ARGUMENTS SIZE BURST PACKETS");
    uint16_t size = (uint16_t)atoi(argv[3]), burst = (uint16_t)atoi(argv[4]);
    uint64_t wanted = strtoull(argv[5], NULL, 10), packets = 0;
    if (size < 14 || size > 2000 || burst < 1 || burst > MAX_BURST) quit("SIZE or BURST out of range");
    struct rte_mempool *ours = make_pool("front"), *theirs = make_pool("back");
    int id = connect_halves(argv[1], argv[2], ours);

    static double dequeue[MAX_BLOCKS], enqueue[MAX_BLOCKS];
    size_t blocks = 0;
    uint64_t dequeue_ticks = 0, enqueue_ticks = 0, in_block = 0;
    struct rte_mbuf *front[MAX_BURST], *back[MAX_BURST];
    while (packets < wanted) {
        if (rte_pktmbuf_alloc_bulk(ours, front, burst) != 0) quit("no packets left");
        for (uint16_t i = 0; i < burst; i++) {
            front[i]->data_len = size;
            front[i]->pkt_len = size;
        }
        if (rte_eth_tx_burst(0, 0, front, burst) != burst) quit("a burst was not sent whole");
        uint64_t begin = rte_rdtsc();
        uint16_t taken = rte_vhost_dequeue_burst(id, TRANSMIT, theirs, back, burst);
        dequeue_ticks += rte_rdtsc() - begin;
        if (taken != burst) quit("a burst was not taken whole");
        begin = rte_rdtsc();
        uint16_t given = rte_vhost_enqueue_burst(id, RECEIVE, back, burst);
        enqueue_ticks += rte_rdtsc() - begin;
        if (given != burst) quit("a burst was not put back whole");
        rte_pktmbuf_free_bulk(back, burst);
        uint16_t received = rte_eth_rx_burst(0, 0, front, burst);
        if (received != burst) quit("a burst was not received whole");
        rte_pktmbuf_free_bulk(front, burst);
        packets += burst;
        in_block += burst;
        if (in_block >= BLOCK && blocks < MAX_BLOCKS) {
            dequeue[blocks] = (double)dequeue_ticks / (double)in_block;
            enqueue[blocks++] = (double)enqueue_ticks / (double)in_block;
            dequeue_ticks = enqueue_ticks = in_block = 0;
        }
    }
    qsort(dequeue, blocks, sizeof *dequeue, ascending);
    qsort(enqueue, blocks, sizeof *enqueue, ascending);
    printf("packets=%lu dequeue_best=%.1f dequeue_median=%.1f enqueue_best=%.1f enqueue_median=%.1f\n",
           packets, dequeue[0], dequeue[blocks / 2], enqueue[0], enqueue[blocks / 2]);
    fflush(stdout);
    rte_eth_dev_stop(0);
    rte_eal_hotplug_remove("vdev", "net_virtio_user0");
    rte_vhost_driver_unregister(argv[1]);
    return 0;
}
