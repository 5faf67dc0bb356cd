/// The commands of the protocol, by number. 14 was given away and taken back; it stays unknown.
public enum Command: UInt16, Sendable, CaseIterable {
    /// Agree on version and capabilities.
    case version = 1
    /// The client's memory, or part of it, may be reached.
    case dmaMap = 2
    /// It may no longer.
    case dmaUnmap = 3
    /// How many regions and interrupt indices the device has.
    case deviceGetInfo = 4
    /// Size, rights and mappable areas of a region.
    case deviceGetRegionInfo = 5
    /// Descriptors that stand for stores to a region.
    case deviceGetRegionIOFDs = 6
    /// How many interrupts an index has.
    case deviceGetIRQInfo = 7
    /// Connects, masks or fires interrupts.
    case deviceSetIRQs = 8
    /// Reads a region.
    case regionRead = 9
    /// Writes a region.
    case regionWrite = 10
    /// The server reads the client's memory.
    case dmaRead = 11
    /// The server writes the client's memory.
    case dmaWrite = 12
    /// Resets the device.
    case deviceReset = 13
    /// Several region writes.
    case regionWriteMulti = 15
    /// Optional features of the device.
    case deviceFeature = 16
    /// Reads migration data.
    case migrationDataRead = 17
    /// Writes migration data.
    case migrationDataWrite = 18
}

/// What every message begins with, 16 bytes (VFU-H-01).
public struct MessageHeader: Sendable, Equatable {
    /// Length in bytes.
    public static let size = 16

    /// Bits of the flags field.
    public struct Flags: OptionSet, Sendable {
        /// The field.
        public let rawValue: UInt32
        /// Takes the bits as they are.
        public init(rawValue: UInt32) { self.rawValue = rawValue }
        /// Bits 0 to 3: the type; 0 is a command.
        public static let typeMask = Flags(rawValue: 0xf)
        /// Type 1: a reply.
        public static let reply = Flags(rawValue: 1)
        /// The sender of a command wants no reply.
        public static let noReply = Flags(rawValue: 1 << 4)
        /// The command failed; `error` says why.
        public static let error = Flags(rawValue: 1 << 5)
        /// All that are known.
        public static let known = Flags(rawValue: 0x3f)
    }

    /// Chosen by the sender of the command, echoed in the reply.
    public var identifier: UInt16
    /// The command; a number that is no `Command` is kept as it came.
    public var command: UInt16
    /// Length of the whole message, these 16 bytes included.
    public var messageSize: UInt32
    /// Type and options.
    public var flags: Flags
    /// Error number in a reply with `Flags.error`, otherwise 0.
    public var error: UInt32

    /// Sets all fields.
    public init(
        identifier: UInt16,
        command: UInt16,
        messageSize: UInt32,
        flags: Flags = [],
        error: UInt32 = 0
    ) {
        self.identifier = identifier
        self.command = command
        self.messageSize = messageSize
        self.flags = flags
        self.error = error
    }

    /// Reads the first 16 bytes; `nil` when there are fewer.
    public init?(_ bytes: [UInt8]) {
        guard let identifier = bytes.field(UInt16.self, at: 0),
            let command = bytes.field(UInt16.self, at: 2),
            let messageSize = bytes.field(UInt32.self, at: 4),
            let flags = bytes.field(UInt32.self, at: 8),
            let error = bytes.field(UInt32.self, at: 12)
        else { return nil }
        self.init(
            identifier: identifier,
            command: command,
            messageSize: messageSize,
            flags: Flags(rawValue: flags),
            error: error
        )
    }

    /// The 16 bytes.
    public var encoded: [UInt8] { encoded(capacity: Self.size) }

    /// The 16 bytes, in an array that has room for `capacity`.
    func encoded(capacity: Int) -> [UInt8] {
        var bytes: [UInt8] = []
        bytes.reserveCapacity(capacity)
        bytes.appendField(identifier)
        bytes.appendField(command)
        bytes.appendField(messageSize)
        bytes.appendField(flags.rawValue)
        bytes.appendField(error)
        return bytes
    }

    /// True for a command, false for a reply or a type that does not exist.
    public var isCommand: Bool { flags.intersection(.typeMask).isEmpty }

    /// True for a reply.
    public var isReply: Bool { flags.intersection(.typeMask) == .reply }
}
