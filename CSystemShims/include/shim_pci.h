// libpci: its structures use bit-fields and its errors call exit(3) unless a handler is set.
#ifndef SHIM_PCI_H
#define SHIM_PCI_H

#include <stddef.h>
#include <stdint.h>

/// What libpci and sysfs know of one function.
struct shim_pci_identity {
    uint16_t vendor;
    uint16_t device;
    uint16_t subsystem_vendor;
    uint16_t subsystem_device;
    uint32_t class_code;
    int32_t numa_node;
    char name[160];
    char driver[64];
};
/// Looks a function up by address; -ENOENT when there is none, -EIO when libpci fails.
int shim_pci_identify(int domain, int bus, int device, int function,
                      struct shim_pci_identity *out);

#endif
