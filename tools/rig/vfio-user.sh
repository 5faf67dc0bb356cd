# shellcheck shell=bash
# vfio-user.sh: our daemon, `vhost-pci serve`, and the guest `m` that has its devices over vfio-user;
# sourced after lib.sh, kernel.sh, guest.sh, vfio.sh and qemu.sh.

# serve_start DEVICE…: the daemon as process `serve`, each device as in its configuration; a command in
# `serve_prefix` goes before it, `serve_uplinks` are those of its switch. Its worker polls CPU 0 and
# sleeps when nothing comes: guests need the processors too.
serve_prefix=() serve_uplinks=''
serve_start() {
    {
        echo "control: $work/control"
        echo "data-plane: {cores: [0], idle: sleep, uplinks: [$serve_uplinks]}"
        echo "devices:"
        printf '  - {%s}\n' "$@"
    } >"$work/serve.yaml"
    our_program
    spawn serve ${serve_prefix[@]+"${serve_prefix[@]}"} "$program" serve --config "$work/serve.yaml"
    serve_listens "$work/control" 20
}

# serve_listens SOCKET SECONDS: until the daemon says so
serve_listens() {
    await_line "$work/serve.out" "listening on $1\$" "$2" serve || fail "the daemon does not listen on $(basename "$1")"
}

# peer_device: a vhost-pci-net device as serve_start takes it, for machine 1
peer_device() { echo "name: m1, kind: vhost-pci-net, vhost-user: $work/m1.peer, vfio-user: $work/m1"; }

# serve_stop: the polite way, within 5 s; its sockets are gone then
serve_stop() {
    local path
    alive serve || fail "the daemon ended before it was asked to"
    kill -TERM "${pid_of[serve]}"
    await_end serve 5 || fail "the daemon does not end within 5 s of SIGTERM"
    [ "$ended" = 0 ] || fail "the daemon ended with status $ended"
    for path in $(sed -n 's/.*listening on //p' "$work/serve.out"); do
        [ ! -e "$path" ] || fail "the daemon left $(basename "$path") behind"
    done
}

# idle_peer: DPDK's driver behind the vhost-pci-net of `peer_device`, which is there when it knows whose
# memory it shows
idle_peer() {
    need dpdk-testpmd jq
    pmd_start peer "$(($(nproc) - 1))" --vdev "net_virtio_user0,path=$work/m1.peer" -- --forward-mode=rxonly
    serve_listens "$work/m1" 20
}

# nested_prepare: QEMU, and kernel 6.12 with our program for machine 2
nested_prepare() {
    qemu_take
    vfio_prepare 6.12
}

# machines_prepare: for machine 1, a stock Linux guest with a virtio-net device, as well
machines_prepare() {
    qemu_take
    guest_prepare
    one_kernel=$kernel_folder one_initramfs=$initramfs
    vfio_prepare 6.12
    two_kernel=$kernel_folder two_initramfs=$initramfs
    guest_reconnects=,reconnect-ms=500
}
one_address=10.99.0.1 two_address=10.99.0.2

# one_start: machine 1, guest `a`, on the socket $work/m1.peer
one_start() {
    kernel_folder=$one_kernel initramfs=$one_initramfs
    guest_start a "$work/m1.peer" "$one_address/24" 1
}

# two_start [SOCKET…]: machine 2, guest `m`, with a function for each socket and an empty port; its
# interface is a TAP of its own
# shellcheck disable=SC2120 # most have none
two_start() {
    kernel_folder=$two_kernel initramfs=$two_initramfs
    nested_start "load=vfio-pci,tun" "$@"
}

# two_joins: machine 2 gets the device whose BAR is machine 1's memory, and works machine 1's rings;
# its TAP interface is the other end
two_joins() {
    local status=0
    joined=$(tools/attach-qemu "$work/m.qmp" "$work/m1" --wait 30 2>&1) || fail "$joined"
    device=${joined%% *}
    must 30 "vhost-pci device bind $device --driver vfio-pci"
    # The same address each time: machine 1 shall not have to find out that it is another one.
    must 10 "tunctl -t uplink >/dev/null && ip link set uplink address 52:54:00:00:00:02 && ip address add $two_address/24 dev uplink && ip link set uplink up"
    must 10 "vhost-pci run --device $device --uplink tap:uplink --idle sleep --json >/tmp/run 2>/tmp/run.err & runner=\$!"
    guest_do m 30 "for try in \$(seq 200); do grep -q ' ON, ' /tmp/run.err && break; sleep 0.1; done; grep ' ON, ' /tmp/run.err" || status=$?
    [ "$status" = 0 ] || { guest_do m 10 "tail -n 5 /tmp/run.err" || true; fail "the driver in machine 2 does not connect: $reply"; }
}
joined='' device=''

# nested_start WORDS SOCKET… [-- ARGUMENT…]: boots guest `m`, one function per socket, as 0000:01:00.0,
# 0000:02:00.0 and so on, behind ports with room for a large BAR; one more port, `spare`, is empty. QMP is
# at $work/m.qmp. The memory is shared, or every access of a device would be a message; caching-mode, or
# what the guest maps in its IOMMU would not reach the devices. QEMU gives an answer 5 s and after that
# never recovers: on a busy machine that is too little. The firmware puts windows of 64 bits at the
# top of the addresses, where QEMU keeps a range reserved if the CPU is AMD's; nothing that is plugged in
# later would fit there.
nested_timeout=20000
nested_start() {
    local words=$1 number=1 machine machine_words
    shift
    iommu_machine iommu
    while [ $# -gt 0 ] && [ "$1" != -- ]; do
        nested_function "$1" "$number"
        number=$((number + 1))
        shift
    done
    [ $# = 0 ] || shift
    nested_port spare "$number"
    # What drivers of the kernel map would go to the device page by page, hence `iommu=pt`.
    guest_boot m "ipv6.disable=1 $machine_words iommu=pt $words" "${machine[@]}" -smp 2 -m 768 \
        -cpu max,vendor=GenuineIntel \
        -object memory-backend-memfd,id=memory,size=768M,share=on -machine memory-backend=memory \
        -qmp "unix:$work/m.qmp,server=on,wait=off" "$@"
}

# nested_function SOCKET NUMBER [PROPERTY]: behind a port of its own; further properties as in JSON
nested_function() {
    nested_port "port$2" "$2"
    machine+=(-device "{\"driver\": \"vfio-user-pci\", \"id\": \"device$2\", \"bus\": \"port$2\",
        \"x-msg-timeout\": $nested_timeout, \"socket\": {\"type\": \"unix\", \"path\": \"$1\"}${3:+, $3}}")
}

nested_port() {
    machine+=(-device "pcie-root-port,id=$1,chassis=$2,slot=$2,pref64-reserve=1G")
}

# nested_reset: as by the machine's button, until it is up again
nested_reset() {
    local ready until=$((SECONDS + 120))
    ready=$(grep -c '^@@ ready' "$work/m.reply.out")
    "$rig_folder/qmp" "$work/m.qmp" 'set-action {"reboot": "reset"}' system_reset 2>"$work/reset.err" ||
        fail "QEMU does not reset the machine: $(cat "$work/reset.err")"
    until [ "$(grep -c '^@@ ready' "$work/m.reply.out")" -gt "$ready" ]; do
        alive m && [ "$SECONDS" -lt "$until" ] || fail "the machine does not come up after its reset"
        sleep 0.05
    done
}

# nested_await: until it is up
nested_await() { guest_await m 120; }
