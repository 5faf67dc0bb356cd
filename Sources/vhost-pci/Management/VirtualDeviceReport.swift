import VirtioSpec

/// One virtual device, as `vdev list` and `vdev show` tell it (docs/management-json.md).
struct VirtualDeviceReport: Codable, Equatable {
    var id: UInt64
    var type: UInt32
    var typeName: String
    /// Built into the management device: it cannot be destroyed.
    var isStatic: Bool
    var state: [String]
    var queueCount: UInt16
    var maximumQueueSize: UInt16
    var vectorCount: UInt16
    var configurationSize: UInt32
    var status: String?
    var offered: [DeviceReport.Feature]?
    var queues: [DeviceReport.Queue]?
    var configuration: [DeviceReport.Field]?
    var configurationBytes: String?

    enum CodingKeys: String, CodingKey {
        case id, type, state, status, queues, configuration
        case typeName = "type_name"
        case isStatic = "static"
        case queueCount = "queue_count"
        case maximumQueueSize = "maximum_queue_size"
        case vectorCount = "vector_count"
        case configurationSize = "configuration_size"
        case offered = "offered_features"
        case configurationBytes = "configuration_bytes"
    }

    init(id: UInt64, _ information: DeviceInformation) {
        self.id = id
        type = information.type.rawValue
        typeName = "\(information.type)"
        isStatic = information.flags.contains(.isStatic)
        let words: [(DeviceInformation.Flags, String)] = [
            (.driverOK, "driven"), (.isStopped, "stopped"), (.mmuFail, "mmu-fault"),
        ]
        state = words.filter { information.flags.contains($0.0) }.map(\.1)
        queueCount = information.queueCount
        maximumQueueSize = information.maximumQueueSize
        vectorCount = information.vectorCount
        configurationSize = information.configurationSize
    }

    /// One fact a line.
    var lines: [String] {
        var lines = [
            "device      \(id)  \(typeName), type \(type)\(isStatic ? ", built in" : "")",
            "state       \(state.isEmpty ? "idle" : state.joined(separator: " "))",
        ]
        if let status { lines.append("status      \(status)") }
        if let offered {
            let names = offered.map { "\($0.name ?? "unknown")(\($0.bit))" }
            lines.append("offers      \(names.isEmpty ? "nothing" : names.joined(separator: " "))")
        }
        let sizes = queues.map { ", sizes " + $0.map { "\($0.size)" }.joined(separator: " ") } ?? ""
        lines.append("queues      \(queueCount), at most \(maximumQueueSize) entries\(sizes)")
        lines.append("vectors     \(vectorCount)")
        lines.append("config      \(configurationSize) bytes")
        lines += (configuration ?? []).map { "            \($0.name) \($0.value)" }
        if let configurationBytes { lines.append("            \(configurationBytes)") }
        return lines
    }
}

/// `vhost-pci.vdev-list/1`.
struct VirtualDeviceList: Codable, Equatable {
    var schema = "vhost-pci.vdev-list/1"
    var target: String
    var devices: [VirtualDeviceReport]
    /// Why there are none.
    var reason: String?

    init(target: String, _ devices: [VirtualDeviceReport]) {
        self.target = target
        self.devices = devices
        reason =
            devices.isEmpty
            ? "no virtual device is built into \(target), and created ones live only as long as"
                + " the command that created them (`vdev add --hold`)"
            : nil
    }

    /// The table for people.
    var lines: [String] {
        guard !devices.isEmpty else { return [] }
        var table = TextTable(["id", "type", "built in", "state", "queues", "vectors", "config"])
        for device in devices {
            table.add([
                "\(device.id)", device.typeName, device.isStatic ? "yes" : "no",
                device.state.isEmpty ? "idle" : device.state.joined(separator: " "),
                "\(device.queueCount)", "\(device.vectorCount)",
                "\(device.configurationSize) bytes",
            ])
        }
        return table.lines
    }
}

/// `vhost-pci.vdev-show/1`.
struct VirtualDeviceShow: Codable, Equatable {
    var schema = "vhost-pci.vdev-show/1"
    var target: String
    var device: VirtualDeviceReport
}

/// What a command changed, or would change: `vhost-pci.vdev-change/1`.
struct VirtualDeviceChange: Codable, Equatable {
    struct Command: Codable, Equatable {
        var name: String
        /// The device-readable bytes, in hexadecimal digits.
        var bytes: String

        init(_ command: VirtualDeviceCommand, for id: UInt64 = 0) {
            name = command.opcode.name
            bytes = HexBytes.text(command.bytes(for: id))
        }
    }

    var schema = "vhost-pci.vdev-change/1"
    var target: String
    var operation: String
    var id: UInt64?
    var commands: [Command]
    var isDryRun: Bool
    var isChanged: Bool
    var device: VirtualDeviceReport?
    var notes: [String] = []

    enum CodingKeys: String, CodingKey {
        case schema, target, operation, id, commands, device, notes
        case isDryRun = "dry_run"
        case isChanged = "changed"
    }

    /// A change that is not made yet.
    init(_ operation: String, target: String, id: UInt64? = nil, _ commands: [Command]) {
        self.operation = operation
        self.target = target
        self.id = id
        self.commands = commands
        isDryRun = true
        isChanged = false
    }

    /// The change for people.
    func lines(done: String) -> [String] {
        let first =
            isDryRun ? commands.map { "would send \($0.name): \($0.bytes)" } : [done]
        return first + (device?.lines ?? []) + notes.map { "note: \($0)" }
    }
}
