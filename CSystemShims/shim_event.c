#define _GNU_SOURCE
#include "include/shim_event.h"

#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

enum { TICK_NANOSECONDS = 20 * 1000 * 1000 };

// One per thread that ever signalled, freed when that thread ends.
struct writer {
    struct writer *next;
    pid_t thread;
    uint32_t turn;    // odd inside the system call; written by its thread
    uint32_t seen;    // what the guard read a tick ago; the guard's own
    uint32_t expired; // the turn that was interrupted; written by the guard
};

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER; // the list, and that its threads live
static struct writer *writers;
static pthread_once_t once = PTHREAD_ONCE_INIT;
static int start_error;
static pthread_key_t key;
static _Thread_local struct writer *mine;

static void on_interrupt(int number) { (void)number; }

static void *watch(void *unused) {
    (void)unused;
    // Whoever signalled first may be a worker bound to one core: this thread must not share it.
    cpu_set_t cores;
    if (sched_getaffinity(getpid(), sizeof cores, &cores) == 0)
        sched_setaffinity(0, sizeof cores, &cores);
    const struct timespec tick = {0, TICK_NANOSECONDS};
    for (;;) {
        clock_nanosleep(CLOCK_MONOTONIC, 0, &tick, NULL);
        pthread_mutex_lock(&lock);
        for (struct writer *each = writers; each; each = each->next) {
            uint32_t turn = __atomic_load_n(&each->turn, __ATOMIC_RELAXED);
            if ((turn & 1) && turn == each->seen) {
                __atomic_store_n(&each->expired, turn, __ATOMIC_RELAXED);
                // Repeated at every tick: a signal that comes before the thread sleeps is lost.
                syscall(SYS_tgkill, getpid(), each->thread, SIGURG);
            }
            each->seen = turn;
        }
        pthread_mutex_unlock(&lock);
    }
    return NULL;
}

static void leave(void *writer) {
    pthread_mutex_lock(&lock);
    struct writer **link = &writers;
    while (*link != writer)
        link = &(*link)->next;
    *link = (*link)->next;
    pthread_mutex_unlock(&lock);
    mine = NULL;
    free(writer);
}

static void start(void) {
    // Without SA_RESTART: the interrupted write must come back. SIGURG is ignored by default, so
    // nothing breaks if it reaches a thread that just left the call.
    struct sigaction action;
    memset(&action, 0, sizeof action);
    action.sa_handler = on_interrupt;
    if (sigaction(SIGURG, &action, NULL) < 0) {
        start_error = errno;
        return;
    }
    start_error = pthread_key_create(&key, leave);
    if (start_error)
        return;
    // The guard takes no signals: those of the process are for the threads that expect them.
    sigset_t all, before;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    pthread_t guard;
    start_error = pthread_create(&guard, NULL, watch, NULL);
    if (!start_error) {
        pthread_setname_np(guard, "event-guard");
        pthread_detach(guard);
    }
    pthread_sigmask(SIG_SETMASK, &before, NULL);
}

// Enrols the calling thread with the guard, at its first signal: 0 or -errno. Kept out of line, so
// that tools/check-hot-path can name it as what the packet path calls once per thread.
__attribute__((noinline, cold)) static int shim_event_enrol(void) {
    pthread_once(&once, start);
    if (start_error)
        return -start_error;
    sigset_t interrupt;
    sigemptyset(&interrupt);
    sigaddset(&interrupt, SIGURG);
    pthread_sigmask(SIG_UNBLOCK, &interrupt, NULL);
    struct writer *writer = calloc(1, sizeof *writer);
    if (!writer)
        return -ENOMEM;
    writer->thread = (pid_t)syscall(SYS_gettid);
    int error = pthread_setspecific(key, writer);
    if (error) {
        free(writer);
        return -error;
    }
    pthread_mutex_lock(&lock);
    writer->next = writers;
    writers = writer;
    pthread_mutex_unlock(&lock);
    mine = writer;
    return 0;
}

int shim_event_add(int fd) {
    if (!mine) {
        int error = shim_event_enrol();
        if (error)
            return error;
    }
    struct writer *me = mine;
    const uint64_t one = 1;
    uint32_t turn = me->turn + 1;
    ssize_t count;
    __atomic_store_n(&me->turn, turn, __ATOMIC_RELAXED);
    do
        count = write(fd, &one, sizeof one);
    while (count < 0 && errno == EINTR &&
           __atomic_load_n(&me->expired, __ATOMIC_RELAXED) != turn);
    int error = count == sizeof one ? 0 : count >= 0 ? EIO : errno == EINTR ? ETIMEDOUT : errno;
    __atomic_store_n(&me->turn, turn + 1, __ATOMIC_RELAXED);
    return -error;
}
