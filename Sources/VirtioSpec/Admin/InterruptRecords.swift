/// The vector that stands for "none", as in PCI (virtio 1.3 §4.1.5.1.2).
public let noVector: UInt16 = 0xffff

/// The result of IRQ INFO (8 bytes).
public struct InterruptInformation: Hashable, Sendable {
    /// What the flags say.
    public struct Flags: OptionSet, Hashable, Sendable {
        /// The bits as sent.
        public let rawValue: UInt16

        /// Takes the bits as they are.
        public init(rawValue: UInt16) {
            self.rawValue = rawValue
        }

        /// Each vector can be masked.
        public static let maskable = Flags(rawValue: 1)
        /// Interrupts arrive as events on the event queue.
        public static let byEventQueue = Flags(rawValue: 2)
    }

    /// Number of vectors.
    public var vectorCount: UInt16
    /// How interrupts work.
    public var flags: Flags

    /// Describes the interrupts of a device.
    public init(vectorCount: UInt16, flags: Flags) {
        self.vectorCount = vectorCount
        self.flags = flags
    }

    /// Reads a result.
    public init(_ fields: WireFields) {
        vectorCount = fields[0]
        flags = Flags(rawValue: fields[2])
    }

    /// The result on the wire.
    public var bytes: [UInt8] {
        var writer = WireWriter()
        writer.integer(vectorCount)
        writer.integer(flags.rawValue)
        writer.zeros(4)
        return writer.bytes
    }
}

/// One interrupt vector: argument of IRQ VECTOR_SET, result of VECTOR_GET (16 bytes).
public struct VectorRecord: Hashable, Sendable {
    /// What the flags say.
    public struct Flags: OptionSet, Hashable, Sendable {
        /// The bits as sent.
        public let rawValue: UInt16

        /// Takes the bits as they are.
        public init(rawValue: UInt16) {
            self.rawValue = rawValue
        }

        /// Hold interrupts back.
        public static let masked = Flags(rawValue: 1)
        /// An interrupt is held back (result only).
        public static let pending = Flags(rawValue: 2)
    }

    /// Which vector.
    public var vector: UInt16
    /// Mask and pending bit.
    public var flags: Flags
    /// What would be written to `messageAddress`.
    public var messageData: UInt32
    /// Where a message would be written; kept for the driver, not used while interrupts go by events.
    public var messageAddress: UInt64

    /// Length on the wire.
    public static let size = 16

    /// Describes a vector.
    public init(
        vector: UInt16,
        flags: Flags,
        messageData: UInt32 = 0,
        messageAddress: UInt64 = 0
    ) {
        self.vector = vector
        self.flags = flags
        self.messageData = messageData
        self.messageAddress = messageAddress
    }

    /// Reads a record.
    public init(_ fields: WireFields) {
        vector = fields[0]
        flags = Flags(rawValue: fields[2])
        messageData = fields[4]
        messageAddress = fields[8]
    }

    /// The record on the wire.
    public var bytes: [UInt8] {
        var writer = WireWriter()
        writer.integer(vector)
        writer.integer(flags.rawValue)
        writer.integer(messageData)
        writer.integer(messageAddress)
        return writer.bytes
    }
}
