# shellcheck shell=bash
# guest.sh: stock Linux guests with a vhost-user virtio-net device; sourced after lib.sh.
#
# The kernel is Debian's own package for cloud machines, unpacked and never installed, kept in
# ${XDG_CACHE_HOME:-~/.cache}/vhost-pci-rig. QEMU interprets (TCG): no nested virtualisation is
# needed, and the second half of QEMU's 7.2 problem with it is below.

guest_modules="virtio_pci virtio_net"
declare -A guest_input guest_count

# guest_prepare: sets `kernel_folder` and makes $work/initramfs
guest_prepare() {
    need qemu-system-x86_64 busybox cpio xz dpkg-deb apt-get setpriv
    local cache=${XDG_CACHE_HOME:-$HOME/.cache}/vhost-pci-rig
    mkdir -p "$cache"
    kernel_folder=$(find "$cache" -maxdepth 1 -name 'linux-*' -type d | sort | tail -n 1)
    if [ -z "$kernel_folder" ]; then
        note "fetching a kernel"
        fetch_kernel "$cache" || skip "no Debian kernel package to be had"
    fi
    make_initramfs
}

# fetch_kernel CACHE: downloads the package the meta package stands for. The folder gets its name
# last, so a killed run leaves no half of one.
fetch_kernel() {
    local cache=$1 meta=linux-image-cloud-amd64 package folder=$work/kernel options
    options=(-qq -o APT::Sandbox::User=root -o Acquire::Retries=3)
    mkdir -p "$folder/modules"
    package=$(kernel_package "$meta")
    if [ -z "$package" ]; then
        apt-get "${options[@]}" update >"$work/apt.out" 2>&1 || return 1
        package=$(kernel_package "$meta")
    fi
    (
        cd "$folder"
        if ! timeout 300 apt-get "${options[@]}" download "$package"; then
            # The lists may be older than what the mirror still has.
            apt-get "${options[@]}" update && timeout 300 apt-get "${options[@]}" download "$package"
        fi
        dpkg-deb -x ./*.deb unpacked
    ) >>"$work/apt.out" 2>&1 || return 1
    cp "$folder"/unpacked/boot/vmlinuz-* "$folder/vmlinuz"
    local module
    : >"$folder/modules/order"
    for module in $guest_modules; do take_module "$module"; done
    rm -rf "$folder/unpacked" "$folder"/*.deb
    kernel_folder=$cache/linux-${package#linux-image-}
    mv "$folder" "$kernel_folder.$$"
    mv -T "$kernel_folder.$$" "$kernel_folder" 2>/dev/null || rm -rf "$kernel_folder.$$"
}

kernel_package() {
    apt-cache depends "$1" 2>/dev/null | sed -n 's/^ *Depends: \(linux-image-[0-9].*\)/\1/p' | head -n 1
}

# take_module NAME: a module and, before it, all it depends on; nothing for one that is built in
take_module() {
    local name=${1//-/_} file target dependency
    target=$work/kernel/modules/$name.ko
    [ ! -e "$target" ] || return 0
    file=$(find "$work/kernel/unpacked" -name "${name//_/[-_]}.ko" -o -name "${name//_/[-_]}.ko.xz" | head -n 1)
    [ -n "$file" ] || return 0
    case $file in
    *.xz) xz -dc "$file" >"$target" ;; # busybox cannot load a compressed one
    *) cp "$file" "$target" ;;
    esac
    for dependency in $(tr '\0' '\n' <"$target" | sed -n 's/^depends=//p' | tr ',' ' '); do
        take_module "$dependency"
    done
    echo "$name" >>"$work/kernel/modules/order"
}

# Not compressed: unpacking costs an interpreted CPU more than reading does.
make_initramfs() {
    local root=$work/root
    mkdir -p "$root/bin"
    cp "$(command -v busybox)" "$root/bin/busybox"
    cp -r "$kernel_folder/modules" "$root/modules"
    cp "$rig_folder/guest-init" "$root/init"
    (cd "$root" && find . | sort | cpio --quiet -o -H newc) >"$work/initramfs"
    rm -rf "$root"
}

# guest_start NAME SOCKET ADDRESS/LENGTH NUMBER: boots it; NUMBER makes its MAC address. Its memory is
# a shared memfd, as vhost-user needs. `vectors=0`: with MSI-X, QEMU 7.2 under TCG crashes when it
# starts a vhost device.
guest_start() {
    local name=$1 socket=$2 address=$3 number=$4 fd
    mkfifo -m 600 "$work/$name.tty.in" "$work/$name.tty.out"
    exec {fd}<>"$work/$name.tty.in"
    guest_input[$name]=$fd guest_count[$name]=0
    spawn "$name.reply" cat "$work/$name.tty.out"
    spawn "$name" qemu-system-x86_64 -nodefaults -no-user-config -display none -no-reboot -M q35 \
        -accel tcg,thread=multi -cpu max -smp 1 -m 384 \
        -object memory-backend-memfd,id=memory,size=384M,share=on -machine memory-backend=memory \
        -kernel "$kernel_folder/vmlinuz" -initrd "$work/initramfs" \
        -append "console=ttyS0 quiet panic=-1 mitigations=off address=$address" \
        -serial "file:$work/$name.console" -chardev "pipe,id=tty,path=$work/$name.tty" \
        -serial chardev:tty -chardev "socket,id=peer,path=$socket" \
        -netdev vhost-user,id=net,chardev=peer \
        -device "virtio-net-pci,netdev=net,disable-legacy=on,romfile=,vectors=0,mac=52:54:00:00:00:0$number"
}

guest_await() {
    await_line "$work/$1.reply.out" '^@@ ready' "$2" "$1" || fail "guest $1 does not come up"
}

# guest_send NAME COMMAND: starts a command without waiting for it; sets `sent_number`
guest_send() {
    local name=$1
    shift
    sent_number=$((guest_count[$name] + 1))
    guest_count[$name]=$sent_number
    echo "$sent_number $*" >&"${guest_input[$name]}"
}

# guest_do NAME SECONDS COMMAND: runs it there; `reply` is what it printed, the status is its own
guest_do() {
    local name=$1 seconds=$2 log=$work/$1.reply.out line
    shift 2
    guest_send "$name" "$*"
    await_line "$log" "^@@ $sent_number " "$seconds" "$name" ||
        fail "guest $name: no answer in $seconds s to: $*"
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
