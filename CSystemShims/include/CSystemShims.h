// C that Swift cannot say: inline atomics and volatile access, variadic system calls, SCM_RIGHTS
// macros, signal handlers, and the two C libraries (libpci, libnuma) behind a narrow face.
// Every function either is a static inline or returns a value >= 0 or -errno; none keeps state for
// its caller, logs, or allocates something the caller must free, except where its comment says so.
#ifndef CSYSTEMSHIMS_H
#define CSYSTEMSHIMS_H

#include "shim_atomics.h"
#include "shim_cpu.h"
#include "shim_event.h"
#include "shim_interface.h"
#include "shim_mmio.h"
#include "shim_numa.h"
#include "shim_pci.h"
#include "shim_process.h"
#include "shim_sigbus.h"
#include "shim_socket.h"
#include "shim_system.h"
#include "shim_vfio.h"

#endif
