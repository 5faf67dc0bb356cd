# shellcheck shell=bash
# backend.sh: the vhost-user back-end under test, ours or (RIG_BACKEND=dpdk) DPDK's in its place;
# sourced after lib.sh and dpdk.sh.

last_cpu=$(($(nproc) - 1))

# backend_start NAME MODE SOCKET…: until every socket listens. Our worker polls CPU 0, so that a
# front-end may have the last one. Extra arguments for our program come from `backend_options`.
backend_options=()
backend_start() {
    local name=$1 mode=$2 socket arguments=()
    shift 2
    if [ "$backend" = dpdk ]; then
        dpdk_backend_start "$name" "$mode" "$1"
        return
    fi
    for socket in "$@"; do arguments+=(--peer "$socket"); done
    our_program
    spawn "$name" ${backend_prefix[@]+"${backend_prefix[@]}"} "$program" run --json --mode "$mode" \
        --cores 0 "${arguments[@]}" ${backend_options[@]+"${backend_options[@]}"}
    for socket in "$@"; do
        await_line "$work/$name.err" "listening on $socket" 20 "$name" ||
            fail "$name does not say that it listens on its socket"
    done
}
backend_prefix=()

dpdk_backend_start() {
    local forward
    case $2 in
    sink) forward=rxonly ;;
    source) forward=txonly ;;
    echo) forward=io ;;
    *) fail "DPDK's back-end has no mode $2" ;;
    esac
    pmd_start "$1" 0 --vdev "net_vhost0,iface=$3" -- --forward-mode="$forward"
    pmd_say "$1" start
    await_socket "$3" 10 || fail "DPDK's back-end has no socket"
}

# backend_stop NAME: ends it the polite way and reads its figures: taken_packets, taken_bytes (out of
# the peers' transmit rings) and given_packets, given_bytes (into their receive rings), lost_packets.
backend_stop() {
    local name=$1
    if [ "$backend" = dpdk ]; then
        pmd_counts "$name" 0
        taken_packets=$rx_packets taken_bytes=$rx_bytes
        given_packets=$tx_packets given_bytes=$tx_bytes lost_packets=0
        pmd_stop "$name"
        return
    fi
    alive "$name" || fail "$name ended before it was asked to"
    kill -TERM "${pid_of[$name]}"
    await_end "$name" 15 || fail "$name does not end on SIGTERM"
    [ "$ended" = 0 ] || fail "$name ended with status $ended"
    read -r taken_packets taken_bytes given_packets given_bytes lost_packets < <(
        jq -r '[.ports[] | select(.kind == "peer")] | [
            (map(.received.packets // 0) | add), (map(.received.bytes // 0) | add),
            (map(.transmitted.packets // 0) | add), (map(.transmitted.bytes // 0) | add),
            (map(.lost // 0) | add)] | map(. // 0) | @tsv' "$work/$name.out"
    ) || fail "$name printed no JSON object"
    [ "$(jq -r .verdict "$work/$name.out")" = ok ] ||
        fail "$name: $(jq -c '[.verdict, .reasons]' "$work/$name.out")"
}
