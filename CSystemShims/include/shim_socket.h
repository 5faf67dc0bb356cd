// Unix stream sockets that carry descriptors; CMSG_* are macros and msghdr is awkward to build.
#ifndef SHIM_SOCKET_H
#define SHIM_SOCKET_H

#include <stddef.h>
#include <stdint.h>

/// Most descriptors one message may carry here (vhost-user sends at most 8, vfio-user clients 16).
#define SHIM_MAX_DESCRIPTORS 32

/// Reads up to `length` bytes and up to SHIM_MAX_DESCRIPTORS descriptors (close-on-exec).
/// Returns the byte count (0: end of stream) or -errno; `*descriptor_count` and `*truncated` (the
/// kernel dropped ancillary data) are set whatever comes back.
/// Waits for nothing.
int64_t shim_receive(int socket, void *into, size_t length, int *descriptors, int *descriptor_count,
                     int *truncated);
/// Sends two runs of bytes, the second of which may be empty, with descriptors attached to the first
/// byte; the byte count or -errno. Never raises SIGPIPE.
int64_t shim_send(int socket, const void *first, size_t first_length, const void *second,
                  size_t second_length, const int *descriptors, int descriptor_count);
/// A listening, non-blocking unix stream socket bound to `path`, whose file has `mode` before the
/// first connection is possible; -1 leaves the mode to the umask.
int shim_listen(const char *path, int backlog, int mode);
/// 1 for a unix stream socket that listens, 0 for one that does not, -errno for anything else.
int shim_socket_kind(int socket);
/// Connects to `path` (blocking), then makes the socket non-blocking.
int shim_connect(const char *path);
/// accept4(2), non-blocking and close-on-exec.
int shim_accept(int listener);
/// socketpair(2) of two non-blocking unix stream sockets.
int shim_socket_pair(int pair[2]);
/// Process id of the other end (SO_PEERCRED), or -errno.
int shim_peer_process(int socket);
/// sizeof(sockaddr_un.sun_path): a path must be shorter.
size_t shim_socket_path_limit(void);

#endif
