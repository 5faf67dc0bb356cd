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

    @Flag(help: "Print the commands that would be sent, and touch nothing.")
    var dryRun = false

    func validate() throws {
        guard !configuration.isEmpty else {
            throw ValidationError("nothing to set: give --configuration OFFSET=BYTES")
        }
    }

    func run() throws {
        try VdevChange.run(
            "set",
            options,
            configuration.map { .configurationSet(offset: $0.offset, bytes: $0.bytes) },
            dryRun: dryRun
        ) { session in
            let device = try session.driver.transport(for: options.id)
            for write in configuration {
                try device.writeConfiguration(write.bytes, at: Int(write.offset))
            }
            return try session.show(options.id)
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

    @Flag(help: "Print the command that would be sent, and touch nothing.")
    var dryRun = false

    func run() throws {
        try VdevChange.run("reset", options, [.statusSet([])], dryRun: dryRun) { session in
            try session.driver.transport(for: options.id).reset()
            return try session.show(options.id)
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

    @Flag(help: "Print the command that would be sent, and touch nothing.")
    var dryRun = false

    func run() throws {
        try VdevChange.run("del", options, [.destroy], dryRun: dryRun) { session in
            try session.driver.destroy(options.id)
            return nil
        }
    }
}

/// A change of one virtual device, from the commands it takes to what is told of it.
enum VdevChange {
    /// Carries `body` out, unless it is a dry run, and tells of it.
    static func run(
        _ operation: String,
        _ options: VirtualDeviceOptions,
        _ commands: [VirtualDeviceCommand],
        dryRun: Bool,
        _ body: (ManagementSession) throws -> VirtualDeviceReport?
    ) throws {
        let management = options.management
        var change = VirtualDeviceChange(
            operation,
            target: "\(management.target)",
            id: options.id,
            commands.map { VirtualDeviceChange.Command($0, for: options.id) }
        )
        if dryRun { return try management.tell(change, change.lines(done: "")) }
        try management.work { session in
            change.device = try body(session)
            change.isDryRun = false
            change.isChanged = true
            let done = "\(operation): virtual device \(options.id)"
            try management.tell(change, change.lines(done: done))
        }
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
