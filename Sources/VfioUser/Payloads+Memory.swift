/// DMA_MAP, 32 bytes: the client's memory, or part of it, may be reached.
public struct DMAMap: Payload {
    /// Bits of the flags field.
    public struct Flags: OptionSet, Sendable {
        /// The field.
        public let rawValue: UInt32
        /// Takes the bits as they are.
        public init(rawValue: UInt32) { self.rawValue = rawValue }
        /// The server may read the range.
        public static let readable = Flags(rawValue: 1)
        /// The server may write the range.
        public static let writable = Flags(rawValue: 1 << 1)
        /// The descriptor is to be mapped.
        public static let mappable = Flags(rawValue: 1 << 2)
        /// The descriptor is to be read and written as a file.
        public static let fileAccess = Flags(rawValue: 1 << 3)
        /// All that are known.
        public static let known = Flags(rawValue: 0xf)
    }

    /// Bytes of the fixed part.
    public static let size = 32

    /// Size of the request's payload.
    public var argumentSize: UInt32
    /// Rights and mode.
    public var flags: Flags
    /// Where in the descriptor's file the range begins.
    public var offset: UInt64
    /// First address (IOVA).
    public var address: UInt64
    /// Length in bytes.
    public var length: UInt64

    /// Sets all fields.
    public init(
        argumentSize: UInt32 = UInt32(DMAMap.size),
        flags: Flags,
        offset: UInt64 = 0,
        address: UInt64,
        length: UInt64
    ) {
        self.argumentSize = argumentSize
        self.flags = flags
        self.offset = offset
        self.address = address
        self.length = length
    }

    /// Reads the fixed part; `nil` when there are fewer bytes.
    public init?(_ bytes: [UInt8]) {
        guard let argumentSize = bytes.field(UInt32.self, at: 0),
            let flags = bytes.field(UInt32.self, at: 4),
            let offset = bytes.field(UInt64.self, at: 8),
            let address = bytes.field(UInt64.self, at: 16),
            let length = bytes.field(UInt64.self, at: 24)
        else { return nil }
        self.init(
            argumentSize: argumentSize,
            flags: Flags(rawValue: flags),
            offset: offset,
            address: address,
            length: length
        )
    }

    /// The fixed part.
    public var encoded: [UInt8] {
        var bytes: [UInt8] = []
        bytes.appendField(argumentSize)
        bytes.appendField(flags.rawValue)
        bytes.appendField(offset)
        bytes.appendField(address)
        bytes.appendField(length)
        return bytes
    }
}

/// DMA_UNMAP, 24 bytes both ways: a range is taken away.
public struct DMAUnmap: Payload {
    /// Bits of the flags field.
    public struct Flags: OptionSet, Sendable {
        /// The field.
        public let rawValue: UInt32
        /// Takes the bits as they are.
        public init(rawValue: UInt32) { self.rawValue = rawValue }
        /// The written pages are asked for as well.
        public static let dirtyBitmap = Flags(rawValue: 1)
        /// Every range; address and size are 0.
        public static let all = Flags(rawValue: 1 << 1)
    }

    /// Bytes of the fixed part.
    public static let size = 24

    /// Largest reply payload that the client takes.
    public var argumentSize: UInt32
    /// Options.
    public var flags: Flags
    /// First address (IOVA).
    public var address: UInt64
    /// Length in bytes.
    public var length: UInt64

    /// Sets all fields.
    public init(
        argumentSize: UInt32 = UInt32(DMAUnmap.size),
        flags: Flags = [],
        address: UInt64,
        length: UInt64
    ) {
        self.argumentSize = argumentSize
        self.flags = flags
        self.address = address
        self.length = length
    }

    /// Reads the fixed part; `nil` when there are fewer bytes.
    public init?(_ bytes: [UInt8]) {
        guard let argumentSize = bytes.field(UInt32.self, at: 0),
            let flags = bytes.field(UInt32.self, at: 4),
            let address = bytes.field(UInt64.self, at: 8),
            let length = bytes.field(UInt64.self, at: 16)
        else { return nil }
        self.init(
            argumentSize: argumentSize,
            flags: Flags(rawValue: flags),
            address: address,
            length: length
        )
    }

    /// The fixed part.
    public var encoded: [UInt8] {
        var bytes: [UInt8] = []
        bytes.appendField(argumentSize)
        bytes.appendField(flags.rawValue)
        bytes.appendField(address)
        bytes.appendField(length)
        return bytes
    }
}

/// The fixed part of DMA_READ and DMA_WRITE, 16 bytes both ways; the bytes moved follow it in the
/// reply of the one and in the request of the other.
public struct DMAAccess: Payload {
    /// Bytes of the fixed part.
    public static let size = 16

    /// First address (IOVA).
    public var address: UInt64
    /// Number of bytes; 64 bits wide, unlike in a region access.
    public var count: UInt64

    /// Sets all fields.
    public init(address: UInt64, count: UInt64) {
        self.address = address
        self.count = count
    }

    /// Reads the fixed part; `nil` when there are fewer bytes.
    public init?(_ bytes: [UInt8]) {
        guard let address = bytes.field(UInt64.self, at: 0),
            let count = bytes.field(UInt64.self, at: 8)
        else { return nil }
        self.init(address: address, count: count)
    }

    /// The fixed part.
    public var encoded: [UInt8] {
        var bytes: [UInt8] = []
        bytes.appendField(address)
        bytes.appendField(count)
        return bytes
    }
}
