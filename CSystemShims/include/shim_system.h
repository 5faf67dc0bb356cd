// System calls that are variadic, hidden behind feature macros, or return MAP_FAILED.
#ifndef SHIM_SYSTEM_H
#define SHIM_SYSTEM_H

#include <stddef.h>
#include <stdint.h>

/// memfd_create(2) with MFD_CLOEXEC|MFD_ALLOW_SEALING; `huge_page_shift` 0 for ordinary pages,
/// else log2 of the huge page size (MFD_HUGETLB).
int shim_memfd_create(const char *name, unsigned huge_page_shift);
/// fcntl(F_ADD_SEALS) with F_SEAL_SHRINK|F_SEAL_GROW, and F_SEAL_SEAL: whoever is given the file could
/// otherwise add F_SEAL_FUTURE_WRITE and keep its owner from mapping it again.
int shim_memfd_seal_size(int fd);
/// fcntl(F_GET_SEALS): the F_SEAL_* bits, or -errno when the file cannot be sealed.
int shim_memfd_seals(int fd);
/// F_SEAL_SHRINK, whose macro does not import.
int shim_seal_shrink(void);
/// mmap(2) of a shared file; `fixed` non-null replaces what is mapped there (MAP_FIXED).
/// `*out` receives the address. `writable` 0 maps read-only. `populate` faults pages in now.
int shim_map_file(void *fixed, size_t length, int fd, uint64_t offset, int writable, int populate,
                  void **out);
/// mmap(2) of private anonymous zero pages without swap reservation; `fixed` as above.
int shim_map_anonymous(void *fixed, size_t length, void **out);
int shim_unmap(void *address, size_t length);
/// eventfd(2) with EFD_NONBLOCK|EFD_CLOEXEC.
int shim_eventfd(void);
/// 1 when the descriptor is an eventfd that can be read and written, 0 when it is something else.
int shim_is_eventfd(int fd);
/// Sets or clears O_NONBLOCK.
int shim_set_nonblocking(int fd, int on);
/// fcntl(F_DUPFD_CLOEXEC) / dup3(O_CLOEXEC).
int shim_duplicate(int fd);
int shim_duplicate_onto(int fd, int target);
/// fcntl(2): a duplicate whose number is at least half of RLIMIT_NOFILE, and at most a few thousand.
int shim_duplicate_high(int fd);
/// fstat(2), fstatfs(2), fcntl(2): size, device, inode, S_IFMT bits, preferred block size, the page
/// size that a mapping must be aligned to, whether the descriptor was opened for reading and writing
/// (one opened with O_PATH was not), and whether the file is sealed against shrinking.
struct shim_file_status {
    uint64_t size;
    uint64_t device;
    uint64_t inode;
    uint32_t format;
    uint32_t block_size;
    uint32_t page_size;
    int read_write;
    int sealed;
};
int shim_file_status(int fd, struct shim_file_status *out);
/// write(2) / read(2): the count, or -errno (EINTR is retried).
int64_t shim_write(int fd, const void *from, size_t length);
int64_t shim_read(int fd, void *into, size_t length);
/// read(2) that never waits, whatever the flags of the open file: O_NONBLOCK belongs to everybody who
/// holds the file, so another process can take it away at any moment. -EAGAIN when there is nothing.
int64_t shim_read_at_once(int fd, void *into, size_t length);
/// open(2) with O_CLOEXEC|O_NOCTTY, for reading or for reading and writing.
int shim_open_file(const char *path, int writable);
/// flock(2), exclusive and without waiting, whose name is a structure's too.
int shim_lock_file(int fd);
/// pread(2) / pwrite(2): the count, or -errno (EINTR is retried).
int64_t shim_read_at(int fd, void *into, size_t length, uint64_t offset);
int64_t shim_write_at(int fd, const void *from, size_t length, uint64_t offset);
/// writev(2) of `count` struct iovec: the count, or -errno (EINTR is retried).
int64_t shim_write_gather(int fd, const void *vectors, int count);
int shim_close(int fd);
/// ftruncate(2).
int shim_set_file_size(int fd, uint64_t size);
/// Opens /dev/net/tun and attaches it to the TAP interface `name` with IFF_NO_PI, optionally with
/// the virtio-net header (IFF_VNET_HDR, 12 bytes); returns the non-blocking descriptor.
int shim_open_tap(const char *name, int virtio_header);
/// epoll(7), whose constants and packed event do not import: level-triggered readability of a
/// descriptor, reported as the caller's 64-bit token.
int shim_epoll_create(void);
int shim_epoll_add(int epoll, int fd, uint64_t token);
int shim_epoll_remove(int epoll, int fd);
/// Up to `limit` (at most 64) tokens; the count, 0 on time-out or interruption, or -errno.
int shim_epoll_wait(int epoll, uint64_t *tokens, int limit, int milliseconds);
/// Monotonic clock in nanoseconds.
uint64_t shim_monotonic_nanoseconds(void);

#endif
