#define _GNU_SOURCE
#include "include/shim_system.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/if.h>
#include <linux/if_tun.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/file.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <sys/vfs.h>
#include <stdio.h>
#include <time.h>
#include <unistd.h>

#ifndef MFD_HUGE_SHIFT
#define MFD_HUGE_SHIFT 26
#endif

// linux/magic.h
#define HUGETLBFS_MAGIC 0x958458f6

static int result(int value) { return value < 0 ? -errno : value; }

int shim_memfd_create(const char *name, unsigned huge_page_shift) {
    unsigned flags = MFD_CLOEXEC | MFD_ALLOW_SEALING;
    if (huge_page_shift)
        flags |= MFD_HUGETLB | (huge_page_shift << MFD_HUGE_SHIFT);
    return result(memfd_create(name, flags));
}
int shim_memfd_seal_size(int fd) {
    return result(fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL));
}
int shim_memfd_seals(int fd) { return result(fcntl(fd, F_GET_SEALS)); }
int shim_seal_shrink(void) { return F_SEAL_SHRINK; }

int shim_map_file(void *fixed, size_t length, int fd, uint64_t offset, int writable, int populate,
                  void **out) {
    int protection = PROT_READ | (writable ? PROT_WRITE : 0);
    int flags = MAP_SHARED | (fixed ? MAP_FIXED : 0) | (populate ? MAP_POPULATE : 0);
    void *address = mmap(fixed, length, protection, flags, fd, (off_t)offset);
    if (address == MAP_FAILED)
        return -errno;
    *out = address;
    return 0;
}
int shim_map_anonymous(void *fixed, size_t length, void **out) {
    int flags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | (fixed ? MAP_FIXED : 0);
    void *address = mmap(fixed, length, PROT_READ | PROT_WRITE, flags, -1, 0);
    if (address == MAP_FAILED)
        return -errno;
    *out = address;
    return 0;
}
int shim_unmap(void *address, size_t length) { return result(munmap(address, length)); }

int shim_eventfd(void) { return result(eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC)); }

int shim_is_eventfd(int fd) {
    char path[64], target[64];
    // A path-only descriptor of an eventfd has its name but can be neither read nor polled.
    int flags = fcntl(fd, F_GETFL);
    if (flags < 0 || (flags & O_PATH) || (flags & O_ACCMODE) != O_RDWR)
        return 0;
    snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
    ssize_t length = readlink(path, target, sizeof target - 1);
    if (length < 0)
        return 0;
    target[length] = 0;
    return strcmp(target, "anon_inode:[eventfd]") == 0;
}
int shim_set_nonblocking(int fd, int on) {
    int flags = fcntl(fd, F_GETFL);
    if (flags < 0)
        return -errno;
    return result(fcntl(fd, F_SETFL, on ? flags | O_NONBLOCK : flags & ~O_NONBLOCK));
}
int shim_duplicate(int fd) { return result(fcntl(fd, F_DUPFD_CLOEXEC, 3)); }
int shim_duplicate_high(int fd) {
    struct rlimit limit;
    if (getrlimit(RLIMIT_NOFILE, &limit) < 0)
        return -errno;
    // The kernel's table of a process grows with its highest number: not too high, then.
    int least = limit.rlim_cur > 8192 ? 4096 : (int)(limit.rlim_cur / 2);
    return result(fcntl(fd, F_DUPFD_CLOEXEC, least));
}
int shim_duplicate_onto(int fd, int target) { return result(dup3(fd, target, O_CLOEXEC)); }

int shim_file_status(int fd, struct shim_file_status *out) {
    struct stat status;
    if (fstat(fd, &status) < 0)
        return -errno;
    out->size = (uint64_t)status.st_size;
    out->device = status.st_dev;
    out->inode = status.st_ino;
    out->format = status.st_mode & S_IFMT;
    out->block_size = (uint32_t)status.st_blksize;
    int flags = fcntl(fd, F_GETFL);
    if (flags < 0)
        return -errno;
    out->read_write = !(flags & O_PATH) && (flags & O_ACCMODE) == O_RDWR;
    struct statfs system;
    out->page_size = (uint32_t)sysconf(_SC_PAGESIZE);
    if (fstatfs(fd, &system) == 0 && (unsigned long)system.f_type == HUGETLBFS_MAGIC)
        out->page_size = (uint32_t)system.f_bsize;
    int seals = fcntl(fd, F_GET_SEALS);
    out->sealed = seals >= 0 && (seals & F_SEAL_SHRINK);
    return 0;
}
int64_t shim_write(int fd, const void *from, size_t length) {
    ssize_t count;
    do
        count = write(fd, from, length);
    while (count < 0 && errno == EINTR);
    return count < 0 ? -errno : count;
}
int64_t shim_read(int fd, void *into, size_t length) {
    ssize_t count;
    do
        count = read(fd, into, length);
    while (count < 0 && errno == EINTR);
    return count < 0 ? -errno : count;
}
int64_t shim_read_at_once(int fd, void *into, size_t length) {
    struct iovec part = {into, length};
    ssize_t count;
    do
        count = preadv2(fd, &part, 1, -1, RWF_NOWAIT);
    while (count < 0 && errno == EINTR);
    return count < 0 ? -errno : count;
}
int shim_open_file(const char *path, int writable) {
    return result(open(path, (writable ? O_RDWR : O_RDONLY) | O_CLOEXEC | O_NOCTTY));
}
int shim_lock_file(int fd) { return result(flock(fd, LOCK_EX | LOCK_NB)); }
int64_t shim_read_at(int fd, void *into, size_t length, uint64_t offset) {
    ssize_t count;
    do
        count = pread(fd, into, length, (off_t)offset);
    while (count < 0 && errno == EINTR);
    return count < 0 ? -errno : count;
}
int64_t shim_write_at(int fd, const void *from, size_t length, uint64_t offset) {
    ssize_t count;
    do
        count = pwrite(fd, from, length, (off_t)offset);
    while (count < 0 && errno == EINTR);
    return count < 0 ? -errno : count;
}
int64_t shim_write_gather(int fd, const void *vectors, int count) {
    ssize_t written;
    do
        written = writev(fd, vectors, count);
    while (written < 0 && errno == EINTR);
    return written < 0 ? -errno : written;
}
int shim_close(int fd) { return result(close(fd)); }
int shim_set_file_size(int fd, uint64_t size) { return result(ftruncate(fd, (off_t)size)); }

int shim_open_tap(const char *name, int virtio_header) {
    int fd = open("/dev/net/tun", O_RDWR | O_CLOEXEC | O_NONBLOCK);
    if (fd < 0)
        return -errno;
    struct ifreq request;
    memset(&request, 0, sizeof request);
    request.ifr_flags = (short)(IFF_TAP | IFF_NO_PI | (virtio_header ? IFF_VNET_HDR : 0));
    strncpy(request.ifr_name, name, IFNAMSIZ - 1);
    int header = 12, error = 0;
    if (ioctl(fd, TUNSETIFF, &request) < 0)
        error = errno;
    else if (virtio_header && ioctl(fd, TUNSETVNETHDRSZ, &header) < 0)
        error = errno;
    if (error) {
        close(fd);
        return -error;
    }
    return fd;
}
int shim_epoll_create(void) { return result(epoll_create1(EPOLL_CLOEXEC)); }

int shim_epoll_add(int epoll, int fd, uint64_t token) {
    struct epoll_event event = {.events = EPOLLIN, .data = {.u64 = token}};
    return result(epoll_ctl(epoll, EPOLL_CTL_ADD, fd, &event));
}
int shim_epoll_remove(int epoll, int fd) {
    return result(epoll_ctl(epoll, EPOLL_CTL_DEL, fd, NULL));
}
int shim_epoll_wait(int epoll, uint64_t *tokens, int limit, int milliseconds) {
    struct epoll_event events[64];
    int count = epoll_wait(epoll, events, limit < 64 ? limit : 64, milliseconds);
    if (count < 0)
        return errno == EINTR ? 0 : -errno;
    for (int i = 0; i < count; i++)
        tokens[i] = events[i].data.u64;
    return count;
}
uint64_t shim_monotonic_nanoseconds(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000000ull + (uint64_t)now.tv_nsec;
}
