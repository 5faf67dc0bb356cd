import AdminQueue
import ArgumentParser
import Virtio
import VirtioSpec

/// `vhost-pci vdev set`.
struct VdevSetCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "set",
        abstract: "Write configuration bytes of a virtual device, and show what it made of them."
    )

    @OptionGroup var options: VirtualDeviceOptions

    @Option(help: "OFFSET=BYTES, such as 6=0100. May be given several times.")
    var configuration: [ConfigurationWrite] = []

    @OptionGroup var mode: VirtualDeviceChangeOptions

    func validate() throws {
        guard !configuration.isEmpty else {
            throw ValidationError("nothing to set: give --configuration OFFSET=BYTES")
        }
    }

    func run() throws {
        let commands = configuration.map {
            VirtualDeviceCommand.configurationSet(offset: $0.offset, bytes: $0.bytes)
        }
        let change = options.change("set", commands)
        try mode.run(change, options.management) { session, change in
            let device = try session.driver.transport(for: options.id)
            for write in configuration {
                try device.writeConfiguration(write.bytes, at: Int(write.offset))
            }
            change.device = try session.show(options.id)
            return "set: virtual device \(options.id)"
        }
    }
}

/// `vhost-pci vdev reset`.
struct VdevResetCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "reset",
        abstract: "Reset a virtual device."
    )

    @OptionGroup var options: VirtualDeviceOptions

    @OptionGroup var mode: VirtualDeviceChangeOptions

    func run() throws {
        let change = options.change("reset", [.statusSet([])])
        try mode.run(change, options.management) { session, change in
            try session.driver.transport(for: options.id).reset()
            change.device = try session.show(options.id)
            return "reset: virtual device \(options.id)"
        }
    }
}

/// `vhost-pci vdev del`.
struct VdevDelCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "del",
        abstract: "Destroy a virtual device. One that is built in stays, and says so."
    )

    @OptionGroup var options: VirtualDeviceOptions

    @OptionGroup var mode: VirtualDeviceChangeOptions

    func run() throws {
        let change = options.change("del", [.destroy])
        try mode.run(change, options.management) { session, _ in
            try session.driver.destroy(options.id)
            return "del: virtual device \(options.id)"
        }
    }
}

extension VirtualDeviceOptions {
    /// A change of this virtual device by `commands`.
    func change(_ operation: String, _ commands: [VirtualDeviceCommand]) -> VirtualDeviceChange {
        VirtualDeviceChange(
            operation,
            target: "\(management.target)",
            id: id,
            commands.map { VirtualDeviceChange.Command($0, for: id) }
        )
    }
}

/// Bytes to write at an offset of a configuration space: `6=0100`.
struct ConfigurationWrite: ExpressibleByArgument {
    let offset: UInt32
    let bytes: [UInt8]

    init?(argument: String) {
        let parts = argument.split(separator: "=", omittingEmptySubsequences: false)
        guard parts.count == 2, let offset = UInt32(parts[0]),
            let bytes = HexBytes.parse(String(parts[1])), bytes.count <= 1024
        else { return nil }
        self.offset = offset
        self.bytes = bytes
    }
}
