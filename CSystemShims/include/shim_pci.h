// libpci: its structures use bit-fields and its errors call exit(3) unless a handler is set.
#ifndef SHIM_PCI_H
#define SHIM_PCI_H

#include <stddef.h>
#include <stdint.h>

/// What libpci knows of one function.
struct shim_pci_function {
    uint32_t domain;
    uint8_t bus;
    uint8_t device;
    uint8_t function;
    uint8_t revision;
    uint16_t vendor;
    uint16_t device_id;
    uint16_t subsystem_vendor;
    uint16_t subsystem_device;
    /// Class, subclass and programming interface, 24 bits.
    uint32_t class_code;
    char name[192];
    char class_name[96];
};
/// Lists the functions of the bus below `sysfs` (as `/sys/bus/pci`): returns how many there are, and
/// fills in the first `capacity` of them; -EIO when libpci fails.
int shim_pci_list(const char *sysfs, struct shim_pci_function *out, int capacity);

#endif
