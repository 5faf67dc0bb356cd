# shellcheck shell=bash
# qemu.sh: a QEMU that speaks vfio-user; sourced after lib.sh and kernel.sh.
#
# Debian 12's own (7.2) does not. The one of trixie-backports (11.1) is unpacked with all it needs, and
# never installed, in ${XDG_CACHE_HOME:-~/.cache}/vhost-pci-rig, and runs by a loader and libraries of its
# own: no chroot, so sockets and paths are the machine's. A machine that has a QEMU with that device
# uses its own. The first time takes about 10 s and 37 MB of network; 150 MB of disk stay.

qemu_suites=(trixie trixie-backports)
qemu_packages=(qemu-system-x86 qemu-system-common qemu-system-data seabios)

# qemu_take: sets `qemu` to a QEMU that knows vfio-user-pci, and `qemu_version`
qemu_take() {
    local folder=$kernel_cache/qemu lock
    need setpriv
    qemu="qemu-system-x86_64"
    if ! command -v "$qemu" >/dev/null || ! qemu_knows; then
        need apt-get dpkg-deb flock
        mkdir -p "$kernel_cache"
        # One of two that want it at once fetches, the other waits for that.
        exec {lock}>"$kernel_cache/qemu.lock"
        flock -w 400 "$lock" || fail "another process has been fetching QEMU for 400 s"
        qemu=$folder/bin/qemu-system-x86_64
        if [ "$(cat "$folder/wanted" 2>/dev/null)" != "${qemu_suites[*]} ${qemu_packages[*]}" ]; then
            note "fetching QEMU from ${qemu_suites[1]}"
            qemu_fetch >"$work/qemu-fetch.out" 2>&1 || skip "no QEMU: $(tail -n 1 "$work/qemu-fetch.out")"
            # The folder gets its name last, so a killed run leaves no half of one.
            rm -rf "$folder" "$folder.new"
            mv -T "$work/qemu" "$folder.new"
            mv -T "$folder.new" "$folder"
        fi
        exec {lock}>&-
        qemu_knows || fail "the QEMU of ${qemu_suites[1]} does not run or has no vfio-user-pci: $(head -n 1 "$work/qemu.help")"
    fi
    # shellcheck disable=SC2034 # for the caller
    qemu_version=$("$qemu" --version | sed -n 's/^QEMU emulator version \([^ ]*\).*/\1/p')
}

qemu_knows() { "$qemu" -device vfio-user-pci,help >"$work/qemu.help" 2>&1 && grep -q '^ *socket=' "$work/qemu.help"; }

# qemu_fetch: makes $work/qemu, with the folder `bin` for PATH and the unpacked packages in `root`. What
# is needed is worked out as for a machine that has no package at all.
qemu_fetch() {
    local folder=$work/qemu package packages=() file libraries apt_options
    apt_area "${qemu_suites[@]}" || return 1
    for package in "${qemu_packages[@]}"; do packages+=("$package/${qemu_suites[1]}"); done
    : >"$work/no-packages"
    apt_options+=(-o "Dir::State::status=$work/no-packages" -o "Dir::Cache::archives=$work/archives/")
    mkdir -p "$work/archives/partial" "$folder/root" "$folder/bin"
    timeout 120 apt-get "${apt_options[@]}" update || return 1
    timeout 300 apt-get "${apt_options[@]}" --yes --no-install-recommends --download-only \
        install "${packages[@]}" || return 1
    for file in "$work"/archives/*.deb; do
        dpkg-deb --fsys-tarfile "$file" |
            tar -x -C "$folder/root" --exclude='./usr/share/doc/*' --exclude='./usr/share/locale/*' \
                --exclude='./usr/share/man/*' --exclude='./usr/share/perl*' || return 1
    done
    rm -rf "$work/archives"
    libraries=usr/lib/$(dpkg-architecture -q DEB_HOST_MULTIARCH 2>/dev/null || echo x86_64-linux-gnu)
    cat >"$folder/bin/qemu-system-x86_64" <<END
#!/bin/sh
root=$kernel_cache/qemu/root
export QEMU_MODULE_DIR="\$root/$libraries/qemu"
exec "\$root/$libraries/ld-linux-x86-64.so.2" --argv0 qemu-system-x86_64 \\
    --library-path "\$root/$libraries:\$root/$libraries/pulseaudio:\$root/$libraries/systemd" \\
    "\$root/usr/bin/qemu-system-x86_64" -L "\$root/usr/share/qemu" -L "\$root/usr/share/seabios" "\$@"
END
    chmod +x "$folder/bin/qemu-system-x86_64"
    echo "${qemu_suites[*]} ${qemu_packages[*]}" >"$folder/wanted"
}
