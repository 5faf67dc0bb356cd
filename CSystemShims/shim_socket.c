#define _GNU_SOURCE
#include "include/shim_socket.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

int64_t shim_receive(int socket, void *into, size_t length, int *descriptors, int *descriptor_count,
                     int *truncated) {
    union {
        struct cmsghdr align;
        char bytes[CMSG_SPACE(SHIM_MAX_DESCRIPTORS * sizeof(int))];
    } control;
    struct iovec part = {into, length};
    struct msghdr message = {.msg_iov = &part, .msg_iovlen = 1, .msg_control = control.bytes,
                             .msg_controllen = sizeof control.bytes};
    *descriptor_count = 0;
    *truncated = 0;
    ssize_t count;
    do
        count = recvmsg(socket, &message, MSG_CMSG_CLOEXEC | MSG_DONTWAIT);
    while (count < 0 && errno == EINTR);
    if (count < 0)
        return -errno;
    *truncated = (message.msg_flags & MSG_CTRUNC) != 0;
    for (struct cmsghdr *c = CMSG_FIRSTHDR(&message); c; c = CMSG_NXTHDR(&message, c)) {
        if (c->cmsg_level != SOL_SOCKET || c->cmsg_type != SCM_RIGHTS)
            continue;
        size_t n = (c->cmsg_len - CMSG_LEN(0)) / sizeof(int);
        for (size_t i = 0; i < n; i++) {
            int fd;
            memcpy(&fd, CMSG_DATA(c) + i * sizeof(int), sizeof fd);
            if (*descriptor_count < SHIM_MAX_DESCRIPTORS)
                descriptors[(*descriptor_count)++] = fd;
            else
                close(fd);
        }
    }
    return count;
}

int64_t shim_send(int socket, const void *first, size_t first_length, const void *second,
                  size_t second_length, const int *descriptors, int descriptor_count) {
    union {
        struct cmsghdr align;
        char bytes[CMSG_SPACE(SHIM_MAX_DESCRIPTORS * sizeof(int))];
    } control;
    struct iovec parts[2] = {{(void *)first, first_length}, {(void *)second, second_length}};
    struct msghdr message = {.msg_iov = parts, .msg_iovlen = second_length ? 2 : 1};
    if (descriptor_count > SHIM_MAX_DESCRIPTORS)
        return -EINVAL;
    if (descriptor_count > 0) {
        memset(&control, 0, sizeof control);
        size_t size = (size_t)descriptor_count * sizeof(int);
        message.msg_control = control.bytes;
        message.msg_controllen = CMSG_SPACE(size);
        struct cmsghdr *c = CMSG_FIRSTHDR(&message);
        c->cmsg_level = SOL_SOCKET;
        c->cmsg_type = SCM_RIGHTS;
        c->cmsg_len = CMSG_LEN(size);
        memcpy(CMSG_DATA(c), descriptors, size);
    }
    ssize_t count;
    do
        count = sendmsg(socket, &message, MSG_NOSIGNAL | MSG_DONTWAIT);
    while (count < 0 && errno == EINTR);
    return count < 0 ? -errno : count;
}

static int make_address(const char *path, struct sockaddr_un *address) {
    size_t length = strlen(path);
    if (length >= sizeof address->sun_path)
        return -ENAMETOOLONG;
    memset(address, 0, sizeof *address);
    address->sun_family = AF_UNIX;
    memcpy(address->sun_path, path, length);
    return 0;
}

// A socket at a path, through `use`: the descriptor or -errno.
static int open_at(const char *path, int (*use)(int, const struct sockaddr_un *, int, int),
                   int backlog, int mode) {
    struct sockaddr_un address;
    int error = make_address(path, &address);
    if (error)
        return error;
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0)
        return -errno;
    if (use(fd, &address, backlog, mode) < 0) {
        error = errno;
        close(fd);
        return -error;
    }
    return fd;
}

static int listen_at(int fd, const struct sockaddr_un *address, int backlog, int mode) {
    // The mode that a socket file is made with is that of its descriptor, less the umask.
    if (mode >= 0 && fchmod(fd, (mode_t)mode) < 0)
        return -1;
    if (bind(fd, (const struct sockaddr *)address, sizeof *address) < 0)
        return -1;
    if (mode >= 0 && chmod(address->sun_path, (mode_t)mode) < 0)
        return -1;
    return listen(fd, backlog);
}
static int connect_to(int fd, const struct sockaddr_un *address, int backlog, int mode) {
    (void)backlog;
    (void)mode;
    return connect(fd, (const struct sockaddr *)address, sizeof *address);
}

int shim_listen(const char *path, int backlog, int mode) {
    return open_at(path, listen_at, backlog, mode);
}
int shim_connect(const char *path) { return open_at(path, connect_to, 0, -1); }

int shim_socket_kind(int socket) {
    int domain = 0, type = 0, listening = 0;
    socklen_t size = sizeof(int);
    if (getsockopt(socket, SOL_SOCKET, SO_DOMAIN, &domain, &size) < 0 ||
        getsockopt(socket, SOL_SOCKET, SO_TYPE, &type, &size) < 0 ||
        getsockopt(socket, SOL_SOCKET, SO_ACCEPTCONN, &listening, &size) < 0)
        return errno == EBADF ? -ENOTSOCK : -errno;
    return domain == AF_UNIX && type == SOCK_STREAM ? listening != 0 : -EPROTOTYPE;
}

int shim_accept(int listener) {
    int fd = accept4(listener, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
    return fd < 0 ? -errno : fd;
}

int shim_socket_pair(int pair[2]) {
    return socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, pair) < 0 ? -errno : 0;
}

int shim_peer_process(int socket) {
    struct ucred credentials;
    socklen_t size = sizeof credentials;
    if (getsockopt(socket, SOL_SOCKET, SO_PEERCRED, &credentials, &size) < 0)
        return -errno;
    return credentials.pid;
}

size_t shim_socket_path_limit(void) { return sizeof(((struct sockaddr_un *)0)->sun_path); }
