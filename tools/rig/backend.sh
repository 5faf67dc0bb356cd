# shellcheck shell=bash
# backend.sh: the vhost-user back-end under test, ours or (RIG_BACKEND=dpdk) DPDK's in its place;
# sourced after lib.sh and dpdk.sh. Not every scenario looks at every figure:
# shellcheck disable=SC2034

backend=${RIG_BACKEND:-ours}
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
        [ -S "$socket" ] || fail "$name says that it listens, but there is no socket"
    done
}
backend_prefix=()

dpdk_backend_options=()
dpdk_backend_start() {
    local forward
    case $2 in
    sink) forward=rxonly ;;
    source) forward=txonly ;;
    echo) forward=io ;;
    *) fail "DPDK's back-end has no mode $2" ;;
    esac
    pmd_start "$1" 0 --vdev "net_vhost0,iface=$3" -- --forward-mode="$forward" \
        ${dpdk_backend_options[@]+"${dpdk_backend_options[@]}"}
    pmd_say "$1" start
    await_socket "$3" 10 || fail "DPDK's back-end has no socket"
}

# network_start SOCKET…: a switch between the sockets' peers and the TAP interface `uplink` of a
# namespace of the scenario's own, which has the address $uplink_address. DPDK has no switch: there
# each socket gets a TAP interface of its own, and the kernel bridges them.
uplink_address=10.99.0.254
network_start() {
    local socket number=0
    make_namespace
    if [ "$backend" = dpdk ]; then
        ip -n "$namespace" link add uplink type bridge
        for socket in "$@"; do
            pmd_prefix=(ip netns exec "$namespace")
            pmd_start "network$number" 0 --vdev "net_vhost0,iface=$socket" \
                --vdev "net_tap0,iface=port$number" -- --forward-mode=io
            ip -n "$namespace" link set "port$number" master uplink up
            pmd_say "network$number" start
            await_socket "$socket" 10 || fail "DPDK's back-end has no socket"
            number=$((number + 1))
        done
    else
        [ -c /dev/net/tun ] || skip "no /dev/net/tun"
        ip -n "$namespace" tuntap add dev uplink mode tap
        backend_prefix=(ip netns exec "$namespace")
        backend_options=(--uplink tap:uplink)
        backend_start network switch "$@"
    fi
    ip -n "$namespace" address add "$uplink_address/24" dev uplink
    ip -n "$namespace" link set uplink up
}

network_alive() {
    local name
    for name in "${!pid_of[@]}"; do
        case $name in network*) alive "$name" || return 1 ;; esac
    done
}

network_stop() {
    local name
    if [ "$backend" = dpdk ]; then
        for name in "${!pmd_input[@]}"; do pmd_stop "$name"; done
    else
        backend_stop network
    fi
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
