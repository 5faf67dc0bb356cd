/// The fixed part of REGION_READ and REGION_WRITE, 16 bytes both ways; the bytes read or to be
/// written follow it.
public struct RegionAccess: Payload {
    /// Bytes of the fixed part.
    public static let size = 16

    /// First byte, in the region.
    public var offset: UInt64
    /// Which region.
    public var region: UInt32
    /// Number of bytes.
    public var count: UInt32

    /// Sets all fields.
    public init(offset: UInt64, region: UInt32, count: UInt32) {
        self.offset = offset
        self.region = region
        self.count = count
    }

    /// Reads the fixed part; `nil` when there are fewer bytes.
    public init?(_ bytes: [UInt8]) {
        guard let offset = bytes.field(UInt64.self, at: 0),
            let region = bytes.field(UInt32.self, at: 8),
            let count = bytes.field(UInt32.self, at: 12)
        else { return nil }
        self.init(offset: offset, region: region, count: count)
    }

    /// The fixed part.
    public var encoded: [UInt8] {
        var bytes: [UInt8] = []
        bytes.reserveCapacity(Self.size)
        bytes.appendField(offset)
        bytes.appendField(region)
        bytes.appendField(count)
        return bytes
    }
}

/// REGION_WRITE_MULTI: a count of 8 bytes, then an entry of 24 bytes for each write.
public struct MultiWrite: Sendable, Equatable {
    /// Bytes of the count.
    public static let headerSize = 8
    /// Bytes of an entry.
    public static let entrySize = 24

    /// One write of at most 8 bytes.
    public struct Entry: Sendable, Equatable {
        /// Where, and how many of the bytes.
        public var access: RegionAccess
        /// Always 8 bytes; only the first `access.count` count.
        public var data: [UInt8]

        /// Describes a write; missing bytes are filled up with zeros.
        public init(access: RegionAccess, data: [UInt8]) {
            self.access = access
            self.data = Array((data + [UInt8](repeating: 0, count: 8)).prefix(8))
        }
    }

    /// The writes, in order.
    public var entries: [Entry]

    /// Lists writes.
    public init(entries: [Entry]) {
        self.entries = entries
    }

    /// Reads a payload; `nil` unless it has exactly the entries that it states.
    public init?(_ bytes: [UInt8]) {
        guard let count = bytes.field(UInt64.self, at: 0),
            count == UInt64((bytes.count - Self.headerSize) / Self.entrySize),
            (bytes.count - Self.headerSize) % Self.entrySize == 0
        else { return nil }
        entries = []
        for index in 0..<Int(count) {
            let at = Self.headerSize + Self.entrySize * index
            guard let offset = bytes.field(UInt64.self, at: at),
                let region = bytes.field(UInt32.self, at: at + 8),
                let length = bytes.field(UInt32.self, at: at + 12)
            else { return nil }
            entries.append(
                Entry(
                    access: RegionAccess(offset: offset, region: region, count: length),
                    data: Array(bytes[(at + 16)..<(at + 24)])
                )
            )
        }
    }

    /// The payload.
    public var encoded: [UInt8] {
        var bytes: [UInt8] = []
        bytes.appendField(UInt64(entries.count))
        for entry in entries {
            bytes += entry.access.encoded
            bytes += entry.data
        }
        return bytes
    }
}

/// DEVICE_GET_REGION_IO_FDS, 16 bytes both ways; entries follow in the reply.
public struct RegionDescriptors: Payload {
    /// Bytes of the fixed part.
    public static let size = 16

    /// Request: largest reply payload taken. Reply: size of the full one.
    public var argumentSize: UInt32
    /// None are known.
    public var flags: UInt32
    /// Which region.
    public var index: UInt32
    /// Request: 0. Reply: number of entries.
    public var count: UInt32

    /// Sets all fields.
    public init(
        argumentSize: UInt32 = UInt32(RegionDescriptors.size),
        flags: UInt32 = 0,
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
        self.init(argumentSize: argumentSize, flags: flags, index: index, count: count)
    }

    /// The fixed part.
    public var encoded: [UInt8] {
        var bytes: [UInt8] = []
        bytes.appendField(argumentSize)
        bytes.appendField(flags)
        bytes.appendField(index)
        bytes.appendField(count)
        return bytes
    }
}

/// An entry of a region's io descriptors, 40 bytes: a store of `length` bytes at `offset` may be
/// replaced by adding 1 to an eventfd.
public struct RegionEvent: Payload {
    /// Bits of the flags field, as of a KVM ioeventfd.
    public struct Flags: OptionSet, Sendable {
        /// The field.
        public let rawValue: UInt32
        /// Takes the bits as they are.
        public init(rawValue: UInt32) { self.rawValue = rawValue }
        /// Only a store of `dataMatch` counts.
        public static let dataMatch = Flags(rawValue: 1)
    }

    /// The value of `type` for an eventfd.
    public static let eventType: UInt32 = 0
    /// Bytes of the fixed part.
    public static let size = 40

    /// First byte, in the region.
    public var offset: UInt64
    /// Length of the store in bytes; 0 stands for any.
    public var length: UInt64
    /// Which of the descriptors that came along.
    public var descriptorIndex: UInt32
    /// What the descriptor is; 0 for an eventfd.
    public var type: UInt32
    /// Options.
    public var flags: Flags
    /// The value that counts, with `Flags.dataMatch`.
    public var dataMatch: UInt64

    /// Sets all fields.
    public init(
        offset: UInt64,
        length: UInt64,
        descriptorIndex: UInt32,
        type: UInt32 = RegionEvent.eventType,
        flags: Flags = [],
        dataMatch: UInt64 = 0
    ) {
        self.offset = offset
        self.length = length
        self.descriptorIndex = descriptorIndex
        self.type = type
        self.flags = flags
        self.dataMatch = dataMatch
    }

    /// Reads the fixed part; `nil` when there are fewer bytes.
    public init?(_ bytes: [UInt8]) {
        guard let offset = bytes.field(UInt64.self, at: 0),
            let length = bytes.field(UInt64.self, at: 8),
            let descriptorIndex = bytes.field(UInt32.self, at: 16),
            let type = bytes.field(UInt32.self, at: 20),
            let flags = bytes.field(UInt32.self, at: 24),
            let dataMatch = bytes.field(UInt64.self, at: 32)
        else { return nil }
        self.init(
            offset: offset,
            length: length,
            descriptorIndex: descriptorIndex,
            type: type,
            flags: Flags(rawValue: flags),
            dataMatch: dataMatch
        )
    }

    /// The fixed part.
    public var encoded: [UInt8] {
        var bytes: [UInt8] = []
        bytes.appendField(offset)
        bytes.appendField(length)
        bytes.appendField(descriptorIndex)
        bytes.appendField(type)
        bytes.appendField(flags.rawValue)
        bytes.appendField(UInt32(0))
        bytes.appendField(dataMatch)
        return bytes
    }
}

/// The fixed part of DEVICE_FEATURE, 8 bytes both ways; the feature's own data follows.
public struct DeviceFeature: Payload {
    /// Bytes of the fixed part.
    public static let size = 8

    /// Request: largest reply payload taken.
    public var argumentSize: UInt32
    /// Feature number in bits 0 to 15, operations above.
    public var flags: UInt32

    /// Ask for the feature's data.
    public static let get: UInt32 = 1 << 16
    /// Set the feature's data.
    public static let set: UInt32 = 1 << 17
    /// Ask whether the feature has the other operations named.
    public static let probe: UInt32 = 1 << 18

    /// Sets all fields.
    public init(argumentSize: UInt32 = UInt32(DeviceFeature.size), flags: UInt32) {
        self.argumentSize = argumentSize
        self.flags = flags
    }

    /// The feature's number.
    public var feature: UInt16 { UInt16(truncatingIfNeeded: flags) }

    /// Reads the fixed part; `nil` when there are fewer bytes.
    public init?(_ bytes: [UInt8]) {
        guard let argumentSize = bytes.field(UInt32.self, at: 0),
            let flags = bytes.field(UInt32.self, at: 4)
        else { return nil }
        self.init(argumentSize: argumentSize, flags: flags)
    }

    /// The fixed part.
    public var encoded: [UInt8] {
        var bytes: [UInt8] = []
        bytes.appendField(argumentSize)
        bytes.appendField(flags)
        return bytes
    }
}
