internal import CSystemShims
internal import HostSystem

extension PCIBus {
    /// What libpci and sysfs know of a function. What cannot be read is `nil` or empty.
    public struct Record: Hashable, Sendable {
        /// Where it is.
        public let address: PCIAddress
        /// Its ids.
        public let identity: PCIIdentity
        /// Vendor and device by name.
        public let name: String
        /// Class by name.
        public let className: String
        /// The kernel driver bound to it, `nil` when there is none.
        public let driver: String?
        /// The only driver that may bind to it, `nil` when any may (HI-J13).
        public let driverOverride: String?
        /// NUMA node, `nil` when the machine does not say.
        public let node: Int?
        /// CPUs near to it, as the kernel writes lists.
        public let localCPUs: String?
        /// What is isolated together with it, `nil` without an IOMMU.
        public let group: IOMMUGroup?
        /// Ways to reset it, in the order in which the kernel tries them; `nil` when it has none.
        public let resetMethods: [String]?
        /// Its PCI Express link, `nil` when it has none to show.
        public let link: PCIeLink?
        /// The physical function of a virtual one.
        public let physicalFunction: PCIAddress?
        /// The virtual functions of a physical one, those that are switched on.
        public let virtualFunctions: [PCIAddress]
        /// Most virtual functions that it can have; `nil` when it has no SR-IOV.
        public let maximumVirtualFunctions: Int?
        /// The BARs that are there.
        public let resources: [PCIResource]
        /// Power state by name.
        public let powerState: String?
        /// Network interfaces that its driver made.
        public let interfaces: [String]
        /// Block devices that its driver made.
        public let disks: [String]
        /// What the kernel's virtio driver calls the device, `nil` without that driver.
        public let virtioDevice: VirtioKernelDevice?
        /// Vectors that the kernel has allocated for it.
        public let allocatedVectors: Int?

        /// Its directory in sysfs.
        public var directory: String { "\(PCIBus.directory)/\(address)" }

        /// Vendor and device number of a virtio function (virtio 1.3 §4.1.2).
        public var isVirtio: Bool { identity.isVirtio }

        init(_ raw: shim_pci_function, in tree: HostTree) {
            let address = PCIAddress(raw)
            let directory = "\(PCIBus.directory)/\(address)"
            func text(_ file: String) -> String? { tree.textIfAny("\(directory)/\(file)") }
            func number(_ file: String) -> Int? { text(file).flatMap { Int($0) } }
            self.address = address
            identity = PCIIdentity(
                vendor: raw.vendor,
                device: raw.device_id,
                subsystemVendor: raw.subsystem_vendor,
                subsystem: raw.subsystem_device,
                classCode: raw.class_code,
                revision: raw.revision
            )
            name = PCIBus.text(raw.name)
            className = PCIBus.text(raw.class_name)
            driver = tree.linkName("\(directory)/driver")
            driverOverride = text("driver_override").flatMap {
                $0.isEmpty || $0 == "(null)" ? nil : $0
            }
            node = number("numa_node").flatMap { $0 < 0 ? nil : $0 }
            localCPUs = text("local_cpulist")
            group = IOMMUGroup(of: address, in: tree)
            resetMethods = text("reset_method").flatMap {
                let methods = $0.split(separator: " ").map(String.init)
                return methods.isEmpty ? nil : methods
            }
            link = PCIeLink(
                speed: text("current_link_speed"),
                width: text("current_link_width"),
                maximumSpeed: text("max_link_speed"),
                maximumWidth: text("max_link_width")
            )
            physicalFunction = tree.linkName("\(directory)/physfn").flatMap { PCIAddress($0) }
            virtualFunctions = PCIBus.virtualFunctions(of: directory, in: tree)
            maximumVirtualFunctions = number("sriov_totalvfs")
            resources = PCIResource.list(text("resource") ?? "")
            powerState = text("power_state")
            let virtio = VirtioKernelDevice(of: directory, in: tree)
            virtioDevice = virtio
            let parents = [directory] + (virtio.map { ["\(directory)/\($0.name)"] } ?? [])
            interfaces = parents.flatMap { tree.entriesIfAny("\($0)/net") }
            disks = PCIBus.disks(of: address, in: tree)
            let vectors = tree.entriesIfAny("\(directory)/msi_irqs")
            allocatedVectors = vectors.isEmpty ? nil : vectors.count
        }
    }

    // A disk may stand many levels below its function (host, target, namespace), but its own link
    // leads there through the function's directory. A namespace that several NVMe controllers share
    // does not: its paths, as nvme0c1n1, stand below the controllers.
    private static func disks(of address: PCIAddress, in tree: HostTree) -> [String] {
        let controllers = "\(directory)/\(address)/nvme"
        let shared = tree.entriesIfAny(controllers).flatMap { controller in
            tree.entriesIfAny("\(controllers)/\(controller)").compactMap(Self.namespace)
        }
        return tree.entriesIfAny("/sys/class/block").filter { name in
            guard let target = try? tree.link("/sys/class/block/\(name)") else { return false }
            let parts = target.split(separator: "/")
            return parts.contains { $0 == address.description || shared.contains(String($0)) }
        }
    }

    // nvme0c1n1 is a path to nvme0n1.
    private static func namespace(_ path: String) -> String? {
        guard path.hasPrefix("nvme"), let controller = path.dropFirst(4).firstIndex(of: "c"),
            let number = path[controller...].firstIndex(of: "n")
        else { return nil }
        return String(path[..<controller] + path[number...])
    }

    private static func virtualFunctions(of directory: String, in tree: HostTree) -> [PCIAddress] {
        tree.entriesIfAny(directory)
            .filter { $0.hasPrefix("virtfn") }
            .compactMap { tree.linkName("\(directory)/\($0)").flatMap { PCIAddress($0) } }
            .sorted()
    }

    private static func text<Characters>(_ characters: Characters) -> String {
        unsafe withUnsafeBytes(of: characters) { bytes in
            unsafe String(decoding: bytes.prefix { $0 != 0 }, as: UTF8.self)
        }
    }
}

/// A device as the kernel's virtio driver shows it in sysfs.
public struct VirtioKernelDevice: Hashable, Sendable {
    /// As `virtio2`.
    public let name: String
    /// The features that were negotiated with that driver, not all that are offered.
    public let negotiatedFeatures: UInt64
    /// The status byte.
    public let status: UInt8?

    init?(of directory: String, in tree: HostTree) {
        let names = tree.entriesIfAny(directory).filter { entry in
            entry.hasPrefix("virtio") && entry.dropFirst(6).allSatisfy(\.isNumber)
                && entry.count > 6
        }
        guard let name = names.first else { return nil }
        self.name = name
        let bits = tree.textIfAny("\(directory)/\(name)/features") ?? ""
        // One character a bit, bit 0 first.
        var features: UInt64 = 0
        for (bit, character) in bits.prefix(64).enumerated() where character == "1" {
            features |= 1 << UInt64(bit)
        }
        negotiatedFeatures = features
        let status = tree.textIfAny("\(directory)/\(name)/status")
        self.status = status.flatMap { UInt8($0.dropFirst(2), radix: 16) }
    }
}

extension PCIIdentity {
    /// Number of the virtio device type; `nil` when this is no virtio function. Transitional
    /// functions carry it in the subsystem id (virtio 1.3 §4.1.2).
    public var virtioType: UInt32? {
        guard isVirtio else { return nil }
        return isTransitionalVirtio ? UInt32(subsystem) : UInt32(device) - 0x1040
    }

    /// A virtio function by vendor and device number (virtio 1.3 §4.1.2).
    public var isVirtio: Bool { vendor == 0x1af4 && (0x1000...0x107f).contains(device) }

    /// A virtio function whose number belongs to the time before virtio 1.0; it may have the
    /// interface of today besides (virtio 1.3 §4.1.2.1).
    public var isTransitionalVirtio: Bool { vendor == 0x1af4 && (0x1000...0x103f).contains(device) }
}
