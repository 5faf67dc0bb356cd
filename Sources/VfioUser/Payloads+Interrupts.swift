/// The interrupt indices of a PCI function.
public enum InterruptIndex: UInt32, Sendable, CaseIterable {
    /// The pin.
    case intx
    /// Messages of the older kind.
    case msi
    /// Messages by table.
    case msix
    /// Errors of the bus.
    case error
    /// The server asks for the device back.
    case request
}

/// DEVICE_GET_IRQ_INFO, 16 bytes both ways.
public struct InterruptInfo: Payload {
    /// Bits of the flags field.
    public struct Flags: OptionSet, Sendable {
        /// The field.
        public let rawValue: UInt32
        /// Takes the bits as they are.
        public init(rawValue: UInt32) { self.rawValue = rawValue }
        /// Signalled by eventfd.
        public static let eventDescriptor = Flags(rawValue: 1)
        /// Can be masked.
        public static let maskable = Flags(rawValue: 1 << 1)
        /// Masked by the server when it fires.
        public static let automasked = Flags(rawValue: 1 << 2)
        /// The number that is connected can be changed only by disconnecting all.
        public static let noResize = Flags(rawValue: 1 << 3)
    }

    /// Bytes of the fixed part.
    public static let size = 16

    /// Request: largest reply payload taken. Reply: size of the full one.
    public var argumentSize: UInt32
    /// How the index works.
    public var flags: Flags
    /// Which index.
    public var index: UInt32
    /// Number of interrupts.
    public var count: UInt32

    /// Sets all fields.
    public init(
        argumentSize: UInt32 = UInt32(InterruptInfo.size),
        flags: Flags = [],
        index: UInt32,
        count: UInt32 = 0
    ) {
        self.argumentSize = argumentSize
        self.flags = flags
        self.index = index
        self.count = count
    }

    /// Reads the fixed part; `nil` when there are fewer bytes.
    public init?(_ bytes: [UInt8]) {
        guard let argumentSize = bytes.field(UInt32.self, at: 0),
            let flags = bytes.field(UInt32.self, at: 4),
            let index = bytes.field(UInt32.self, at: 8),
            let count = bytes.field(UInt32.self, at: 12)
        else { return nil }
        self.init(
            argumentSize: argumentSize,
            flags: Flags(rawValue: flags),
            index: index,
            count: count
        )
    }

    /// The fixed part.
    public var encoded: [UInt8] {
        var bytes: [UInt8] = []
        bytes.appendField(argumentSize)
        bytes.appendField(flags.rawValue)
        bytes.appendField(index)
        bytes.appendField(count)
        return bytes
    }
}

/// The fixed part of DEVICE_SET_IRQS, 20 bytes; a byte for each interrupt follows with flag `bools`.
public struct InterruptSet: Payload {
    /// Bits of the flags field: kinds of data, then actions.
    public struct Flags: OptionSet, Sendable {
        /// The field.
        public let rawValue: UInt32
        /// Takes the bits as they are.
        public init(rawValue: UInt32) { self.rawValue = rawValue }
        /// No data: the action is for the whole range.
        public static let none = Flags(rawValue: 1)
        /// A byte for each interrupt: the action is for those that are not 0.
        public static let bools = Flags(rawValue: 1 << 1)
        /// A descriptor for each interrupt.
        public static let eventDescriptors = Flags(rawValue: 1 << 2)
        /// Mask.
        public static let mask = Flags(rawValue: 1 << 3)
        /// Unmask.
        public static let unmask = Flags(rawValue: 1 << 4)
        /// Connect to a descriptor, or fire.
        public static let trigger = Flags(rawValue: 1 << 5)
        /// All kinds of data.
        public static let dataKinds: Flags = [.none, .bools, .eventDescriptors]
        /// All actions.
        public static let actions: Flags = [.mask, .unmask, .trigger]
    }

    /// Bytes of the fixed part.
    public static let size = 20

    /// Size of the request's payload.
    public var argumentSize: UInt32
    /// One kind of data and one action.
    public var flags: Flags
    /// Which index.
    public var index: UInt32
    /// First interrupt of the index.
    public var start: UInt32
    /// Number of interrupts.
    public var count: UInt32

    /// Sets all fields.
    public init(
        argumentSize: UInt32 = UInt32(InterruptSet.size),
        flags: Flags,
        index: InterruptIndex,
        start: UInt32 = 0,
        count: UInt32 = 0
    ) {
        self.argumentSize = argumentSize
        self.flags = flags
        self.index = index.rawValue
        self.start = start
        self.count = count
    }

    /// Reads the fixed part; `nil` when there are fewer bytes.
    public init?(_ bytes: [UInt8]) {
        guard let argumentSize = bytes.field(UInt32.self, at: 0),
            let flags = bytes.field(UInt32.self, at: 4),
            let index = bytes.field(UInt32.self, at: 8),
            let start = bytes.field(UInt32.self, at: 12),
            let count = bytes.field(UInt32.self, at: 16)
        else { return nil }
        self.argumentSize = argumentSize
        self.flags = Flags(rawValue: flags)
        self.index = index
        self.start = start
        self.count = count
    }

    /// The fixed part.
    public var encoded: [UInt8] {
        var bytes: [UInt8] = []
        bytes.appendField(argumentSize)
        bytes.appendField(flags.rawValue)
        bytes.appendField(index)
        bytes.appendField(start)
        bytes.appendField(count)
        return bytes
    }
}
