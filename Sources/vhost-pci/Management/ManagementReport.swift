import AdminQueue
import Virtio
import VirtioSpec

/// What `mgmt show`, `mgmt caps` and `mgmt commands` tell of a management device, in the forms
/// `vhost-pci.mgmt/1`, `vhost-pci.mgmt-caps/1` and `vhost-pci.mgmt-commands/1`
/// (docs/management-json.md).
struct ManagementReport: Codable, Equatable {
    struct Dialect: Codable, Equatable {
        var name: String
        var isOffered: Bool
        /// Only of a dialect that is spoken.
        var queue: Int?
        var queueSize: UInt16?

        enum CodingKeys: String, CodingKey {
            case name, queue
            case isOffered = "offered"
            case queueSize = "queue_size"
        }
    }

    var schema = "vhost-pci.mgmt/1"
    var target: String
    var type: UInt32
    var typeName: String
    var offered: [DeviceReport.Feature]
    var dialects: [Dialect]
    var capabilityMask: UInt64
    var capabilities: [String]
    /// Left out where the device cannot list virtual devices.
    var virtualDeviceCount: Int?
    var notes: [String]

    enum CodingKeys: String, CodingKey {
        case schema, target, type, dialects, capabilities, notes
        case typeName = "type_name"
        case offered = "offered_features"
        case capabilityMask = "capability_mask"
        case virtualDeviceCount = "virtual_device_count"
    }

    init(_ session: ManagementSession) throws {
        let transport = session.transport
        let driver = session.driver
        let queue = ManagementDevice.Queue.virtualDevices
        target = "\(session.target)"
        type = transport.deviceType.rawValue
        typeName = "\(transport.deviceType)"
        offered = DeviceInspection.features(session.offered, transport.deviceType)
        dialects = [
            Dialect(
                name: "virtual-device",
                isOffered: session.offered.contains(.managementVirtualDeviceDialect),
                queue: queue,
                queueSize: try transport.queueLimit(queue)
            ),
            Dialect(
                name: "class",
                isOffered: session.offered.contains(.managementClassDialect)
            ),
            Dialect(name: "group", isOffered: session.offered.contains(.adminQueue)),
        ]
        capabilityMask = driver.capabilities.rawValue
        capabilities = CapabilityTable.names(driver.capabilities)
        virtualDeviceCount = try session.list()?.count
        notes = driver.reports
    }

    /// The report for people.
    var lines: [String] {
        let names = offered.map { "\($0.name ?? "unknown")(\($0.bit))" }
        let spoken = dialects.map { dialect in
            guard let queue = dialect.queue, let size = dialect.queueSize else {
                return "\(dialect.name): \(dialect.isOffered ? "offered, not spoken" : "no")"
            }
            return "\(dialect.name): queue \(queue) of \(size)"
        }
        var lines = [
            "device        \(target)  \(typeName), type \(type)",
            "offers        \(names.joined(separator: " "))",
            "dialects      \(spoken.joined(separator: "; "))",
            "capabilities  \(capabilities.joined(separator: " "))",
        ]
        let count = virtualDeviceCount.map(String.init) ?? "not told: it cannot list them"
        lines.append("devices       \(count)")
        return lines + notes.map { "note          \($0)" }
    }
}

/// What `mgmt caps` tells.
struct CapabilityTable: Codable, Equatable {
    struct Row: Codable, Equatable {
        var bit: UInt8
        var name: String?
        var meaning: String?
        var isOffered: Bool

        enum CodingKeys: String, CodingKey {
            case bit, name, meaning
            case isOffered = "offered"
        }
    }

    var schema = "vhost-pci.mgmt-caps/1"
    var target: String
    var capabilityMask: UInt64
    var capabilities: [Row]

    enum CodingKeys: String, CodingKey {
        case schema, target, capabilities
        case capabilityMask = "capability_mask"
    }

    private static let known: [(bit: UInt8, name: String, meaning: String)] = [
        (1, "VDEV", "creates, configures and destroys virtual devices"),
        (32, "ERROR", "a failed command says what was wrong"),
        (33, "STATIC", "lists and describes virtual devices"),
        (34, "CONFIG", "reads and writes configuration space"),
        (35, "IRQ", "binds queues and changes to interrupt vectors"),
        (36, "VQ", "sets up queues"),
        (37, "MMU", "maps memory for each virtual device"),
        (38, "EVENT", "sends events on a queue of their own"),
    ]

    init(target: String, _ capabilities: AdminCapabilities) {
        self.target = target
        capabilityMask = capabilities.rawValue
        let mask = capabilities.rawValue
        let names = Dictionary(uniqueKeysWithValues: Self.known.map { ($0.bit, $0) })
        self.capabilities = (0..<UInt8(64)).compactMap { bit in
            let isOffered = mask & (1 << UInt64(bit)) != 0
            guard isOffered || names[bit] != nil else { return nil }
            return Row(
                bit: bit,
                name: names[bit]?.name,
                meaning: names[bit]?.meaning,
                isOffered: isOffered
            )
        }
    }

    /// Names of what is offered; a number for what has none.
    static func names(_ capabilities: AdminCapabilities) -> [String] {
        CapabilityTable(target: "", capabilities).capabilities.filter(\.isOffered)
            .map { $0.name ?? "bit-\($0.bit)" }
    }

    /// The table for people.
    var lines: [String] {
        var table = TextTable(["bit", "name", "offered", "meaning"])
        for row in capabilities {
            table.add([
                "\(row.bit)", row.name ?? "", row.isOffered ? "yes" : "no",
                row.meaning ?? "unknown to this program",
            ])
        }
        return table.lines
    }
}

/// What `mgmt commands` tells.
struct AdminCommandTable: Codable, Equatable {
    struct Row: Codable, Equatable {
        var opcode: UInt32
        var name: String
        var requires: [String]
        var isAvailable: Bool

        enum CodingKeys: String, CodingKey {
            case opcode, name, requires
            case isAvailable = "available"
        }
    }

    var schema = "vhost-pci.mgmt-commands/1"
    var target: String
    var dialect = "virtual-device"
    var commands: [Row]

    init(target: String, _ capabilities: AdminCapabilities) {
        self.target = target
        commands = VirtualDeviceOpcode.allCases.map { opcode in
            Row(
                opcode: opcode.rawValue,
                name: opcode.name,
                requires: CapabilityTable.names(opcode.requiredCapabilities),
                isAvailable: capabilities.isSuperset(of: opcode.requiredCapabilities)
            )
        }
    }

    /// The table for people.
    var lines: [String] {
        var table = TextTable(["class", "command", "name", "available", "requires"])
        for row in commands {
            table.add([
                HexText.of(row.opcode >> 16, digits: 4), HexText.of(row.opcode & 0xffff, digits: 4),
                row.name, row.isAvailable ? "yes" : "no", row.requires.joined(separator: " "),
            ])
        }
        return table.lines
    }
}
