# shellcheck shell=bash
# vfio-user.sh: the guest `m` whose devices are ours, over vfio-user; sourced after lib.sh, kernel.sh,
# guest.sh, vfio.sh and qemu.sh.

# nested_boot WORDS SOCKET… [-- ARGUMENT…]: one function per socket, as 0000:01:00.0, 0000:02:00.0 and so
# on, behind ports with room for a large BAR; one more port, `spare`, is empty. QMP is at $work/m.qmp.
# The memory is shared, or every access of a device would be a message; caching-mode, or what the
# guest maps in its IOMMU would not reach the devices. QEMU gives an answer 5 s and after that never
# recovers: on a busy machine that is too little. The firmware puts windows of 64 bits at the top of the
# addresses, where QEMU keeps a range reserved if the CPU is AMD's; nothing that is plugged in later would
# fit there.
nested_boot() {
    local words=$1 number=1 machine machine_words
    shift
    iommu_machine iommu
    while [ $# -gt 0 ] && [ "$1" != -- ]; do
        nested_port "port$number" "$number"
        machine+=(-device "{\"driver\": \"vfio-user-pci\", \"id\": \"device$number\", \"bus\": \"port$number\",
            \"x-msg-timeout\": 20000, \"socket\": {\"type\": \"unix\", \"path\": \"$1\"}}")
        number=$((number + 1))
        shift
    done
    [ $# = 0 ] || shift
    nested_port spare "$number"
    guest_boot m "ipv6.disable=1 $machine_words $words" "${machine[@]}" -smp 2 -m 768 \
        -cpu max,vendor=GenuineIntel \
        -object memory-backend-memfd,id=memory,size=768M,share=on -machine memory-backend=memory \
        -qmp "unix:$work/m.qmp,server=on,wait=off" "$@"
    guest_await m 120
}

nested_port() {
    machine+=(-device "pcie-root-port,id=$1,chassis=$2,slot=$2,pref64-reserve=1G")
}
