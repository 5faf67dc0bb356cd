public import HostSystem

/// Why functions of a host are in no IOMMU group (HI-J6).
public enum IOMMUAbsence: Hashable, Sendable {
    /// There are groups; this function is in none.
    case notThisFunction
    /// Firmware describes an IOMMU in these tables, but the kernel does not use it.
    case kernelArgument(tables: [String])
    /// A guest without a virtual IOMMU.
    case guest
    /// Firmware describes none.
    case firmware

    /// ACPI tables that describe an IOMMU.
    public static let tables = ["DMAR", "IVRS", "IORT", "VIOT"]

    /// Looks for the cause.
    public init(in tree: HostTree) {
        let tables = Self.tables.filter { tree.exists("/sys/firmware/acpi/tables/\($0)") }
        if !tree.entriesIfAny("/sys/class/iommu").isEmpty {
            self = .notThisFunction
        } else if !tables.isEmpty {
            self = .kernelArgument(tables: tables)
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
        case .kernelArgument(let tables):
            "the firmware describes an IOMMU (\(tables.joined(separator: ", "))), but the kernel does"
                + " not use it"
        case .guest: "this is a virtual machine without a virtual IOMMU"
        case .firmware: "the firmware describes no IOMMU"
        }
    }

    /// What cures it.
    public var remedy: String {
        switch self {
        case .notThisFunction: "use the function's kernel driver, or uio_pci_generic"
        case .kernelArgument(let tables):
            tables.contains("DMAR")
                ? "start the kernel with intel_iommu=on"
                : "take iommu=off or amd_iommu=off from the kernel's arguments"
        case .guest:
            "give it one (QEMU: -device intel-iommu,intremap=on and iommu_platform=on), or use"
                + " uio_pci_generic"
        case .firmware: "switch VT-d or AMD-Vi on in the firmware's setup"
        }
    }
}
