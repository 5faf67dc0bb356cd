// reader SOCKET REGION COUNT: reads 4 bytes at offset 0 of a region of a vfio-user device, COUNT times after a
// tenth as many that do not count, the plainest way there is: one send and two receives that block. Prints
// "p50=… p99=… min=…" in nanoseconds.
#define _GNU_SOURCE
#include <err.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>

struct header {
    uint16_t id, command;
    uint32_t size, flags, error;
};

struct region_read {
    struct header header;
    uint64_t offset;
    uint32_t region, count;
};

enum { command_version = 1, command_region_read = 9, flag_error = 1 << 5 };

static const char capabilities[] = "{\"capabilities\":{\"max_msg_fds\":8}}";

static void receive(int socket, void *into, size_t count) {
    for (size_t have = 0; have < count;) {
        ssize_t got = recv(socket, (char *)into + have, count - have, 0);
        if (got <= 0)
            err(1, "receive");
        have += (size_t)got;
    }
}

// One reply: its payload's length.
static size_t hear(int socket, char *payload, size_t room) {
    struct header header;
    receive(socket, &header, sizeof header);
    if (header.flags & flag_error)
        errx(1, "command %u: error %u", header.command, header.error);
    if (header.size < sizeof header || header.size - sizeof header > room)
        errx(1, "a reply of %u bytes", header.size);
    receive(socket, payload, header.size - sizeof header);
    return header.size - sizeof header;
}

static void say(int socket, const void *bytes, size_t count) {
    if (send(socket, bytes, count, MSG_NOSIGNAL) != (ssize_t)count)
        err(1, "send");
}

static void negotiate(int socket, char *payload, size_t room) {
    struct {
        struct header header;
        uint16_t major, minor;
        char capabilities[sizeof capabilities];
    } proposal = {.header = {.command = command_version}, .minor = 1};
    proposal.header.size = sizeof proposal.header + 4 + sizeof capabilities;
    memcpy(proposal.capabilities, capabilities, sizeof capabilities);
    say(socket, &proposal, proposal.header.size);
    hear(socket, payload, room);
}

static uint64_t now(void) {
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return (uint64_t)time.tv_sec * 1000000000 + (uint64_t)time.tv_nsec;
}

static int ascending(const void *one, const void *other) {
    uint64_t a = *(const uint64_t *)one, b = *(const uint64_t *)other;
    return (a > b) - (a < b);
}

int main(int count, char **arguments) {
    char payload[4096];
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    size_t reads = count == 4 ? strtoul(arguments[3], NULL, 10) : 0;
    if (reads == 0 || strlen(arguments[1]) >= sizeof address.sun_path)
        errx(2, "usage: reader SOCKET REGION COUNT");
    strcpy(address.sun_path, arguments[1]);
    int device = socket(AF_UNIX, SOCK_STREAM, 0);
    if (device < 0 || connect(device, (struct sockaddr *)&address, sizeof address) < 0)
        err(1, "%s", arguments[1]);
    negotiate(device, payload, sizeof payload);

    struct region_read request = {.header = {.command = command_region_read, .size = sizeof request},
                                  .region = (uint32_t)strtoul(arguments[2], NULL, 10),
                                  .count = 4};
    uint64_t *taken = calloc(reads, sizeof *taken);
    if (!taken)
        err(1, "memory for %zu times", reads);
    for (size_t warm = 0; warm < reads / 10; warm++) {
        say(device, &request, sizeof request);
        hear(device, payload, sizeof payload);
    }
    for (size_t i = 0; i < reads; i++) {
        uint64_t start = now();
        request.header.id = (uint16_t)i;
        say(device, &request, sizeof request);
        if (hear(device, payload, sizeof payload) != 20)
            errx(1, "not the bytes that were asked for");
        taken[i] = now() - start;
    }
    qsort(taken, reads, sizeof *taken, ascending);
    printf("p50=%ju p99=%ju min=%ju\n", (uintmax_t)taken[reads / 2], (uintmax_t)taken[reads * 99 / 100],
           (uintmax_t)taken[0]);
    return 0;
}
