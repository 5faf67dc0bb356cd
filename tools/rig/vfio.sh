# shellcheck shell=bash
# vfio.sh: guests in which our program meets PCI devices; sourced after lib.sh, kernel.sh, guest.sh.
#
# Each guest has two virtio network functions, wired back to back, each behind a root port of its own:
# that gives it an IOMMU group of its own and a function-level reset.

device_a=0000:01:00.0 device_b=0000:02:00.0
vfio_modules="virtio_pci virtio_net vfio vfio_iommu_type1 vfio-pci uio uio_pci_generic"

# vfio_prepare KERNEL: 6.1, Debian 12's own, or 6.12, its backport
vfio_prepare() {
    need qemu-system-x86_64 busybox cpio setpriv lspci
    our_program
    case $1 in
    # shellcheck disable=SC2086 # a list of names
    6.1) kernel_take 6.1 bookworm linux-image-amd64 $vfio_modules ;;
    # shellcheck disable=SC2086
    6.12) kernel_take 6.12 bookworm-backports linux-image-amd64 $vfio_modules ;;
    esac
    make_initramfs "$program" "$(command -v lspci)" /usr/share/misc/pci.ids
}

# vfio_boot NAME IOMMU WORDS [ARGUMENT…]: IOMMU is `iommu` for one that the kernel uses, `off` for one
# that it does not, `none` for a machine without; WORDS as for guest_boot
vfio_boot() {
    local name=$1 iommu=$2 words=$3 machine=(-M q35) number
    shift 3
    if [ "$iommu" != none ]; then
        machine=(-M "q35,kernel-irqchip=split" -device "intel-iommu,intremap=on,caching-mode=on")
    fi
    case $iommu in
    iommu) words="intel_iommu=on $words" ;;
    off) words="intel_iommu=off $words" ;;
    esac
    for number in 1 2; do
        machine+=(-device "pcie-root-port,id=port$number,chassis=$number,slot=$number"
            -netdev "hubport,id=net$number,hubid=0"
            -device "virtio-net-pci,netdev=net$number,bus=port$number,disable-legacy=on,iommu_platform=on,romfile=,mac=52:54:00:00:01:0$number")
    done
    guest_boot "$name" "$words" "${machine[@]}" -smp 2 -m 1024 "$@"
    guest_await "$name" 90
}
