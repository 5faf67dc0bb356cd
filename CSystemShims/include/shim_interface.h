// getifaddrs: its list of unions does not import well.
#ifndef SHIM_INTERFACE_H
#define SHIM_INTERFACE_H

#include <stdint.h>

/// Puts up to `capacity` IPv4 addresses of an interface into `out`, first byte lowest; returns how
/// many it has, or -errno.
int shim_interface_addresses(const char *name, uint32_t *out, int capacity);

#endif
