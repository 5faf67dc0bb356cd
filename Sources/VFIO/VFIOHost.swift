internal import HostSystem
internal import PCI

/// Where VFIO presents one function on this host, and what stands in the way when it does not.
struct VFIOHost {
    /// How to reach the function.
    enum Entrance: Equatable {
        /// Its own character device, with iommufd.
        case character(String)
        /// The IOMMU group it belongs to.
        case group(Int)
    }

    static let container = "/dev/vfio/vfio"
    static let iommufd = "/dev/iommu"

    let tree: HostTree
    let address: PCIAddress

    /// The folder of the function in sysfs.
    var folder: String { "/sys/bus/pci/devices/\(address)" }

    /// Finds the way in. Nothing is opened.
    func entrance() throws(PCIError) -> Entrance {
        guard tree.exists(folder) else {
            throw refusal("pci/address", "there is no PCI function \(address)")
        }
        if let name = tree.entriesIfAny("\(folder)/vfio-dev").first, tree.exists(Self.iommufd),
            tree.exists("/dev/vfio/devices/\(name)")
        {
            return .character("/dev/vfio/devices/\(name)")
        }
        guard let link = tree.linkName("\(folder)/iommu_group"), let group = Int(link) else {
            let cause = IOMMUAbsence(in: tree)
            throw refusal(
                "iommu/off",
                "\(address) has no IOMMU group: \(cause.text)",
                cause.remedy
            )
        }
        guard tree.exists(Self.container) else {
            throw refusal(
                "vfio/module",
                "there is no \(tree.place(of: Self.container)): VFIO is not loaded",
                "load it: modprobe vfio-pci"
            )
        }
        guard tree.exists("/dev/vfio/\(group)") else { throw notBound(group) }
        return .group(group)
    }

    /// The group exists, but VFIO does not have it: the function has another driver, or none.
    private func notBound(_ group: Int) -> PCIError {
        if tree.exists("/dev/vfio/noiommu-\(group)") {
            return refusal(
                "iommu/noiommu",
                "\(address) is in no-IOMMU mode: its memory accesses would not be confined",
                "switch an IOMMU on, or use uio_pci_generic with --unsafe-no-iommu"
            )
        }
        let driver = tree.linkName("\(folder)/driver")
        return refusal(
            "bind/driver",
            "\(address) is bound to \(driver ?? "no driver"), not to vfio-pci, and so there is no"
                + " \(tree.place(of: "/dev/vfio/\(group)"))",
            "bind it: vhost-pci device bind \(address)"
        )
    }

    // How udev knows a node: groups, devices of their own, and what belongs to nobody in particular.
    private static func match(_ node: String) -> String {
        if node.hasPrefix("/dev/vfio/devices/") { return "SUBSYSTEM==\"vfio-dev\"" }
        let name = node.split(separator: "/").last.map(String.init) ?? node
        return Int(name) == nil
            ? "SUBSYSTEM==\"misc\", KERNEL==\"\(name)\"" : "SUBSYSTEM==\"vfio\""
    }

    /// A node of VFIO could not be opened.
    func openFailure(_ node: String, _ error: SystemError) -> PCIError {
        let path = tree.place(of: node)
        switch error.errno {
        case .accessDenied, .notPermitted:
            return refusal(
                "vfio/permission",
                "\(path) (\(tree.ownership(node))) may not be opened by this user",
                "let a group of users in, with a udev rule: \(Self.match(node)),"
                    + " OWNER=\"root\", GROUP=\"vfio\", MODE=\"0660\""
            )
        case .busy:
            return refusal(
                "vfio/busy",
                "\(path) is open already\(holder(path))",
                "end that program first"
            )
        case .noSuchFile, .noDevice:
            return refusal(
                "vfio/module",
                "\(path): \(error.errno)",
                "load VFIO: modprobe vfio-pci"
            )
        default:
            return .system(error)
        }
    }

    /// The device was refused although its group could be opened.
    func deviceFailure(_ error: SystemError, hasToken: Bool) -> PCIError {
        switch error.errno {
        case .accessDenied:
            let detail =
                hasToken
                ? "the token given is not the one that the physical function's user has set"
                : "\(address) is a virtual function whose physical function asks for a token"
            return refusal(
                "vfio/token",
                detail,
                "pass the UUID that the physical function's program was started with as vf_token"
            )
        case .busy:
            return refusal("vfio/busy", "\(address) is in use already")
        case .noDevice:
            return refusal(
                "bind/driver",
                "\(address) is bound to \(tree.linkName("\(folder)/driver") ?? "no driver")",
                "bind it: vhost-pci device bind \(address)"
            )
        default:
            return .system(error)
        }
    }

    /// The kernel will not give the group away while one of its members is in use (HI-J4).
    func groupRefusal(_ group: Int) -> PCIError {
        let members = tree.entriesIfAny("/sys/kernel/iommu_groups/\(group)/devices")
        var culprits: [String] = []
        let list = members.map { member in
            let place = "/sys/bus/pci/devices/\(member)"
            let driver = tree.linkName("\(place)/driver")
            let isBridge = tree.textIfAny("\(place)/class")?.hasPrefix("0x0604") ?? false
            // Drivers that leave the group's memory accesses to its user (driver_managed_dma).
            let harmless = driver.map { $0.contains("vfio") || Self.harmless.contains($0) } ?? true
            if !harmless { culprits.append(member) }
            return "\(member) on \(driver ?? "no driver")"
                + (harmless ? (isBridge ? " (a bridge, harmless)" : "") : " (in the way)")
        }
        let virtual = members.filter { tree.exists("/sys/bus/pci/devices/\($0)/virtfn0") }
        let physical =
            virtual.isEmpty
            ? "" : "; virtual functions of \(virtual.joined(separator: ", ")) exist"
        return refusal(
            "vfio/group",
            "IOMMU group \(group) of \(address) cannot be used: "
                + (list.isEmpty ? "its members are unknown" : list.joined(separator: ", "))
                + physical,
            culprits.isEmpty
                ? "see the kernel's log"
                : "unbind \(culprits.joined(separator: ", ")), or bind to"
                    + " vfio-pci too"
        )
    }

    /// The kernel does not know a request (HI-J33); `nil` for any other failure.
    static func tooOld(_ error: SystemError, _ what: String, since version: String) -> PCIError? {
        guard error.errno == .notATerminal else { return nil }
        return .refused(
            HostRefusal(
                "host/kernel",
                "this kernel does not have \(what)",
                remedy: "use Linux \(version) or newer"
            )
        )
    }

    private static let harmless = ["pcieport", "pci-stub"]

    private func holder(_ path: String) -> String {
        let found = tree.holders(of: path)
        return found.isEmpty ? "" : ", by \(found.joined(separator: ", "))"
    }

    private func refusal(_ id: String, _ detail: String, _ remedy: String = "") -> PCIError {
        .refused(HostRefusal(id, detail, remedy: remedy))
    }
}
