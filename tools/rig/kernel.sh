# shellcheck shell=bash
# kernel.sh: stock Debian kernels for guests; sourced after lib.sh.
#
# A kernel is unpacked and never installed, and of its modules only those that are asked for are
# kept, in ${XDG_CACHE_HOME:-~/.cache}/vhost-pci-rig. Its package comes from an apt area of our own
# in the same folder, with the machine's own mirror and keys: nothing of the system's lists changes.

kernel_cache=${XDG_CACHE_HOME:-$HOME/.cache}/vhost-pci-rig

# kernel_take NAME SUITE PACKAGE MODULE…: sets `kernel_folder` to a folder with `vmlinuz`, `version`
# and `modules`, the tree /lib/modules of the guest. PACKAGE is the meta package, SUITE Debian's.
kernel_take() {
    local name=$1 suite=$2 package=$3
    shift 3
    kernel_folder=$kernel_cache/$name
    [ "$(cat "$kernel_folder/wanted" 2>/dev/null)" != "$*" ] || return 0
    need apt-get dpkg-deb xz
    note "fetching kernel $name"
    mkdir -p "$kernel_cache"
    kernel_fetch "$suite" "$package" "$@" >"$work/kernel-$name.out" 2>&1 ||
        fail "no kernel $name: $(tail -n 1 "$work/kernel-$name.out")"
    # The folder gets its name last, so a killed run leaves no half of one.
    rm -rf "$kernel_folder"
    mv -T "$work/kernel" "$kernel_folder.$$"
    mv -T "$kernel_folder.$$" "$kernel_folder" 2>/dev/null || rm -rf "$kernel_folder.$$"
}

# apt_area SUITE…: sets `apt_options` so that apt knows those suites of the machine's own mirror
apt_area() {
    local area=$kernel_cache/apt-$1${2:++$2} mirror suite
    mirror=$(cat /etc/apt/sources.list /etc/apt/sources.list.d/*.list \
        /etc/apt/sources.list.d/*.sources 2>/dev/null | awk '
        /^URIs:/ { print $2 }
        /^deb / { for (i = 2; i <= NF; i++) if ($i ~ /:\/\//) print $i }' |
        grep -E '/debian/?$' | head -n 1)
    [ -n "$mirror" ] || { echo "no Debian mirror in the sources of apt" && return 1; }
    mkdir -p "$area/lists/partial" "$area/cache/archives/partial"
    for suite in "$@"; do
        echo "deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] $mirror $suite main"
    done >"$area/sources.list"
    apt_options=(-qq -o "Dir::Etc::SourceList=$area/sources.list" -o Dir::Etc::SourceParts=/dev/null
        -o "Dir::State::Lists=$area/lists" -o "Dir::Cache=$area/cache" -o APT::Sandbox::User=root
        -o Acquire::Retries=3 -o Acquire::Languages=none
        -o Acquire::IndexTargets::deb::Contents-deb::DefaultEnabled=false)
}

# kernel_fetch SUITE PACKAGE MODULE…: makes $work/kernel
kernel_fetch() {
    local suite=$1 meta=$2 package folder=$work/kernel module unpacked=$work/kernel-unpacked apt_options
    shift 2
    rm -rf "$folder" "$unpacked"
    mkdir -p "$folder" "$unpacked"
    apt_area "$suite" || return 1
    # Always fresh: a mirror drops the packages that an older list names.
    timeout 120 apt-get "${apt_options[@]}" update || return 1
    package=$(apt-cache "${apt_options[@]}" depends "$meta" |
        sed -n 's/^ *Depends: \(linux-image-[0-9].*\)/\1/p' | head -n 1)
    [ -n "$package" ] || { echo "$suite has no $meta" && return 1; }
    (cd "$unpacked" && timeout 300 apt-get "${apt_options[@]}" download "$package") || return 1
    dpkg-deb -x "$unpacked"/*.deb "$unpacked" || return 1
    cp "$unpacked"/boot/vmlinuz-* "$folder/vmlinuz" || return 1
    basename "$unpacked"/boot/vmlinuz-* | sed 's/^vmlinuz-//' >"$folder/version"
    mkdir -p "$folder/modules/$(cat "$folder/version")"
    for module in "$@"; do kernel_module "$module" >/dev/null; done
    echo "$*" >"$folder/wanted"
    rm -rf "$unpacked"
}

# kernel_module NAME: takes a module and all it depends on, and prints their names, its own first;
# nothing for one that is built in
kernel_module() {
    local name=${1//-/_} tree file target dependency all=''
    tree=$folder/modules/$(cat "$folder/version")
    target=$tree/$name.ko
    file=$(find "$unpacked/lib" \( -name "${name//_/[-_]}.ko" -o -name "${name//_/[-_]}.ko.xz" \) -print -quit)
    [ -n "$file" ] || return 0
    case $file in
    *.xz) xz -dc "$file" >"$target" ;; # busybox cannot load a compressed one
    *) cp "$file" "$target" ;;
    esac
    for dependency in $(tr '\0' '\n' <"$target" | sed -n 's/^depends=//p' | tr ',' ' '); do
        all="$all $(kernel_module "$dependency")"
    done
    # What VFIO names as a soft dependency comes with it on a real system; busybox knows no such thing.
    [ "$name" != vfio_pci ] || all=" vfio_iommu_type1$all"
    if ! grep -qs "^$name.ko:" "$tree/modules.dep"; then
        # shellcheck disable=SC2086 # a list of names
        echo "$name.ko:$(printf ' %s.ko' $all)" | sed 's/: \.ko$/:/' >>"$tree/modules.dep"
    fi
    echo "$name$all"
}
