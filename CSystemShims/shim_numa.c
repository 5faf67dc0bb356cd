#define _GNU_SOURCE
#include "include/shim_numa.h"

#include <errno.h>
#include <numa.h>
#include <numaif.h>
#include <pthread.h>
#include <sched.h>
#include <unistd.h>

int shim_numa_available(void) { return numa_available() >= 0; }

int shim_numa_node_of_cpu(int cpu) {
    if (!shim_numa_available())
        return 0;
    int node = numa_node_of_cpu(cpu);
    return node < 0 ? -EINVAL : node;
}

int shim_numa_node_of_address(const void *address) {
    if (!shim_numa_available())
        return 0;
    (void)*(const volatile char *)address;
    int node = -1;
    if (get_mempolicy(&node, NULL, 0, (void *)address, MPOL_F_NODE | MPOL_F_ADDR) < 0)
        // The page could be read, so it is a device's: no memory that belongs to a node.
        return errno == EFAULT ? -ENXIO : -errno;
    return node;
}

int shim_numa_prefer(void *address, size_t length, int node) {
    if (!shim_numa_available())
        return 0;
    if (node < 0 || node >= 64)
        return -EINVAL;
    unsigned long mask = 1ul << node;
    return mbind(address, length, MPOL_PREFERRED, &mask, 65, 0) < 0 ? -errno : 0;
}

int shim_pin_thread(int cpu) {
    if (cpu < 0 || cpu >= CPU_SETSIZE)
        return -EINVAL;
    cpu_set_t set;
    CPU_ZERO(&set);
    CPU_SET(cpu, &set);
    return -pthread_setaffinity_np(pthread_self(), sizeof set, &set);
}

int shim_cpu_allowed(int cpu) {
    if (cpu < 0 || cpu >= CPU_SETSIZE)
        return 0;
    cpu_set_t set;
    CPU_ZERO(&set);
    if (sched_getaffinity(0, sizeof set, &set) < 0)
        return -errno;
    return CPU_ISSET(cpu, &set) ? 1 : 0;
}

int shim_current_cpu(void) { return sched_getcpu(); }

int shim_cpu_count(void) { return (int)sysconf(_SC_NPROCESSORS_CONF); }

int shim_name_thread(const char *name) {
    char kept[16];
    size_t i = 0;
    for (; i < sizeof kept - 1 && name[i]; i++)
        kept[i] = name[i];
    kept[i] = 0;
    return -pthread_setname_np(pthread_self(), kept);
}
