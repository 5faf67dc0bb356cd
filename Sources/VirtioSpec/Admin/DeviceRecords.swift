/// The result of VDEV INFO (24 bytes).
public struct DeviceInformation: Hashable, Sendable {
    /// What the flags say.
    public struct Flags: OptionSet, Hashable, Sendable {
        /// The bits as sent.
        public let rawValue: UInt32

        /// Takes the bits as they are.
        public init(rawValue: UInt32) {
            self.rawValue = rawValue
        }

        /// The device is pre-made and cannot be destroyed.
        public static let isStatic = Flags(rawValue: 1)
        /// Its driver has set DRIVER_OK.
        public static let driverOK = Flags(rawValue: 2)
        /// It stopped after a fault.
        public static let isStopped = Flags(rawValue: 4)
        /// Its MMU met an address that does not translate.
        public static let mmuFail = Flags(rawValue: 8)
    }

    /// What device it is.
    public var type: DeviceType
    /// Its state in short.
    public var flags: Flags
    /// Number of queues.
    public var queueCount: UInt16
    /// Number of interrupt vectors.
    public var vectorCount: UInt16
    /// Largest size of its largest queue.
    public var maximumQueueSize: UInt16
    /// Length of its configuration space.
    public var configurationSize: UInt32

    /// Length on the wire.
    public static let size = 24

    /// Describes a device.
    public init(
        type: DeviceType,
        flags: Flags,
        queueCount: UInt16,
        vectorCount: UInt16,
        maximumQueueSize: UInt16,
        configurationSize: UInt32
    ) {
        self.type = type
        self.flags = flags
        self.queueCount = queueCount
        self.vectorCount = vectorCount
        self.maximumQueueSize = maximumQueueSize
        self.configurationSize = configurationSize
    }

    /// Reads a result; bytes that were not sent count as zero (HI-F91).
    public init(_ fields: WireFields) {
        type = DeviceType(fields[0])
        flags = Flags(rawValue: fields[4])
        queueCount = fields[8]
        vectorCount = fields[10]
        maximumQueueSize = fields[12]
        configurationSize = fields[16]
    }

    /// The result on the wire.
    public var bytes: [UInt8] {
        var writer = WireWriter()
        writer.integer(type.rawValue)
        writer.integer(flags.rawValue)
        writer.integer(queueCount)
        writer.integer(vectorCount)
        writer.integer(maximumQueueSize)
        writer.zeros(2)
        writer.integer(configurationSize)
        writer.zeros(4)
        return writer.bytes
    }
}

/// The result of VDEV LIST: an 8-byte header, then ids in ascending order.
public struct DeviceList: Hashable, Sendable {
    /// The ids.
    public var ids: [UInt64]
    /// There are more behind the last one.
    public var hasMore: Bool

    /// Length of the header on the wire.
    public static let headerSize = 8

    /// Makes a page of a list.
    public init(ids: [UInt64], hasMore: Bool) {
        self.ids = ids
        self.hasMore = hasMore
    }

    /// Reads a page of `bytes`; a count beyond the bytes is cut to them (HI-F91).
    public init(_ bytes: [UInt8]) {
        let fields = WireFields(bytes)
        let claimed: UInt32 = fields[0]
        let flags: UInt32 = fields[4]
        let count = min(Int(claimed), max(0, bytes.count - DeviceList.headerSize) / 8)
        ids = (0..<count).map { fields[DeviceList.headerSize + 8 * $0] }
        hasMore = flags & 1 != 0
    }

    /// The page on the wire.
    public var bytes: [UInt8] {
        var writer = WireWriter()
        writer.integer(UInt32(clamping: ids.count))
        writer.integer(UInt32(hasMore ? 1 : 0))
        for id in ids { writer.integer(id) }
        return writer.bytes
    }
}
