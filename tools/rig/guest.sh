# shellcheck shell=bash
# guest.sh: stock Linux guests under QEMU and commands in them; sourced after lib.sh and kernel.sh.
#
# A guest is a Debian kernel and a busybox of ours in memory, with whatever programs a scenario adds.
# QEMU interprets (TCG): no nested virtualisation is needed, and the second half of QEMU's 7.2 problem
# with vhost-user is below.

declare -A guest_input guest_count
qemu="qemu-system-x86_64" # Debian's own, until a scenario takes another one

# guest_prepare: the kernel and the initramfs of guests that have a vhost-user device
guest_prepare() {
    need "$qemu" busybox cpio setpriv
    kernel_take cloud bookworm linux-image-cloud-amd64 virtio_pci virtio_net
    make_initramfs
}

# make_initramfs [FILE…]: sets `initramfs` to one for `kernel_folder`; each program is in the guest's
# /bin and the libraries it needs where it looks for them. A file that is no program keeps its path.
# Not compressed: unpacking costs an interpreted CPU more than reading does.
# shellcheck disable=SC2120,SC2154 # the files are optional; the folder is what kernel_take sets
make_initramfs() {
    local root=$work/root file library
    initramfs=$work/initramfs-$(basename "$kernel_folder")
    mkdir -p "$root/bin" "$root/lib/modules"
    cp "$(command -v busybox)" "$root/bin/busybox"
    cp -r "$kernel_folder/modules/." "$root/lib/modules"
    cp "$rig_folder/guest-init" "$root/init"
    for file in "$@"; do
        if [ ! -x "$file" ]; then
            mkdir -p "$root$(dirname "$file")"
            cp -L "$file" "$root$file"
            continue
        fi
        cp -L "$file" "$root/bin"
        for library in $(ldd "$file" 2>/dev/null | grep -oE '/[^ ]+'); do
            mkdir -p "$root$(dirname "$library")"
            cp -L -n "$library" "$root$library"
        done
    done
    (cd "$root" && find . | sort | cpio --quiet -o -H newc) >"$initramfs"
    rm -rf "$root"
}

# guest_boot NAME WORDS ARGUMENT…: boots `kernel_folder` with `initramfs`; WORDS go to guest-init
# by the kernel's command line, the arguments to QEMU. `no_timer_check`: on a busy machine an interpreted
# timer misses its turn, and the kernel gives up at once.
guest_boot() {
    local name=$1 words=$2 fd
    shift 2
    mkfifo -m 600 "$work/$name.tty.in" "$work/$name.tty.out"
    exec {fd}<>"$work/$name.tty.in"
    guest_input[$name]=$fd guest_count[$name]=0
    spawn "$name.reply" cat "$work/$name.tty.out"
    spawn "$name" "$qemu" -nodefaults -no-user-config -display none -no-reboot \
        -accel tcg,thread=multi -cpu max \
        -kernel "$kernel_folder/vmlinuz" -initrd "$initramfs" \
        -append "console=ttyS0 quiet panic=-1 mitigations=off no_timer_check $words" \
        -serial "file:$work/$name.console" -chardev "pipe,id=tty,path=$work/$name.tty" \
        -serial chardev:tty "$@"
}

# guest_start NAME SOCKET ADDRESS/LENGTH NUMBER: a guest with a vhost-user device; NUMBER makes its MAC
# address. Its memory is shared, as vhost-user needs: a memfd, or the file `guest_memory`, which the same
# guest finds again when it is started again, or what the arguments `guest_shape` say of memory and CPUs.
# `vectors=0`: with MSI-X, QEMU 7.2 under TCG crashes when it starts a vhost device. `guest_reconnects` is
# what QEMU's socket is told when it has to come back. With `guest_port` the device, `nic`, is behind a port
# of that name, from which it can be unplugged, by QMP at $work/NAME.qmp.
guest_memory='' guest_shape=() guest_reconnects='' guest_port=''
guest_start() {
    local memory=memory-backend-memfd shape bus=''
    [ -z "$guest_memory" ] || memory="memory-backend-file,mem-path=$guest_memory"
    shape=(-smp 1 -m 384 -object "$memory,id=memory,size=384M,share=on" -machine memory-backend=memory)
    [ ${#guest_shape[@]} = 0 ] || shape=("${guest_shape[@]}")
    if [ -n "$guest_port" ]; then
        bus=,id=nic,bus=$guest_port
        shape+=(-device "pcie-root-port,id=$guest_port,chassis=1,slot=1" -qmp "unix:$work/$1.qmp,server=on,wait=off")
    fi
    guest_boot "$1" "load=virtio_pci,virtio_net address=$3" -M q35 "${shape[@]}" \
        -chardev "socket,id=peer,path=$2$guest_reconnects" -netdev vhost-user,id=net,chardev=peer \
        -device "virtio-net-pci,netdev=net,disable-legacy=on,romfile=,vectors=0,mac=52:54:00:00:00:0$4$bus"
}

guest_await() {
    await_line "$work/$1.reply.out" '^@@ ready' "$2" "$1" && return
    alive "$1" || fail "guest $1 ended before it was up: $(tail -n 1 "$work/$1.err")"
    fail "guest $1 is not up after $2 s"
}

# guest_send NAME COMMAND: starts a command without waiting for it; sets `sent_number`. It becomes one
# line: what begins a new line here must be able to follow a blank.
guest_send() {
    local name=$1 line
    shift
    # In a subshell the number would be lost, and the next command take this one's answer for its own.
    [ "$BASHPID" = $$ ] || { echo "guest $name is asked in a subshell: $*" >&2 && exit 1; }
    line=$*
    sent_number=$((guest_count[$name] + 1))
    guest_count[$name]=$sent_number
    echo "$sent_number ${line//$'\n'/ }" >&"${guest_input[$name]}"
}

# guest_do NAME SECONDS COMMAND: runs it there; `reply` is what it printed, the status is its own
guest_do() {
    local name=$1 seconds=$2 log=$work/$1.reply.out line
    shift 2
    guest_send "$name" "$*"
    if ! await_line "$log" "^@@ $sent_number " "$seconds" "$name"; then
        alive "$name" || fail "guest $name ended under: $*"
        fail "guest $name: no answer in $seconds s to: $*"
    fi
    reply=$(awk -v number="$sent_number" '
        /^@@ / { if ($2 == number) exit; text = ""; next }
        { text = text $0 "\n" }
        END { printf "%s", text }' "$log")
    line=$(grep "^@@ $sent_number " "$log")
    return "${line##* }"
}

# guest_kill NAME: SIGKILL in the middle of whatever it does
guest_kill() {
    finish_off "$1"
    finish_off "$1.reply"
    local fd=${guest_input[$1]}
    exec {fd}>&-
    unset "guest_input[$1]"
    rm -f "$work/$1.tty.in" "$work/$1.tty.out" "$work/$1.reply.out"
}

# guest_pings NAME ADDRESS COUNT: every one answered, or the scenario fails
guest_pings() {
    guest_do "$1" $((20 + $3)) "ping -q -c $3 -i 0.02 -W 5 $2" || true
    grep -q "^$3 packets transmitted, $3 packets received" <<<"$reply" ||
        fail "guest $1 to $2: $(grep 'packets transmitted' <<<"$reply" || echo "$reply")"
}
