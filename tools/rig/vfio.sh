# shellcheck shell=bash
# vfio.sh: guests in which our program meets PCI devices; sourced after lib.sh, kernel.sh, guest.sh.
#
# Each function is behind a root port of its own: that gives it an IOMMU group of its own and a
# function-level reset. vfio_boot's guests have two virtio network functions, wired back to back. One
# guest at a time, named `m`.

device_a=0000:01:00.0 device_b=0000:02:00.0
# What functions below leave for their caller.
probe='' reason='' refusals=0 compared='' checked='' interrupts='' state='' complaint=''
vfio_modules=(virtio_pci virtio_net vfio vfio_iommu_type1 vfio-pci uio uio_pci_generic tun)

# our_probe: sets `probe` to the program of tools/rig/DeviceProbe, built as the product is
# shellcheck disable=SC2034 # for the caller
our_probe() {
    swift build --package-path "$repository" -c release --product device-probe >"$work/probe.out" 2>&1 ||
        fail "device-probe does not build"
    probe=$(swift build --package-path "$repository" -c release --show-bin-path)/device-probe
}

# vfio_prepare KERNEL [FILE…]: 6.1, Debian 12's own, or 6.12, its backport; further programs for the
# guest
vfio_prepare() {
    local kernel=$1
    shift
    need "$qemu" busybox cpio setpriv lspci jq python3
    our_program
    case $kernel in
    6.1) kernel_take 6.1 bookworm linux-image-amd64 "${vfio_modules[@]}" ;;
    6.12) kernel_take 6.12 bookworm-backports linux-image-amd64 "${vfio_modules[@]}" ;;
    *) fail "no kernel $kernel" ;;
    esac
    make_initramfs "$program" "$(command -v lspci)" /usr/share/misc/pci.ids "$@"
}

# iommu_machine IOMMU: sets `machine`, arguments for QEMU, and `machine_words` for the kernel: `iommu` is
# one that the kernel uses, `off` one that it does not, `none` a machine without
iommu_machine() {
    machine=(-M q35) machine_words=''
    [ "$1" != none ] || return 0
    machine=(-M "q35,kernel-irqchip=split" -device "intel-iommu,intremap=on,caching-mode=on")
    case $1 in
    iommu) machine_words="intel_iommu=on" ;;
    off) machine_words="intel_iommu=off" ;;
    esac
}

# vfio_boot IOMMU WORDS [ARGUMENT…]: with IOMMU as for iommu_machine and WORDS as for guest_boot
vfio_boot() {
    local words=$2 machine machine_words number
    iommu_machine "$1"
    shift 2
    for number in 1 2; do
        machine+=(-device "pcie-root-port,id=port$number,chassis=$number,slot=$number"
            -netdev "hubport,id=net$number,hubid=0"
            -device "virtio-net-pci,netdev=net$number,bus=port$number,disable-legacy=on,iommu_platform=on,romfile=,mac=52:54:00:00:01:0$number")
    done
    # The interfaces shall say nothing by themselves.
    guest_boot m "ipv6.disable=1 $machine_words $words" "${machine[@]}" -smp 2 -m 1024 "$@"
    guest_await m 90
}

# must SECONDS COMMAND: in the guest, and it has to end with 0; `reply` is its output
must() {
    local seconds=$1
    shift
    guest_do m "$seconds" "$*" || fail "status $? from: $*: ${reply//$'\n'/ / }"
}

# ask SECONDS ARGUMENTS: our program in the guest with --json; `reply` is the object, `complaint` what
# it said on standard error, the status its own
ask() {
    local seconds=$1 status=0 answer
    shift
    guest_do m "$seconds" "vhost-pci $* --json 2>/tmp/complaint" || status=$?
    answer=$reply
    guest_do m 10 "cat /tmp/complaint" || true
    complaint=${reply//$'\n'/ } reply=$answer
    return "$status"
}

# asked SECONDS ARGUMENTS: the same, and it has to succeed
asked() {
    ask "$@" || fail "status $? from: vhost-pci ${*:2}: $complaint$(head -c 400 <<<"$reply")"
    jq -e . >/dev/null 2>&1 <<<"$reply" || fail "no JSON from: vhost-pci ${*:2}: $reply"
}

# driver_is DEVICE DRIVER: by the kernel's own word; an empty driver is none
driver_is() {
    guest_do m 10 "readlink /sys/bus/pci/devices/$1/driver" || true
    [ "$(basename "$reply")" = "$2" ] || fail "driver of $1: '$(basename "$reply")', not '$2'"
}

# machine_state: sets `state` to the driver and override of every function, and the driver's own list
machine_state() {
    must 20 'cd /sys/bus/pci; for d in devices/*; do
        echo "$d $(basename "$(readlink "$d/driver" || echo none)") $(cat "$d/driver_override")"; done;
        ls -d drivers/*/0000:*; ls /run/vhost-pci/bindings 2>/dev/null; true'
    state=$reply
}

# refuses ID ARGUMENTS: a run of our program that must end with the error of that name, and leave
# drivers, overrides and journal as they were; `reason` is what it said. With `user` it runs as that
# one, with `prelude` after that command.
refuses() {
    local id=$1 status=0 before got command
    shift
    command="${prelude:+$prelude; }vhost-pci $* --json 2>/dev/null"
    [ -z "${user:-}" ] || command="su $user -s /bin/sh -c '$command'"
    machine_state
    before=$state
    guest_do m 60 "$command" || status=$?
    got=$(jq -r '.error.id // "none"' <<<"$reply" 2>/dev/null) || got=none
    [ "$got" = "$id" ] || fail "$command: error $got (status $status), not $id: ${reply//$'\n'/ }"
    case $status in
    1 | 2 | 3) ;;
    *) fail "$command: status $status with error $id" ;;
    esac
    reason=$(jq -r '.error.detail' <<<"$reply")
    machine_state
    [ "$state" = "$before" ] ||
        fail "$command: the machine is not as before: $(diff <(echo "$before") <(echo "$state"))"
    refusals=$((refusals + 1))
    note "$id: $reason"
}

# bind_both DRIVER: by `device bind`, and the kernel says the same
bind_both() {
    local device
    for device in "$device_a" "$device_b"; do
        asked 30 device bind "$device" --driver "$1"
        driver_is "$device" "$1"
    done
}

# compare_show [OPTION…]: `device show` of every function against the guest's lspci; sets `compared`
# shellcheck disable=SC2120 # the options are for UIO
compare_show() {
    local device file files=()
    must 30 'lspci -D -vvv 2>/dev/null'
    echo "$reply" >"$work/lspci.txt"
    for device in $(sed -n 's/^\([0-9a-f]\{4\}:[0-9a-f:.]*\) .*/\1/p' "$work/lspci.txt"); do
        file=$work/show-$device.json
        asked 30 device show "$device" "$@"
        echo "$reply" >"$file"
        files+=("$file")
    done
    compared=$("$rig_folder/compare-lspci" "${files[@]}" "$work/lspci.txt" 2>&1) ||
        fail "device show and lspci differ: $compared"
}

# kernel_receives DEVICE up|down: the kernel's interface of that function takes frames or does not
kernel_receives() {
    must 10 "ip link set \$(ls /sys/bus/pci/devices/$1/virtio*/net) $2"
}

# check_device DEVICE LEAST [OPTION…]: `device check`: at least LEAST rules pass and none fails, except
# for one that QEMU breaks: it keeps FEATURES_OK for a feature that it never offered. `checked` is how
# many passed.
check_device() {
    local device=$1 least=$2 fails
    shift 2
    ask 120 device check "$device" "$@" || true
    jq -e '.results | length > 0' >/dev/null 2>&1 <<<"$reply" ||
        fail "device check $device: $complaint$(tail -c 400 <<<"$reply")"
    fails=$(jq -r '.results[] | select(.verdict == "fail" and .id != "DEV-S-07") | "\(.id) \(.evidence)"' <<<"$reply")
    [ -z "$fails" ] || fail "device check $device: $fails"
    checked=$(jq '[.results[] | select(.verdict == "pass")] | length' <<<"$reply")
    [ "$checked" -ge "$least" ] || fail "device check $device: only $checked rules hold"
}

# check_in_turn DRIVER LEAST [OPTION…]: binds either function and checks it, while the kernel takes the
# frames at the other end of the wire; sets `checked` for both
check_in_turn() {
    local driver=$1 least=$2 device other counts=''
    shift 2
    for device in "$device_a" "$device_b"; do
        other=$device_a
        [ "$device" != "$device_a" ] || other=$device_b
        asked 30 device bind "$device" --driver "$driver"
        driver_is "$device" "$driver"
        kernel_receives "$other" up
        check_device "$device" "$least" "$@"
        kernel_receives "$other" down
        asked 30 device restore "$device"
        driver_is "$device" virtio-pci
        counts="$counts${counts:++}$checked"
    done
    checked=$counts
}

# traffic_both FRAMES [OPTION…]: `device traffic`, every frame there, once, in order, undamaged; sets
# `interrupts` to how many came in either direction
# shellcheck disable=SC2034 # for the caller
traffic_both() {
    local frames=$1
    shift
    asked 120 device traffic "$device_a" "$device_b" --frames "$frames" "$@"
    jq -e --argjson n "$frames" '.verdict == "ok" and (.directions | length) == 2 and
        ([.directions[] | select(.sent == $n and .received == $n and .lost == 0 and .reordered == 0 and
            .damaged == 0)] | length) == 2' >/dev/null <<<"$reply" || fail "traffic: $reply"
    interrupts=$(jq -r '[.directions[].interrupts // 0] | map(tostring) | join("+")' <<<"$reply")
}

# restore_both: `unbind` and `restore`; then the kernel's driver has both back, and packets cross
# between the two interfaces, one of them in a network namespace of its own
restore_both() {
    local device interfaces=()
    asked 30 device unbind "$device_a"
    driver_is "$device_a" ''
    for device in "$device_a" "$device_b"; do
        asked 30 device restore "$device"
        driver_is "$device" virtio-pci
        must 10 "cat /sys/bus/pci/devices/$device/driver_override"
        [ "$reply" = '(null)' ] || fail "$device has the override '$reply'"
        must 10 "ls /sys/bus/pci/devices/$device/virtio*/net"
        interfaces+=("$reply")
    done
    kernel_ping "${interfaces[@]}"
}

# kernel_ping ONE OTHER: through the kernel's own drivers
kernel_ping() {
    must 30 "unshare -n sleep 600 & other=\$!; sleep 0.5;
        ip link set $2 netns \$other && ip address add 10.98.0.1/24 dev $1 && ip link set $1 up &&
        nsenter -t \$other -n ip address add 10.98.0.2/24 dev $2 && nsenter -t \$other -n ip link set $2 up"
    guest_pings m 10.98.0.2 20
    must 10 "ip address flush dev $1; ip link set $1 down; kill \$other"
}
