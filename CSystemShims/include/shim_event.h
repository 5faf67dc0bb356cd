// Adding to an eventfd that somebody else holds too, without ever waiting for them.
#ifndef SHIM_EVENT_H
#define SHIM_EVENT_H

/// Adds 1 to an eventfd: 0, -EAGAIN when its counter is full, -ETIMEDOUT when the call was still
/// blocked after 20 to 40 ms, or another -errno.
///
/// O_NONBLOCK belongs to the open file, which whoever gave us the descriptor shares: they can clear
/// it and fill the counter between any check and the write. eventfd has no write that refuses to
/// wait by itself (RWF_NOWAIT is not supported), so a guard thread, started by the first call,
/// interrupts a call that does not come back, with SIGURG. The call that is not blocked pays two
/// plain stores for it.
int shim_event_add(int fd);

#endif
