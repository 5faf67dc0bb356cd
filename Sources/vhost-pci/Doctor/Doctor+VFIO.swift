import HostSystem
import PCI

// The kernel's ways of handing out functions.
extension Doctor {
    static let drivers = "/sys/bus/pci/drivers"
    static let container = "/dev/vfio/vfio"

    var vfio: [Finding] {
        let module = driverFinding("vfio-pci", "vfio/module", isNeeded: true)
        var findings = [module, iommufd, noIOMMU]
        if tree.exists(Self.container) {
            findings.append(node(Self.container))
        } else if module.outcome == .ok {
            findings.append(
                .fail(
                    "vfio/module",
                    "vfio-pci is there, but no \(Self.container)",
                    read: Self.container,
                    remedy: "modprobe vfio; in a container, have /dev/vfio passed in"
                )
            )
        }
        findings.append(mappings)
        return findings
    }

    private func driverFinding(_ name: String, _ id: String, isNeeded: Bool) -> Finding {
        let path = "\(Self.drivers)/\(name)"
        if tree.exists(path) { return .ok(id, "\(name) is loaded", read: path) }
        if case .closed(let why) = directory(Self.drivers) {
            return .unknown(id, why, read: Self.drivers)
        }
        let modules = KernelModules(tree)
        let refusal = modules.refusal(of: name)
        guard let has = modules.has(name) else {
            return .unknown(
                id,
                "\(name) is not loaded, and the list of modules cannot be read",
                read: path,
                "/lib/modules",
                remedy: refusal.remedy
            )
        }
        if !isNeeded {
            return .ok(id, has ? "\(name) can be loaded" : refusal.detail, read: path)
        }
        return has
            ? .warn(id, refusal.detail, read: path, remedy: refusal.remedy)
            : .fail(id, refusal.detail, read: path, "/lib/modules", remedy: refusal.remedy)
    }

    private var iommufd: Finding {
        let path = "/dev/iommu"
        return .ok(
            "vfio/iommufd",
            tree.exists(path)
                ? "the kernel has iommufd"
                : "no iommufd in this kernel: groups and containers are used",
            read: path
        )
    }

    private var noIOMMU: Finding {
        let id = "iommu/unsafe"
        let path = "/sys/module/vfio/parameters/enable_unsafe_noiommu_mode"
        switch file(path) {
        case .text("Y"), .text("1"):
            return .warn(
                id,
                "vfio-pci hands out functions that no IOMMU confines; the kernel is tainted by it",
                read: path,
                remedy: "echo N > \(path)"
            )
        case .text: return .ok(id, "VFIO hands out nothing without an IOMMU", read: path)
        case .absent:
            let isLoaded = tree.exists("\(Self.drivers)/vfio-pci")
            return .ok(
                id,
                isLoaded ? "this VFIO needs an IOMMU" : "VFIO is not loaded",
                read: path
            )
        case .closed(let why): return .unknown(id, why, read: path)
        }
    }

    /// A node can be opened by this user (HI-J8).
    func node(_ path: String) -> Finding {
        let id = "vfio/permission"
        guard let file = tree.attributes(path) else {
            return .unknown(id, "\(path) cannot be looked at", read: path)
        }
        let mode = String(file.mode & 0o777, radix: 8)
        let owner = "owner \(file.owner), group \(file.group), mode \(mode)"
        switch process.mayUse(file) {
        case true: return .ok(id, "this user may open it (\(owner))", read: path)
        case false:
            return .fail(
                id,
                "this user may not open it (\(owner))",
                read: path,
                remedy: "a udev rule lets a group of users in:"
                    + " SUBSYSTEM==\"vfio\", GROUP=\"vfio\", MODE=\"0660\""
            )
        default:
            return .unknown(id, "who this user is cannot be read", read: ProcessFacts.statusPath)
        }
    }

    private var mappings: Finding {
        let id = "limit/dma-entries"
        let path = "/sys/module/vfio_iommu_type1/parameters/dma_entry_limit"
        switch file(path) {
        case .text(let text):
            guard let limit = UInt64(text) else {
                return .unknown(id, "'\(text)' is no number", read: path)
            }
            guard limit < 1024 else {
                return .ok(id, "\(limit) mappings a container", read: path)
            }
            return .warn(
                id,
                "only \(limit) mappings a container: memory in small pages may not fit",
                read: path,
                remedy: "echo 65535 > \(path)"
            )
        case .absent:
            return .unknown(id, "vfio_iommu_type1 is not loaded", read: path)
        case .closed(let why): return .unknown(id, why, read: path)
        }
    }

    // MARK: UIO

    var uio: [Finding] {
        let module = driverFinding("uio_pci_generic", "uio/module", isNeeded: false)
        let path = "/sys/class/uio"
        let names = tree.entriesIfAny(path)
        guard !names.isEmpty else { return [module] }
        return [
            module,
            .warn(
                "uio/unsafe",
                "\(names.joined(separator: ", ")): nothing confines the memory accesses of a"
                    + " device that is driven through UIO",
                read: path,
                remedy: "use vfio-pci on a machine with an IOMMU"
            ),
        ]
    }

    // MARK: Changes that were made

    /// What this program changed and nobody put back (HI-J12).
    var bindings: Finding {
        let id = "bind/journal"
        let path = BindingJournal.directory
        switch directory(path) {
        case .names(let all) where all.contains(where: { PCIAddress($0) != nil }):
            // A draft that a crash left there is no record.
            let names = all.filter { PCIAddress($0) != nil }
            let unfinished = names.filter { !isAsTold($0) }
            guard let first = unfinished.first else {
                let list = names.joined(separator: ", ")
                return .ok(id, "changed by this program, and as it was told: \(list)", read: path)
            }
            return .warn(
                id,
                "changed by this program, and without the driver that it was told to have:"
                    + " \(unfinished.joined(separator: ", "))",
                read: path,
                remedy: "vhost-pci device restore \(first)"
            )
        case .closed(let why): return .unknown(id, why, read: path)
        default: return .ok(id, "no binding was changed by this program", read: path)
        }
    }

    private func isAsTold(_ function: String) -> Bool {
        let place = "\(PCIBus.directory)/\(function)"
        let driver = tree.linkName("\(place)/driver")
        return driver != nil && driver == file("\(place)/driver_override").text
    }
}
