internal import HostSystem
internal import PCI

/// Where UIO presents one function on this host, and what stands in the way when it does not.
struct UIOHost {
    /// The driver that hands a function out without confining it.
    static let driver = "uio_pci_generic"

    let tree: HostTree
    let address: PCIAddress

    /// The folder of the function in sysfs.
    var folder: String { "/sys/bus/pci/devices/\(address)" }

    /// Finds the node of the function and refuses what cannot work. Nothing is opened.
    func node(withoutIsolation: Bool) throws(PCIError) -> String {
        guard tree.exists(folder) else {
            throw refusal("pci/address", "there is no PCI function \(address)")
        }
        let bound = tree.linkName("\(folder)/driver")
        guard bound == Self.driver else {
            throw refusal(
                "bind/driver",
                "\(address) is bound to \(bound ?? "no driver"), not to \(Self.driver)",
                "bind it: vhost-pci device bind \(address) --driver \(Self.driver)"
            )
        }
        guard withoutIsolation else { throw noIsolation() }
        try checkTranslation()
        guard let name = tree.entriesIfAny("\(folder)/uio").first else {
            throw refusal("uio/module", "\(Self.driver) has made no UIO device for \(address)")
        }
        guard tree.exists("/dev/\(name)") else {
            throw refusal(
                "uio/module",
                "there is no \(tree.place(of: "/dev/\(name)")) although the kernel has \(name)",
                "let this container have the device node"
            )
        }
        return "/dev/\(name)"
    }

    // HI-J7: nothing keeps the device from writing anywhere.
    private func noIsolation() -> PCIError {
        refusal(
            "iommu/noiommu",
            "\(address) is driven through \(Self.driver), where no IOMMU confines its memory accesses:"
                + " a fault of the device or of this program can overwrite any memory of this machine",
            hasGroup
                ? "use VFIO instead: vhost-pci device bind \(address) --driver vfio-pci"
                : "say --unsafe-no-iommu if that may be"
        )
    }

    private var group: String? { tree.linkName("\(folder)/iommu_group") }
    private var hasGroup: Bool { group != nil }

    // An IOMMU that translates would send every access to a wrong place, or nowhere: physical
    // addresses are no addresses of the device then.
    private func checkTranslation() throws(PCIError) {
        guard let group,
            let type = tree.textIfAny("/sys/kernel/iommu_groups/\(group)/type"),
            type.hasPrefix("DMA")
        else { return }
        throw refusal(
            "iommu/translated",
            "the IOMMU translates what \(address) accesses (group \(group) is of type \(type)), so that"
                + " UIO's physical addresses reach nothing",
            "use VFIO: vhost-pci device bind \(address) --driver vfio-pci"
                + " (or start the kernel with iommu=pt)"
        )
    }

    /// Opens configuration space for us alone; `uio/busy` when `node` has a user.
    ///
    /// Asked before the node is opened: the kernel ends bus mastering whenever anybody closes it, and
    /// that would be the end of the other program's traffic.
    func claim(_ node: String) throws(PCIError) -> FileDescriptor {
        let configuration = try open("\(folder)/config")
        let place = tree.place(of: node)
        let holders = tree.holders(of: place)
        var isFree = holders.isEmpty
        do throws(SystemError) {
            try configuration.lock()
        } catch {
            guard error.errno == .wouldBlock else { throw .system(error) }
            isFree = false
        }
        guard !isFree else { return configuration }
        let by = holders.isEmpty ? "" : ", by \(holders.joined(separator: ", "))"
        throw refusal("uio/busy", "\(place) is in use already\(by)", "end that program first")
    }

    /// Opens a file of the function.
    func open(_ path: String) throws(PCIError) -> FileDescriptor {
        do throws(SystemError) {
            return try FileDescriptor.open(tree.place(of: path), writable: true)
        } catch {
            switch error.errno {
            case .accessDenied, .notPermitted:
                throw closed(path, error)
            case .noSuchFile, .noDevice:
                throw refusal("uio/module", "\(tree.place(of: path)): \(error.errno)")
            default:
                throw .system(error)
            }
        }
    }

    /// The kernel does not let us at a file of the function: the mode of the file, or a lockdown.
    func closed(_ path: String, _ error: SystemError) -> PCIError {
        let mode = tree.textIfAny("/sys/kernel/security/lockdown") ?? ""
        if error.errno == .notPermitted, !mode.isEmpty, !mode.contains("[none]") {
            return refusal(
                "host/locked",
                "the kernel is locked down (\(mode)) and keeps \(tree.place(of: path)) to itself",
                "use VFIO, or switch secure boot off"
            )
        }
        return refusal(
            "uio/permission",
            "\(tree.place(of: path)) (\(tree.ownership(path))) may not be used by this user",
            "run this as root: UIO needs configuration space, BARs and physical addresses"
        )
    }

    private func refusal(_ id: String, _ detail: String, _ remedy: String = "") -> PCIError {
        .refused(HostRefusal(id, detail, remedy: remedy))
    }
}
