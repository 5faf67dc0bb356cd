// Containment of SIGBUS: a peer that truncates the file behind its memory must not end us.
#ifndef SHIM_SIGBUS_H
#define SHIM_SIGBUS_H

#include <stddef.h>
#include <stdint.h>

/// Installs the handler (once). A fault inside a guarded range maps zero pages over that whole
/// range, counts it, and lets the thread go on; any other SIGBUS ends the process as before.
int shim_sigbus_install(void);
/// Adds a range; returns its slot (>= 0) or -ENOSPC.
int shim_sigbus_guard(void *address, size_t length);
/// Removes the range of a slot.
void shim_sigbus_unguard(int slot);
/// Faults caught in a slot's range since it was guarded.
uint32_t shim_sigbus_faults(int slot);

#endif
