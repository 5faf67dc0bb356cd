#define _GNU_SOURCE
#include "include/shim_pci.h"

#include <errno.h>
#include <pci/pci.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

// libpci reports a fatal error by calling `error`, which must not return; the jump brings it back.
static _Thread_local jmp_buf failed;
static void __attribute__((noreturn)) on_error(char *format, ...) {
    (void)format;
    longjmp(failed, 1);
}
static void on_message(char *format, ...) { (void)format; }

static void read_driver(int domain, int bus, int device, int function, char *out, size_t size) {
    char path[96], target[256];
    snprintf(path, sizeof path, "/sys/bus/pci/devices/%04x:%02x:%02x.%d/driver", domain, bus,
             device, function);
    out[0] = 0;
    ssize_t length = readlink(path, target, sizeof target - 1);
    if (length <= 0)
        return;
    target[length] = 0;
    const char *slash = strrchr(target, '/');
    snprintf(out, size, "%s", slash ? slash + 1 : target);
}

int shim_pci_identify(int domain, int bus, int device, int function,
                      struct shim_pci_identity *out) {
    struct pci_access *volatile access = pci_alloc();
    if (!access)
        return -ENOMEM;
    access->error = on_error;
    access->warning = on_message;
    access->debug = on_message;
    volatile int status = -EIO;
    if (setjmp(failed) == 0) {
        pci_init(access);
        pci_scan_bus(access);
        status = -ENOENT;
        for (struct pci_dev *d = access->devices; d; d = d->next) {
            if (d->domain != domain || d->bus != bus || d->dev != device || d->func != function)
                continue;
            pci_fill_info(d, PCI_FILL_IDENT | PCI_FILL_CLASS | PCI_FILL_NUMA_NODE);
            memset(out, 0, sizeof *out);
            out->vendor = d->vendor_id;
            out->device = d->device_id;
            out->class_code = d->device_class;
            out->numa_node = d->numa_node;
            out->subsystem_vendor = pci_read_word(d, PCI_SUBSYSTEM_VENDOR_ID);
            out->subsystem_device = pci_read_word(d, PCI_SUBSYSTEM_ID);
            pci_lookup_name(access, out->name, sizeof out->name,
                            PCI_LOOKUP_VENDOR | PCI_LOOKUP_DEVICE, d->vendor_id, d->device_id);
            read_driver(domain, bus, device, function, out->driver, sizeof out->driver);
            status = 0;
            break;
        }
        pci_cleanup(access);
    }
    return status;
}
