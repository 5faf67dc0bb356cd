// libnuma and thread affinity: cpu_set_t and struct bitmask are macro-built.
#ifndef SHIM_NUMA_H
#define SHIM_NUMA_H

#include <stddef.h>

/// 1 when the kernel supports NUMA policies (libnuma usable), else 0.
int shim_numa_available(void);
/// Node that owns the CPU, or -errno; 0 on a machine without NUMA.
int shim_numa_node_of_cpu(int cpu);
/// Node that holds the page at `address` (which is faulted in first), or -errno; -ENXIO
/// for a page of a device's BAR, which the kernel tells no node of.
int shim_numa_node_of_address(const void *address);
/// Prefers `node` for the pages of a range that are not allocated yet.
int shim_numa_prefer(void *address, size_t length, int node);
/// Binds the calling thread to one CPU.
int shim_pin_thread(int cpu);
/// 1 when the calling process may run on the CPU, 0 when not, -errno when that cannot be read.
int shim_cpu_allowed(int cpu);
/// CPU the caller runs on.
int shim_current_cpu(void);
/// Number of configured CPUs.
int shim_cpu_count(void);
/// Names the calling thread (15 bytes are kept).
int shim_name_thread(const char *name);

#endif
