import AdminQueue
import ArgumentParser
import CSystemShims
import HostSystem
import Virtio
import VirtioSpec

/// `vhost-pci vdev add`.
struct VdevAddCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "add",
        abstract: "Create a virtual device.",
        discussion: """
            Shows what was created. The device lives until the command ends; with `--hold` that is \
            when it is interrupted. What is not asked for is the device type's own choice.
            """
    )

    @OptionGroup var options: ManagementOptions

    @Option(help: "vhost-pci-net, net, console, or the number of a type.")
    var type: DeviceTypeName

    @Option(help: "Features to offer, a hexadecimal mask such as 0x100008000.")
    var features: HexMask?

    @Option(help: "Number of queues.")
    var queues: UInt16?

    @Option(help: "Most entries of a queue, a power of two.")
    var queueSize: UInt16?

    @Option(help: "Number of interrupt vectors.")
    var vectors: UInt16?

    @Option(help: "First bytes of the configuration space, as hexadecimal digits.")
    var configuration: HexOption?

    @Option(help: "A name that survives the device: 16 bytes as hexadecimal digits.")
    var uuid: UUIDBytes?

    @Flag(help: "Keep the device until interrupted.")
    var hold = false

    @OptionGroup var mode: VirtualDeviceChangeOptions

    func validate() throws {
        if let queueSize, queueSize == 0 || queueSize & (queueSize - 1) != 0 || queueSize > 32768 {
            throw ValidationError("--queue-size is a power of two of at most 32768")
        }
        if hold, mode.dryRun { throw ValidationError("--hold and --dry-run exclude each other") }
    }

    /// What the options ask for.
    var attributes: DeviceAttributes {
        var attributes = DeviceAttributes()
        attributes.features = features.map { FeatureBits(rawValue: $0.value) }
        attributes.queueCount = queues
        attributes.maximumQueueSize = queueSize
        attributes.vectorCount = vectors
        attributes.configuration = configuration?.bytes
        attributes.uuid = uuid?.bytes
        return attributes
    }

    func run() throws {
        let command = VirtualDeviceCommand.create(type: type.type, attributes: attributes.bytes)
        let change = VirtualDeviceChange(
            "add",
            target: "\(options.target)",
            [VirtualDeviceChange.Command(command)]
        )
        // Before the device is there: an interrupt shall not end the command without it.
        let signals =
            hold
            ? FileDescriptor(
                owning: try checked(shim_termination_signals(), "watch for signals")
            ) : nil
        try mode.run(change, options) { session, change in
            let id = try session.driver.create(type: type.type, attributes: attributes)
            change.id = id
            change.device = try? session.show(id)
            change.notes = [Self.lifetime(options.target, isHeld: hold)]
            return "virtual device \(id), \(type.type)"
        } hold: { session, change in
            if let signals { try session.wait(for: signals) }
            if let id = change.id { try session.driver.destroy(id) }
        }
    }

    /// How long the device lives.
    static func lifetime(_ target: DeviceTarget, isHeld: Bool) -> String {
        let end = isHeld ? "is interrupted" : "ends; --hold keeps it until interrupted"
        return target == .emulated
            ? "the management device is emulated in this process: it and its virtual device are"
                + " gone when this command \(end)"
            : "the virtual device is gone when this command \(end)"
    }
}

/// A 64-bit mask in hexadecimal digits.
struct HexMask: ExpressibleByArgument {
    let value: UInt64

    init?(argument: String) {
        let digits = argument.hasPrefix("0x") ? argument.dropFirst(2) : argument[...]
        guard let first = digits.first, first.isHexDigit, let value = UInt64(digits, radix: 16)
        else { return nil }
        self.value = value
    }
}

/// Bytes in hexadecimal digits, as many as an attribute takes.
struct HexOption: ExpressibleByArgument {
    let bytes: [UInt8]

    init?(argument: String) {
        guard let bytes = HexBytes.parse(argument), bytes.count <= 2048 else { return nil }
        self.bytes = bytes
    }
}

/// The 16 bytes of a UUID, with or without dashes.
struct UUIDBytes: ExpressibleByArgument {
    let bytes: [UInt8]

    init?(argument: String) {
        guard let bytes = HexBytes.parse(argument.filter { $0 != "-" }), bytes.count == 16 else {
            return nil
        }
        self.bytes = bytes
    }
}
