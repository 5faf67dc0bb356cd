#define _GNU_SOURCE
#include "include/shim_sigbus.h"

#include <errno.h>
#include <signal.h>
#include <string.h>
#include <sys/mman.h>

enum { SLOTS = 4096 };

// Written by control threads, read by the handler on any thread: `length` is published last and
// withdrawn first, and `changes` tells the handler that a slot was given away between its two reads,
// so it never sees the start of one range with the length of another.
static struct {
    uintptr_t start;
    size_t length;
    uint32_t changes;
    uint32_t faults;
    uint32_t taken;
} slots[SLOTS];
static uint32_t used;
static uint32_t installed;
static struct sigaction previous;

static void on_sigbus(int number, siginfo_t *info, void *context) {
    (void)context;
    uintptr_t at = (uintptr_t)info->si_addr;
    uint32_t count = __atomic_load_n(&used, __ATOMIC_ACQUIRE);
    for (uint32_t i = 0; i < count; i++) {
        uint32_t changes = __atomic_load_n(&slots[i].changes, __ATOMIC_ACQUIRE);
        size_t length = __atomic_load_n(&slots[i].length, __ATOMIC_ACQUIRE);
        uintptr_t start = __atomic_load_n(&slots[i].start, __ATOMIC_ACQUIRE);
        if (length == 0 || at < start || at - start >= length)
            continue;
        // The range that holds the fault does not change: who owns it is waiting for this thread.
        if (__atomic_load_n(&slots[i].changes, __ATOMIC_RELAXED) != changes)
            continue;
        void *mapped = mmap((void *)start, length, PROT_READ | PROT_WRITE,
                            MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED, -1, 0);
        if (mapped == MAP_FAILED)
            break;
        __atomic_fetch_add(&slots[i].faults, 1, __ATOMIC_RELEASE);
        return;
    }
    // Not ours: put the earlier disposition back and let the instruction fault again.
    sigaction(number, &previous, NULL);
}

int shim_sigbus_install(void) {
    uint32_t expected = 0;
    if (!__atomic_compare_exchange_n(&installed, &expected, 1, 0, __ATOMIC_ACQ_REL,
                                     __ATOMIC_ACQUIRE))
        return 0;
    struct sigaction action;
    memset(&action, 0, sizeof action);
    action.sa_sigaction = on_sigbus;
    action.sa_flags = SA_SIGINFO | SA_NODEFER;
    return sigaction(SIGBUS, &action, &previous) < 0 ? -errno : 0;
}

int shim_sigbus_guard(void *address, size_t length) {
    for (uint32_t i = 0; i < SLOTS; i++) {
        uint32_t expected = 0;
        if (!__atomic_compare_exchange_n(&slots[i].taken, &expected, 1, 0, __ATOMIC_ACQ_REL,
                                         __ATOMIC_ACQUIRE))
            continue;
        __atomic_store_n(&slots[i].faults, 0, __ATOMIC_RELAXED);
        __atomic_fetch_add(&slots[i].changes, 1, __ATOMIC_RELAXED);
        __atomic_store_n(&slots[i].start, (uintptr_t)address, __ATOMIC_RELEASE);
        __atomic_store_n(&slots[i].length, length, __ATOMIC_RELEASE);
        uint32_t seen = __atomic_load_n(&used, __ATOMIC_ACQUIRE);
        while (seen < i + 1 && !__atomic_compare_exchange_n(&used, &seen, i + 1, 0,
                                                            __ATOMIC_ACQ_REL, __ATOMIC_ACQUIRE))
            ;
        return (int)i;
    }
    return -ENOSPC;
}

void shim_sigbus_unguard(int slot) {
    if (slot < 0 || slot >= SLOTS)
        return;
    __atomic_store_n(&slots[slot].length, 0, __ATOMIC_RELEASE);
    __atomic_store_n(&slots[slot].taken, 0, __ATOMIC_RELEASE);
}

uint32_t shim_sigbus_faults(int slot) {
    if (slot < 0 || slot >= SLOTS)
        return 0;
    return __atomic_load_n(&slots[slot].faults, __ATOMIC_ACQUIRE);
}
