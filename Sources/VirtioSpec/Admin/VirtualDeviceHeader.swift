/// The first 12 readable bytes of every command of the virtual-device dialect (Wang RFC 2021).
public struct VirtualDeviceHeader: Hashable, Sendable {
    /// The virtual device addressed; 0 is the management device itself.
    public var virtualDeviceID: UInt64
    /// What kind of command.
    public var commandClass: UInt16
    /// Which command of that kind.
    public var command: UInt16

    /// Length on the wire.
    public static let size = 12

    /// Addresses a command.
    public init(virtualDeviceID: UInt64, _ opcode: VirtualDeviceOpcode) {
        self.virtualDeviceID = virtualDeviceID
        commandClass = opcode.commandClass
        command = opcode.command
    }

    /// Reads a header; `nil` under 12 bytes (AVQ-D-303).
    public init?(_ bytes: some Collection<UInt8>) {
        guard bytes.count >= VirtualDeviceHeader.size else { return nil }
        let fields = WireFields(bytes.prefix(VirtualDeviceHeader.size))
        virtualDeviceID = fields[0]
        commandClass = fields[8]
        command = fields[10]
    }

    /// The header on the wire.
    public var bytes: [UInt8] {
        var writer = WireWriter()
        writer.integer(virtualDeviceID)
        writer.integer(commandClass)
        writer.integer(command)
        return writer.bytes
    }
}

/// The first writable byte of every command of the virtual-device dialect.
public enum AdminAcknowledgement: UInt8, Sendable {
    /// The command was carried out.
    case ok = 0
    /// The command had no effect.
    case error = 1
}
