/// The three addresses of a split queue.
public struct QueueAddresses: Hashable, Sendable {
    /// Descriptor table.
    public var descriptorArea: UInt64
    /// Available ring.
    public var driverArea: UInt64
    /// Used ring.
    public var deviceArea: UInt64

    /// Names the three areas.
    public init(descriptorArea: UInt64, driverArea: UInt64, deviceArea: UInt64) {
        self.descriptorArea = descriptorArea
        self.driverArea = driverArea
        self.deviceArea = deviceArea
    }

    /// Reads 24 bytes at `offset`.
    public init(_ fields: WireFields, _ offset: Int) {
        descriptorArea = fields[offset]
        driverArea = fields[offset + 8]
        deviceArea = fields[offset + 16]
    }

    /// The 24 bytes on the wire.
    public var bytes: [UInt8] {
        var writer = WireWriter()
        writer.integer(descriptorArea)
        writer.integer(driverArea)
        writer.integer(deviceArea)
        return writer.bytes
    }
}

/// Where a device stands in a queue: result of VQ STATE_GET, argument of STATE_SET.
public struct QueueIndices: Hashable, Sendable {
    /// Next available entry to take.
    public var lastAvailable: UInt16
    /// Next used entry to write.
    public var lastUsed: UInt16

    /// Names a place.
    public init(lastAvailable: UInt16, lastUsed: UInt16) {
        self.lastAvailable = lastAvailable
        self.lastUsed = lastUsed
    }

    /// Reads 4 bytes at `offset`.
    public init(_ fields: WireFields, _ offset: Int) {
        lastAvailable = fields[offset]
        lastUsed = fields[offset + 2]
    }

    /// The 4 bytes on the wire.
    public var bytes: [UInt8] {
        var writer = WireWriter()
        writer.integer(lastAvailable)
        writer.integer(lastUsed)
        return writer.bytes
    }
}

/// The result of VQ INFO (40 bytes); from byte 8 on it has the shape of the standard's virtqueue part
/// (virtio 1.4 VIRTIO_DEV_PART_VQ_CFG).
public struct QueueInformation: Hashable, Sendable {
    /// Largest size.
    public var maximumSize: UInt16
    /// Size set.
    public var size: UInt16
    /// Vector bound, `noVector` for none.
    public var vector: UInt16
    /// The queue is enabled.
    public var isEnabled: Bool
    /// Addresses set.
    public var addresses: QueueAddresses

    /// Length on the wire.
    public static let size = 40

    /// Describes a queue.
    public init(
        maximumSize: UInt16,
        size: UInt16,
        vector: UInt16,
        isEnabled: Bool,
        addresses: QueueAddresses
    ) {
        self.maximumSize = maximumSize
        self.size = size
        self.vector = vector
        self.isEnabled = isEnabled
        self.addresses = addresses
    }

    /// Reads a result.
    public init(_ fields: WireFields) {
        maximumSize = fields[0]
        size = fields[8]
        vector = fields[10]
        let enabled: UInt16 = fields[12]
        isEnabled = enabled != 0
        addresses = QueueAddresses(fields, 16)
    }

    /// The result on the wire.
    public var bytes: [UInt8] {
        var writer = WireWriter()
        writer.integer(maximumSize)
        writer.zeros(6)
        writer.integer(size)
        writer.integer(vector)
        writer.integer(UInt16(isEnabled ? 1 : 0))
        writer.zeros(2)
        writer.append(addresses.bytes)
        return writer.bytes
    }
}
