internal import VirtioSpec

/// A number of 64 bits: features, status, acknowledgements, slot counts.
public enum NumberPayload {
    /// Length on the wire.
    public static let size = 8

    /// The bytes on the wire.
    public static func encode(_ value: UInt64) -> [UInt8] {
        var writer = WireWriter()
        writer.integer(value)
        return writer.bytes
    }

    /// Decodes exactly 8 bytes.
    public static func decode(_ bytes: [UInt8]) -> UInt64? {
        var reader = WireReader(bytes)
        guard bytes.count == size else { return nil }
        return reader.integer(UInt64.self)
    }
}

/// A ring and a number (vhost-user: A vring state description).
public struct VringState: Sendable, Equatable {
    /// Length on the wire.
    public static let size = 8
    /// Ring index, all 32 bits of it (HI-D18).
    public var index: UInt32
    /// Size, base or switch, as the request says.
    public var number: UInt32

    /// Describes a ring's number.
    public init(index: UInt32, number: UInt32) {
        self.index = index
        self.number = number
    }

    /// Decodes exactly 8 bytes.
    public init?(_ bytes: [UInt8]) {
        var reader = WireReader(bytes)
        guard bytes.count == VringState.size, let index = reader.integer(UInt32.self),
            let number = reader.integer(UInt32.self)
        else { return nil }
        self.init(index: index, number: number)
    }

    /// The bytes on the wire.
    public var encoded: [UInt8] {
        var writer = WireWriter()
        writer.integer(index)
        writer.integer(number)
        return writer.bytes
    }
}

/// Where a ring is, in the front-end's own addresses (vhost-user: A vring address description).
/// The used ring comes before the available ring on the wire.
public struct VringAddress: Sendable, Equatable {
    /// Length on the wire.
    public static let size = 40
    /// Ring index.
    public var index: UInt32
    /// Bit 0: log writes to the used ring.
    public var flags: UInt32
    /// Descriptor table.
    public var descriptorArea: UInt64
    /// Used ring.
    public var deviceArea: UInt64
    /// Available ring.
    public var driverArea: UInt64
    /// Guest address of the used ring, for logging.
    public var log: UInt64

    /// Describes a ring's place.
    public init(
        index: UInt32,
        flags: UInt32 = 0,
        descriptorArea: UInt64,
        driverArea: UInt64,
        deviceArea: UInt64,
        log: UInt64 = 0
    ) {
        self.index = index
        self.flags = flags
        self.descriptorArea = descriptorArea
        self.deviceArea = deviceArea
        self.driverArea = driverArea
        self.log = log
    }

    /// Decodes exactly 40 bytes.
    public init?(_ bytes: [UInt8]) {
        var reader = WireReader(bytes)
        guard bytes.count == VringAddress.size, let index = reader.integer(UInt32.self),
            let flags = reader.integer(UInt32.self), let descriptors = reader.integer(UInt64.self),
            let used = reader.integer(UInt64.self), let available = reader.integer(UInt64.self),
            let log = reader.integer(UInt64.self)
        else { return nil }
        self.init(
            index: index,
            flags: flags,
            descriptorArea: descriptors,
            driverArea: available,
            deviceArea: used,
            log: log
        )
    }

    /// The bytes on the wire.
    public var encoded: [UInt8] {
        var writer = WireWriter()
        writer.integer(index)
        writer.integer(flags)
        writer.integer(descriptorArea)
        writer.integer(deviceArea)
        writer.integer(driverArea)
        writer.integer(log)
        return writer.bytes
    }
}

/// The number in SET_VRING_KICK, CALL and ERR: a ring index, and whether a descriptor came along.
public struct VringDescriptor: Sendable, Equatable {
    /// Bit 8: there is no descriptor.
    public static let withoutDescriptor: UInt64 = 0x100
    /// Everything but bit 8, compared in full width (HI-D18).
    public var index: UInt64
    /// Bit 8 was clear.
    public var hasDescriptor: Bool

    /// Describes the number.
    public init(index: UInt64, hasDescriptor: Bool) {
        self.index = index
        self.hasDescriptor = hasDescriptor
    }

    /// Decodes exactly 8 bytes.
    public init?(_ bytes: [UInt8]) {
        guard let value = NumberPayload.decode(bytes) else { return nil }
        index = value & ~VringDescriptor.withoutDescriptor
        hasDescriptor = value & VringDescriptor.withoutDescriptor == 0
    }

    /// The bytes on the wire.
    public var encoded: [UInt8] {
        NumberPayload.encode(index | (hasDescriptor ? 0 : VringDescriptor.withoutDescriptor))
    }
}

/// One region of memory (vhost-user: A memory region description), unchecked.
public struct MemoryRegionPayload: Sendable, Equatable {
    /// Length on the wire.
    public static let size = 32
    /// Guest physical address of the first byte.
    public var guestAddress: UInt64
    /// Length in bytes.
    public var length: UInt64
    /// The front-end's own address of the first byte.
    public var userAddress: UInt64
    /// Offset of the first byte in the file.
    public var fileOffset: UInt64

    /// Describes a region.
    public init(guestAddress: UInt64, length: UInt64, userAddress: UInt64, fileOffset: UInt64) {
        self.guestAddress = guestAddress
        self.length = length
        self.userAddress = userAddress
        self.fileOffset = fileOffset
    }

    init?(_ reader: inout WireReader) {
        guard let guest = reader.integer(UInt64.self), let length = reader.integer(UInt64.self),
            let user = reader.integer(UInt64.self), let offset = reader.integer(UInt64.self)
        else { return nil }
        self.init(guestAddress: guest, length: length, userAddress: user, fileOffset: offset)
    }

    func encode(to writer: inout WireWriter) {
        writer.integer(guestAddress)
        writer.integer(length)
        writer.integer(userAddress)
        writer.integer(fileOffset)
    }
}

/// SET_MEM_TABLE's payload (vhost-user: Multiple Memory regions description): only as many regions
/// as are counted are on the wire.
public struct MemoryTablePayload: Sendable, Equatable {
    /// Length on the wire without regions.
    public static let headSize = 8
    /// Most regions in one table.
    public static let largestCount = 8
    /// The count as stated, unchecked.
    public var count: UInt32
    /// To be 0.
    public var padding: UInt32
    /// The regions whose bytes are there.
    public var regions: [MemoryRegionPayload]

    /// Describes a table.
    public init(_ regions: [MemoryRegionPayload]) {
        count = UInt32(clamping: regions.count)
        padding = 0
        self.regions = regions
    }

    /// Decodes the head and as many whole regions as follow it.
    public init?(_ bytes: [UInt8]) {
        var reader = WireReader(bytes)
        guard let count = reader.integer(UInt32.self), let padding = reader.integer(UInt32.self)
        else { return nil }
        self.count = count
        self.padding = padding
        regions = []
        while reader.remaining > 0 {
            guard let region = MemoryRegionPayload(&reader) else { return nil }
            regions.append(region)
        }
    }

    /// The bytes on the wire.
    public var encoded: [UInt8] {
        var writer = WireWriter()
        writer.integer(count)
        writer.integer(padding)
        for region in regions { region.encode(to: &writer) }
        return writer.bytes
    }
}

/// ADD_MEM_REG's and REM_MEM_REG's payload (vhost-user: Single memory region description).
public struct SingleRegionPayload: Sendable, Equatable {
    /// Length on the wire.
    public static let size = 40
    /// To be 0.
    public var padding: UInt64
    /// The region.
    public var region: MemoryRegionPayload

    /// Describes a request about one region.
    public init(_ region: MemoryRegionPayload) {
        padding = 0
        self.region = region
    }

    /// Decodes exactly 40 bytes.
    public init?(_ bytes: [UInt8]) {
        var reader = WireReader(bytes)
        guard bytes.count == SingleRegionPayload.size, let padding = reader.integer(UInt64.self),
            let region = MemoryRegionPayload(&reader)
        else { return nil }
        self.padding = padding
        self.region = region
    }

    /// The bytes on the wire.
    public var encoded: [UInt8] {
        var writer = WireWriter()
        writer.integer(padding)
        region.encode(to: &writer)
        return writer.bytes
    }
}
