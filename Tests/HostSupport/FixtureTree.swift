internal import FoundationEssentials
public import HostSystem

/// A made-up host in a temporary directory: what a kernel would show below `/sys`, `/proc` and
/// `/dev`. The directory goes with the object.
public final class FixtureTree {
    /// Where it lies.
    public let root: String
    /// For the code under test.
    public let tree: HostTree

    private let files = FileManager.default

    /// Makes an empty host with an empty PCI bus.
    public init(hasBus: Bool = true) throws {
        root = files.temporaryDirectory.path + "/vhost-pci-host-\(UUID().uuidString)"
        tree = HostTree(root: root)
        try directory(hasBus ? "/sys/bus/pci/devices" : "/sys")
    }

    deinit {
        try? files.removeItem(atPath: root)
    }

    /// Makes a directory and those above it.
    public func directory(_ path: String) throws {
        try files.createDirectory(atPath: root + path, withIntermediateDirectories: true)
    }

    /// Makes a file, with the directories above it.
    public func file(_ path: String, _ text: String) throws {
        try file(path, bytes: Array(text.utf8))
    }

    /// Makes a file of bytes.
    public func file(_ path: String, bytes: [UInt8]) throws {
        try directory(String(path[..<(path.lastIndex(of: "/") ?? path.startIndex)]))
        try Data(bytes).write(to: URL(filePath: root + path))
    }

    /// Changes who may use a file.
    public func mode(_ path: String, _ mode: Int) throws {
        try files.setAttributes([.posixPermissions: mode], ofItemAtPath: root + path)
    }

    /// Makes or replaces a symbolic link.
    public func link(_ path: String, to target: String) throws {
        try directory(String(path[..<(path.lastIndex(of: "/") ?? path.startIndex)]))
        try? files.removeItem(atPath: root + path)
        try files.createSymbolicLink(atPath: root + path, withDestinationPath: target)
    }

    /// Removes a file, link or directory; one that is not there is fine.
    public func remove(_ path: String) {
        try? files.removeItem(atPath: root + path)
    }

    /// The text of a file.
    public func text(_ path: String) throws -> String {
        try tree.text(path)
    }

    /// The directory of a function.
    public static func device(_ address: String) -> String { "/sys/bus/pci/devices/\(address)" }

    /// Adds a PCI function.
    public func function(
        _ address: String,
        vendor: UInt16 = 0x1af4,
        device: UInt16 = 0x1041,
        classCode: UInt32 = 0x020000,
        driver: String? = nil,
        group: Int? = nil,
        configuration: [UInt8]? = nil,
        resource: String = "0x0000004000100000 0x000000400017ffff 0x0000000000140204"
    ) throws {
        let place = Self.device(address)
        func hex(_ value: some BinaryInteger, _ digits: Int) -> String {
            let text = String(value, radix: 16)
            return "0x" + String(repeating: "0", count: max(0, digits - text.count)) + text
        }
        try file("\(place)/vendor", hex(vendor, 4) + "\n")
        try file("\(place)/device", hex(device, 4) + "\n")
        try file("\(place)/subsystem_vendor", hex(vendor, 4) + "\n")
        try file("\(place)/subsystem_device", hex(device, 4) + "\n")
        try file("\(place)/class", hex(classCode, 6) + "\n")
        try file("\(place)/revision", "0x01\n")
        try file("\(place)/irq", "0\n")
        try file("\(place)/numa_node", "-1\n")
        try file("\(place)/driver_override", "(null)\n")
        let empty = "0x0000000000000000 0x0000000000000000 0x0000000000000000\n"
        try file(
            "\(place)/resource",
            resource + "\n" + String(repeating: empty, count: 6)
        )
        let bytes = configuration ?? ConfigurationBytes(vendor: vendor, device: device).bytes
        try file("\(place)/config", bytes: bytes)
        if let driver { try bind(address, to: driver) }
        if let group { try join(address, group: group) }
    }

    /// Adds a driver.
    public func driver(_ name: String) throws {
        try directory("/sys/bus/pci/drivers/\(name)")
        try file("/sys/bus/pci/drivers/\(name)/unbind", "")
        try file("/sys/bus/pci/drivers/\(name)/bind", "")
        try file("/sys/bus/pci/drivers_probe", "")
    }

    /// Binds a function, as if it had always been so.
    public func bind(_ address: String, to driver: String) throws {
        try self.driver(driver)
        try link(
            "\(Self.device(address))/driver",
            to: "../../drivers/\(driver)"
        )
    }

    /// Puts a function into an IOMMU group.
    public func join(_ address: String, group: Int) throws {
        let place = "/sys/kernel/iommu_groups/\(group)"
        try link("\(place)/devices/\(address)", to: "../../../../bus/pci/devices/\(address)")
        try file("\(place)/type", "DMA-FQ\n")
        try link(
            "\(Self.device(address))/iommu_group",
            to: "../../../../kernel/iommu_groups/\(group)"
        )
    }

    /// Gives a function a network interface.
    public func interface(_ name: String, of address: String) throws {
        let place = "\(Self.device(address))/virtio0/net/\(name)"
        try file("\(place)/operstate", "up\n")
        try link(
            "/sys/class/net/\(name)",
            to: "../../bus/pci/devices/\(address)/virtio0/net/\(name)"
        )
    }

    /// Gives a function a disk, with partitions.
    public func disk(_ name: String, of address: String, partitions: [String] = []) throws {
        let place = "../../bus/pci/devices/\(address)/virtio1/block/\(name)"
        try file("\(Self.device(address))/virtio1/block/\(name)/dev", "254:0\n")
        try link("/sys/class/block/\(name)", to: place)
        for partition in partitions {
            try file("\(Self.device(address))/virtio1/block/\(name)/\(partition)/dev", "254:1\n")
            try link("/sys/class/block/\(partition)", to: "\(place)/\(partition)")
        }
    }
}
