public import HostSystem

/// Why functions of a host are in no IOMMU group (HI-J6).
public enum IOMMUAbsence: Hashable, Sendable {
    /// There are groups; this function is in none.
    case notThisFunction
    /// Firmware describes an IOMMU, but the kernel does not use it.
    case kernelArgument
    /// A guest without a virtual IOMMU.
    case guest
    /// Firmware describes none.
    case firmware

    /// Looks for the cause.
    public init(in tree: HostTree) {
        let tables = "/sys/firmware/acpi/tables"
        if !tree.entriesIfAny("/sys/class/iommu").isEmpty {
            self = .notThisFunction
        } else if tree.exists("\(tables)/DMAR") || tree.exists("\(tables)/IVRS") {
            self = .kernelArgument
        } else if (tree.textIfAny("/proc/cpuinfo") ?? "").contains(" hypervisor") {
            self = .guest
        } else {
            self = .firmware
        }
    }

    /// What was found.
    public var text: String {
        switch self {
        case .notThisFunction: "the IOMMU is on, but this function is in no group"
        case .kernelArgument:
            "firmware has an IOMMU (DMAR or IVRS table), but the kernel does not use it"
        case .guest: "this is a virtual machine without a virtual IOMMU"
        case .firmware: "firmware describes no IOMMU (no DMAR or IVRS table)"
        }
    }

    /// What cures it.
    public var remedy: String {
        switch self {
        case .notThisFunction: "use the function's kernel driver, or uio_pci_generic"
        case .kernelArgument: "boot with intel_iommu=on (AMD: amd_iommu=on)"
        case .guest: "give the machine one (QEMU: -device intel-iommu), or use uio_pci_generic"
        case .firmware: "switch VT-d or AMD-Vi on in the firmware settings"
        }
    }
}
