# shellcheck shell=bash
# lib.sh: what every scenario of tools/rig needs; sourced, never run.
#
# A scenario calls `begin ID LIMIT`, does its work through the functions below and ends with
# `pass FIGURE`, `fail REASON` or `skip REASON`. Whatever way it ends (a signal and the time limit
# included), the processes it started are ended by their ids, its network namespaces and its
# folder are removed, and the last line it prints is `ID: pass|fail|skip: …`; exit status 0, 1, 77.
#
# The program under test is $VHOST_PCI or, if that is unset, the release build of this tree.
# RIG_BACKEND=dpdk puts DPDK's vhost back-end in its place: a check of the rig itself.
# RIG_KEEP=1 keeps the folder with every log.

set -euo pipefail
export LC_ALL=C
rig_folder=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
repository=$(cd "$rig_folder/../.." && pwd)

scenario='' work='' restore_pages='' watchdog='' verdict=''
namespaces=()
folders=() # to be removed beside $work
declare -A pid_of

# begin ID LIMIT: limit in seconds for the whole scenario
begin() {
    scenario=$1
    work=$(mktemp -d "${TMPDIR:-/tmp}/vhost-pci-rig.XXXXXX")
    trap finish EXIT
    trap 'fail "interrupted"' INT
    trap 'fail "not done after the time limit"' TERM
    trap '' PIPE # a program that dies must show as that, not end the scenario
    (
        # Descriptors of the scenario must not live on here: a closed pipe would not look closed.
        exec </dev/null >/dev/null 2>&1
        nap=
        trap 'kill "$nap"; exit 0' TERM
        for ((second = 0; second < $2; second++)); do
            sleep 1 &
            nap=$!
            wait "$nap"
            kill -0 $$ || exit 0
        done
        kill -TERM $$
    ) &
    watchdog=$!
    cd "$repository"
}

finish() {
    local status=$? name namespace
    # A child that a signal meets before it has become something else must not clean up for us.
    [ "$BASHPID" = $$ ] || exit
    trap '' INT TERM
    for name in "${!pid_of[@]}"; do
        kill -KILL "${pid_of[$name]}" 2>/dev/null || true
        wait "${pid_of[$name]}" 2>/dev/null || true
    done
    [ -z "$watchdog" ] || kill "$watchdog" 2>/dev/null || true
    for namespace in ${namespaces[@]+"${namespaces[@]}"}; do
        ip netns delete "$namespace" 2>/dev/null || true
    done
    if [ -z "$verdict" ]; then
        verdict="fail: ended with status $status before a verdict"
        status=1
    fi
    case $verdict in fail:*) show_logs ;; esac
    if [ -n "$restore_pages" ]; then echo "$restore_pages" >/proc/sys/vm/nr_hugepages; fi
    [ ${#folders[@]} = 0 ] || rm -rf "${folders[@]}"
    if [ "${RIG_KEEP:-}" = 1 ]; then
        echo "kept: $work"
    else
        rm -rf "$work"
    fi
    [ "$verdict" = none ] || echo "$scenario: $verdict"
    exit "$status"
}

pass() { verdict="pass: $*" && exit 0; }
fail() { verdict="fail: $*" && exit 1; }
skip() { verdict="skip: $*" && exit 77; }
finished() { verdict=none && exit 0; } # for what is no scenario: clean up and say nothing
note() { echo "$scenario: $*"; }

# Beginning and end of all logs, for a reader who has only this output.
show_logs() {
    local file
    for file in "$work"/*.out "$work"/*.err "$work"/*.console; do
        [ -s "$file" ] || continue
        echo "--- $(basename "$file")"
        awk '{ line[NR] = substr($0, 1, 240) }
            END {
                for (i = 1; i <= NR; i++) {
                    if (i <= 15 || i > NR - 25) print line[i]
                    else if (i == 16) print "…"
                }
            }' "$file"
    done
}

# need PROGRAM…: installs the rig's packages when one is missing; skips when that does not help
need() {
    local program
    for program in "$@"; do
        command -v "$program" >/dev/null && continue
        "$repository/tools/install-packages" rig || true
        command -v "$program" >/dev/null || skip "no $program here"
    done
}

need_root() {
    [ "$(id -u)" = 0 ] || skip "needs root $*"
}

# our_program: sets `program`, building it when it is not there
our_program() {
    program=${VHOST_PCI:-}
    if [ -z "$program" ]; then
        program=$repository/.build/release/vhost-pci
        if [ ! -x "$program" ]; then
            note "building the program"
            swift build --package-path "$repository" -c release --product vhost-pci \
                >"$work/build.out" 2>&1 || fail "the program does not build"
        fi
    fi
    [ -x "$program" ] || fail "no program at $program"
}

# spawn NAME COMMAND…: in the background, output to NAME.out and NAME.err in $work, standard input
# from /dev/null unless NAME.in exists there. The kernel kills it when this shell dies, however.
spawn() {
    local name=$1 input=/dev/null
    shift
    [ ! -p "$work/$name.in" ] || input=$work/$name.in
    # Here, not in the background: who looks next must not find what an earlier one of that name said.
    : >"$work/$name.out" 2>"$work/$name.err"
    setpriv --pdeathsig KILL "$@" <"$input" >"$work/$name.out" 2>"$work/$name.err" &
    pid_of[$name]=$!
}

alive() { [ -n "${pid_of[$1]:-}" ] && kill -0 "${pid_of[$1]}" 2>/dev/null; }

# await_end NAME SECONDS: waits for a process to end by itself; sets `ended` to its status
# shellcheck disable=SC2034 # for the caller
await_end() {
    local name=$1 until=$((SECONDS + $2))
    while alive "$name"; do
        [ "$SECONDS" -lt "$until" ] || return 1
        sleep 0.05
    done
    ended=0
    wait "${pid_of[$name]}" 2>/dev/null || ended=$?
    unset "pid_of[$name]"
}

# finish_off NAME: SIGKILL, and reaped
finish_off() {
    kill -KILL "${pid_of[$1]}" 2>/dev/null || true
    wait "${pid_of[$1]}" 2>/dev/null || true
    unset "pid_of[$1]"
}

# await_line FILE PATTERN SECONDS [NAME]: until a line of the file matches; fails early when process
# NAME has died
await_line() {
    local until=$((SECONDS + $3))
    until grep -qE "$2" "$1" 2>/dev/null; do
        [ "$SECONDS" -lt "$until" ] || return 1
        if [ -n "${4:-}" ] && ! alive "$4"; then
            grep -qE "$2" "$1" 2>/dev/null
            return
        fi
        sleep 0.05
    done
}

await_socket() {
    local until=$((SECONDS + $2))
    until [ -S "$1" ]; do
        [ "$SECONDS" -lt "$until" ] || return 1
        sleep 0.05
    done
}

# make_namespace: sets `namespace` to a new network namespace with its loopback up. Those that a
# killed run left behind go first; the name carries the id of the process that owns it.
make_namespace() {
    local old
    need_root "for a network namespace"
    while read -r old _; do
        case $old in
        vhost-pci-rig-*) [ -d "/proc/${old##*-}" ] || ip netns delete "$old" || true ;;
        esac
    done < <(ip netns list)
    namespace=vhost-pci-rig-$$
    ip netns add "$namespace" || skip "cannot make a network namespace"
    namespaces+=("$namespace")
    ip -n "$namespace" link set lo up
}

# make_memory_folder: sets `memory_folder` to a new folder of files in memory. Those of killed runs go
# first, as with namespaces: what is in them is as good as lost to the machine.
make_memory_folder() {
    local old
    [ -d /dev/shm ] || skip "no /dev/shm"
    for old in /dev/shm/vhost-pci-rig-*; do
        [ -d "/proc/${old##*-}" ] || rm -rf "$old"
    done
    memory_folder=/dev/shm/vhost-pci-rig-$$
    mkdir -m 700 "$memory_folder" || skip "cannot make a folder in /dev/shm"
    folders+=("$memory_folder")
}

# inside COMMAND…: runs it in the namespace (exec: its process id is the one we know)
inside() { ip netns exec "$namespace" "$@"; }

# need_huge_pages COUNT: that many free ones of 2 MiB, or there is nothing to be done here
need_huge_pages() {
    [ "$(free_huge_pages)" -ge "$1" ] || need_root "to reserve huge pages"
    reserve_huge_pages "$1" || skip "only $(free_huge_pages) of $1 huge pages can be had"
}

# reserve_huge_pages COUNT: that many free ones, until the end if they are not there; 1 if that fails
reserve_huge_pages() {
    local total
    [ "$(free_huge_pages)" -lt "$1" ] || return 0
    total=$(cat /proc/sys/vm/nr_hugepages)
    restore_pages=$total
    echo $((total + $1)) >/proc/sys/vm/nr_hugepages || return 1
    [ "$(free_huge_pages)" -ge "$1" ]
}

free_huge_pages() { awk '/^HugePages_Free/ { print $2 }' /proc/meminfo; }
