#define _GNU_SOURCE
#include "include/shim_interface.h"

#include <errno.h>
#include <ifaddrs.h>
#include <netinet/in.h>
#include <string.h>

int shim_interface_addresses(const char *name, uint32_t *out, int capacity) {
    struct ifaddrs *list;
    if (getifaddrs(&list) != 0)
        return -errno;
    int count = 0;
    for (struct ifaddrs *entry = list; entry; entry = entry->ifa_next) {
        /* The label of an address, eth0:vip, has the interface's name in front. */
        size_t length = strcspn(entry->ifa_name, ":");
        if (!entry->ifa_addr || entry->ifa_addr->sa_family != AF_INET || length != strlen(name) ||
            strncmp(entry->ifa_name, name, length) != 0)
            continue;
        struct sockaddr_in address;
        memcpy(&address, entry->ifa_addr, sizeof address);
        if (count < capacity)
            out[count] = address.sin_addr.s_addr;
        count++;
    }
    freeifaddrs(list);
    return count;
}
