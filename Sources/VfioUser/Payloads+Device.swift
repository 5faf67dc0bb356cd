/// DEVICE_GET_INFO, 16 bytes both ways: what there is to ask for.
public struct DeviceInfo: Payload {
    /// Bits of the flags field.
    public struct Flags: OptionSet, Sendable {
        /// The field.
        public let rawValue: UInt32
        /// Takes the bits as they are.
        public init(rawValue: UInt32) { self.rawValue = rawValue }
        /// DEVICE_RESET works.
        public static let reset = Flags(rawValue: 1)
        /// A PCI function.
        public static let pci = Flags(rawValue: 1 << 1)
    }

    /// Bytes of the fixed part.
    public static let size = 16

    /// Request: largest reply payload taken. Reply: size of the full one.
    public var argumentSize: UInt32
    /// What kind of device it is.
    public var flags: Flags
    /// Number of region indices.
    public var regionCount: UInt32
    /// Number of interrupt indices.
    public var interruptCount: UInt32

    /// Sets all fields.
    public init(
        argumentSize: UInt32 = UInt32(DeviceInfo.size),
        flags: Flags = [],
        regionCount: UInt32 = 0,
        interruptCount: UInt32 = 0
    ) {
        self.argumentSize = argumentSize
        self.flags = flags
        self.regionCount = regionCount
        self.interruptCount = interruptCount
    }

    /// Reads the fixed part; `nil` when there are fewer bytes.
    public init?(_ bytes: [UInt8]) {
        guard let argumentSize = bytes.field(UInt32.self, at: 0),
            let flags = bytes.field(UInt32.self, at: 4),
            let regionCount = bytes.field(UInt32.self, at: 8),
            let interruptCount = bytes.field(UInt32.self, at: 12)
        else { return nil }
        self.init(
            argumentSize: argumentSize,
            flags: Flags(rawValue: flags),
            regionCount: regionCount,
            interruptCount: interruptCount
        )
    }

    /// The fixed part.
    public var encoded: [UInt8] {
        var bytes: [UInt8] = []
        bytes.appendField(argumentSize)
        bytes.appendField(flags.rawValue)
        bytes.appendField(regionCount)
        bytes.appendField(interruptCount)
        return bytes
    }
}

/// The region indices of a PCI function.
public enum RegionIndex {
    /// BARs have the indices 0 to 5.
    public static let bars = 0..<6
    /// The expansion ROM.
    public static let rom = 6
    /// Configuration space.
    public static let configuration = 7
    /// VGA's legacy ranges.
    public static let vga = 8
    /// Number of indices that every PCI function has.
    public static let count = 9
}

/// DEVICE_GET_REGION_INFO, 32 bytes both ways; capabilities follow in the reply.
public struct RegionInfo: Payload {
    /// Bits of the flags field.
    public struct Flags: OptionSet, Sendable {
        /// The field.
        public let rawValue: UInt32
        /// Takes the bits as they are.
        public init(rawValue: UInt32) { self.rawValue = rawValue }
        /// The region can be read.
        public static let read = Flags(rawValue: 1)
        /// The region can be written.
        public static let write = Flags(rawValue: 1 << 1)
        /// The region, or areas of it, can be mapped.
        public static let mappable = Flags(rawValue: 1 << 2)
        /// There are capabilities.
        public static let capabilities = Flags(rawValue: 1 << 3)
    }

    /// Bytes of the fixed part.
    public static let size = 32

    /// Request: largest reply payload taken. Reply: size of the full one.
    public var argumentSize: UInt32
    /// Rights and options.
    public var flags: Flags
    /// Which region.
    public var index: UInt32
    /// Where the first capability is, from the start of this structure; 0 without one.
    public var capabilityOffset: UInt32
    /// Length of the region; 0 when there is none.
    public var length: UInt64
    /// Where the region begins in the file that came along.
    public var offset: UInt64

    /// Sets all fields.
    public init(
        argumentSize: UInt32 = UInt32(RegionInfo.size),
        flags: Flags = [],
        index: UInt32,
        capabilityOffset: UInt32 = 0,
        length: UInt64 = 0,
        offset: UInt64 = 0
    ) {
        self.argumentSize = argumentSize
        self.flags = flags
        self.index = index
        self.capabilityOffset = capabilityOffset
        self.length = length
        self.offset = offset
    }

    /// Reads the fixed part; `nil` when there are fewer bytes.
    public init?(_ bytes: [UInt8]) {
        guard let argumentSize = bytes.field(UInt32.self, at: 0),
            let flags = bytes.field(UInt32.self, at: 4),
            let index = bytes.field(UInt32.self, at: 8),
            let capabilityOffset = bytes.field(UInt32.self, at: 12),
            let length = bytes.field(UInt64.self, at: 16),
            let offset = bytes.field(UInt64.self, at: 24)
        else { return nil }
        self.init(
            argumentSize: argumentSize,
            flags: Flags(rawValue: flags),
            index: index,
            capabilityOffset: capabilityOffset,
            length: length,
            offset: offset
        )
    }

    /// The fixed part.
    public var encoded: [UInt8] {
        var bytes: [UInt8] = []
        bytes.appendField(argumentSize)
        bytes.appendField(flags.rawValue)
        bytes.appendField(index)
        bytes.appendField(capabilityOffset)
        bytes.appendField(length)
        bytes.appendField(offset)
        return bytes
    }
}

/// The sparse-mmap capability of a region: which areas of it can be mapped.
public struct SparseAreas: Sendable, Equatable {
    /// Capability id.
    public static let identifier: UInt16 = 1
    /// Bytes before the areas.
    public static let headerSize = 16
    /// Bytes of an area.
    public static let areaSize = 16

    /// Offsets in the region.
    public var areas: [Range<UInt64>]

    /// Lists areas.
    public init(areas: [Range<UInt64>]) {
        self.areas = areas
    }

    /// Bytes of the capability.
    public var size: Int { Self.headerSize + Self.areaSize * areas.count }

    /// The capability as the last one of the chain.
    public var encoded: [UInt8] {
        var bytes: [UInt8] = []
        bytes.appendField(Self.identifier)
        bytes.appendField(UInt16(1))
        bytes.appendField(UInt32(0))
        bytes.appendField(UInt32(truncatingIfNeeded: areas.count))
        bytes.appendField(UInt32(0))
        for area in areas {
            bytes.appendField(area.lowerBound)
            bytes.appendField(area.upperBound - area.lowerBound)
        }
        return bytes
    }

    /// Reads the capability that stands at `offset` of a region's answer; `nil` when the bytes do not
    /// suffice, an area wraps, or it is another capability.
    public init?(_ answer: [UInt8], at offset: Int) {
        guard let identifier = answer.field(UInt16.self, at: offset),
            identifier == Self.identifier,
            let count = answer.field(UInt32.self, at: offset + 8),
            let count = Int(exactly: count),
            count <= (answer.count - offset - Self.headerSize) / Self.areaSize
        else { return nil }
        var areas: [Range<UInt64>] = []
        for index in 0..<count {
            let at = offset + Self.headerSize + Self.areaSize * index
            guard let first = answer.field(UInt64.self, at: at),
                let length = answer.field(UInt64.self, at: at + 8)
            else { return nil }
            let end = first.addingReportingOverflow(length)
            guard !end.overflow else { return nil }
            areas.append(first..<end.partialValue)
        }
        self.init(areas: areas)
    }
}
