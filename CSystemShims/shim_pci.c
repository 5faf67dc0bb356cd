#define _GNU_SOURCE
#include "include/shim_pci.h"

#include <errno.h>
#include <pci/pci.h>
#include <setjmp.h>
#include <stdarg.h>
#include <string.h>

// libpci reports a fatal error by calling `error`, which must not return; the jump brings it back.
static _Thread_local jmp_buf failed;
static void __attribute__((noreturn)) on_error(char *format, ...) {
    (void)format;
    longjmp(failed, 1);
}
static void on_message(char *format, ...) { (void)format; }

static void describe(struct pci_access *access, struct pci_dev *d, struct shim_pci_function *out) {
    memset(out, 0, sizeof *out);
    out->domain = (uint32_t)d->domain;
    out->bus = d->bus;
    out->device = d->dev;
    out->function = d->func;
    pci_fill_info(d, PCI_FILL_IDENT | PCI_FILL_CLASS | PCI_FILL_CLASS_EXT | PCI_FILL_SUBSYS);
    out->revision = d->rev_id;
    out->vendor = d->vendor_id;
    out->device_id = d->device_id;
    out->subsystem_vendor = d->subsys_vendor_id;
    out->subsystem_device = d->subsys_id;
    out->class_code = (uint32_t)d->device_class << 8 | d->prog_if;
    pci_lookup_name(access, out->name, sizeof out->name, PCI_LOOKUP_VENDOR | PCI_LOOKUP_DEVICE,
                    d->vendor_id, d->device_id);
    pci_lookup_name(access, out->class_name, sizeof out->class_name, PCI_LOOKUP_CLASS,
                    d->device_class);
}

int shim_pci_list(const char *sysfs, struct shim_pci_function *out, int capacity) {
    struct pci_access *volatile access = pci_alloc();
    if (!access)
        return -ENOMEM;
    access->error = on_error;
    access->warning = on_message;
    access->debug = on_message;
    access->method = PCI_ACCESS_SYS_BUS_PCI;
    volatile int count = -EIO;
    if (setjmp(failed) == 0) {
        if (pci_set_param(access, "sysfs.path", (char *)sysfs) == 0) {
            pci_init(access);
            pci_scan_bus(access);
            int found = 0;
            for (struct pci_dev *d = access->devices; d; d = d->next, found++)
                if (found < capacity)
                    describe(access, d, &out[found]);
            count = found;
        }
    } else {
        count = -EIO;
    }
    pci_cleanup(access);
    return count;
}
