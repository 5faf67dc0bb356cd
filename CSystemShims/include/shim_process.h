// Signals and child processes: sigaction and wait-status macros do not import.
#ifndef SHIM_PROCESS_H
#define SHIM_PROCESS_H

/// Blocks SIGINT and SIGTERM for the whole process, and SIGHUP where it is not ignored (nohup), and
/// returns a signalfd that reports them.
int shim_termination_signals(void);
/// Keeps SIGINT, SIGTERM and SIGHUP from this thread until they are released; they wait meanwhile.
/// Returns 0 or -errno.
int shim_hold_terminations(void);
/// Lets them through again. Returns 0 or -errno.
int shim_release_terminations(void);
/// Next signal number pending on that descriptor, 0 when there is none, or -errno.
int shim_next_signal(int signal_descriptor);
/// Opens /dev/null where descriptor 0, 1 or 2 is closed: otherwise an eventfd or a socket gets that
/// number, and what is meant for people is written into it. Returns 0 or -errno.
int shim_open_standard_streams(void);
/// Columns of the terminal behind a descriptor, 0 where nobody knows, or -errno.
int shim_terminal_columns(int descriptor);
/// Ignores SIGPIPE for the whole process.
void shim_ignore_broken_pipes(void);
/// Asks the kernel to send `signal` to this process when its parent ends (PR_SET_PDEATHSIG).
int shim_die_with_parent(int signal);
/// Starts `path` with `arguments` (NULL-terminated). The child gets an empty signal mask, keeps
/// standard error, has its standard output on `output` and /dev/null as input; all other
/// descriptors are close-on-exec. Returns the pid or -errno.
int shim_spawn(const char *path, char *const arguments[], int output);
/// pipe2(2), both ends non-blocking and close-on-exec: `ends[0]` reads, `ends[1]` writes.
int shim_pipe(int ends[2]);
/// waitpid(WNOHANG): 1 and `*status` (exit code, or 128 + signal) when it ended, 0 when not yet.
int shim_reap(int pid, int *status);

#endif
