# shellcheck shell=bash
# dpdk.sh: drives dpdk-testpmd through its prompt; sourced after lib.sh. Not every scenario looks at
# every figure:
# shellcheck disable=SC2034
#
# It works in 4 KiB pages of one memfd (--no-huge): slower than huge pages, but nothing of the
# machine has to be changed, and a vhost-user back-end can map it. Without --single-file-segments
# virtio_user would have more regions than SET_MEM_TABLE can carry. Who measures sets pmd_memory.

declare -A pmd_input
pmd_memory=(--no-huge --single-file-segments -m 256)

# pmd_start NAME CPU EAL-ARGUMENT… -- TESTPMD-ARGUMENT…: the forwarding thread runs on CPU, the prompt
# on another one where there is one. A command in pmd_prefix goes before it.
pmd_start() {
    local name=$1 cpu=$2 other fd
    shift 2
    other=$(((cpu + 1) % $(nproc)))
    mkfifo -m 600 "$work/$name.in"
    # Opened for both directions first, so that neither side waits for the other to open it.
    exec {fd}<>"$work/$name.in"
    pmd_input[$name]=$fd
    # Into a file testpmd would buffer whole blocks, and the last figures be lost.
    RUNTIME_DIRECTORY=$work spawn "$name" ${pmd_prefix[@]+"${pmd_prefix[@]}"} stdbuf -oL \
        dpdk-testpmd --lcores "0@$other,1@$cpu" --no-pci --no-telemetry "${pmd_memory[@]}" \
        --file-prefix="$name" "$@" -i --nb-cores=1 --total-num-mbufs=8192
    await_line "$work/$name.out" 'testpmd> ' 30 "$name" || fail "testpmd ($name) did not start"
    ! grep -q 'No probed ethernet devices' "$work/$name.err" || fail "testpmd ($name) found no device"
}
pmd_prefix=()

pmd_say() {
    local name=$1
    shift
    echo "$*" >&"${pmd_input[$name]}"
}

# pmd_link_up NAME PORT: until the port's link is up, which for virtio_user means: connected
pmd_link_up() {
    local try
    for try in $(seq 100); do
        pmd_say "$1" show port summary "$2"
        sleep 0.1
        ! grep -qE "^$2 .* up" "$work/$1.out" || return 0
    done
    note "testpmd ($1) shows no link after $try tries"
    return 1
}

# pmd_counts NAME PORT: sets rx_packets, rx_bytes, tx_packets, tx_bytes from fresh port statistics
pmd_counts() {
    local name=$1 before
    before=$(grep -c 'Tx-pps' "$work/$name.out" || true)
    pmd_say "$name" show port stats "$2"
    local until=$((SECONDS + 10))
    until [ "$(grep -c 'Tx-pps' "$work/$name.out" || true)" -gt "$before" ]; do
        [ "$SECONDS" -lt "$until" ] || fail "testpmd ($name) gives no statistics"
        sleep 0.05
    done
    read -r rx_packets rx_bytes tx_packets tx_bytes < <(
        awk -v port="$2" '
            /NIC statistics for port/ { here = ($0 ~ "port " port " ") }
            here && /RX-packets:/ { rp = $2; rb = $6 }
            here && /TX-packets:/ { tp = $2; tb = $6 }
            END { print rp, rb, tp, tb }' "$work/$name.out"
    )
}

# pmd_stop NAME: asks it to quit; fails when it does not
pmd_stop() {
    pmd_say "$1" stop
    pmd_say "$1" quit
    await_end "$1" 15 || fail "testpmd ($1) does not quit"
    local fd=${pmd_input[$1]}
    exec {fd}>&-
    unset "pmd_input[$1]"
    rm -f "$work/$1.in"
}
