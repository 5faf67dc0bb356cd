/// What VDEV CREATE may ask of a new virtual device: a run of {type, 16 bits; length, 16 bits; value,
/// padded to 4 bytes}. What is not asked for is the device type's own choice.
public struct DeviceAttributes: Hashable, Sendable {
    /// What an attribute is about.
    public enum Kind: UInt16, Sendable, CaseIterable {
        /// Features to offer, 64 bits.
        case features = 1
        /// First bytes of the configuration space.
        case configuration = 2
        /// Number of queues, 16 bits.
        case queueCount = 3
        /// Largest queue size, 16 bits.
        case maximumQueueSize = 4
        /// Number of interrupt vectors, 16 bits.
        case vectorCount = 5
        /// A name that survives the device, 16 bytes.
        case uuid = 6

        /// The length its value must have; `nil` for any.
        fileprivate var length: Int? {
            switch self {
            case .features: 8
            case .configuration: nil
            case .queueCount, .maximumQueueSize, .vectorCount: 2
            case .uuid: 16
            }
        }
    }

    private var values: [Kind: [UInt8]] = [:]
    private var offsets: [Kind: UInt32] = [:]

    /// Asks for nothing.
    public init() {}

    /// Reads creation data; BAD_ATTRIBUTE with the offset of what is unknown, cut, of the wrong
    /// length, or given twice (HI-F63).
    public init(_ bytes: [UInt8]) throws(AdminError) {
        let fields = WireFields(bytes)
        var offset = 0
        while offset < bytes.count {
            let place = UInt32(clamping: offset)
            let type: UInt16 = fields[offset]
            let length = Int(fields[offset + 2] as UInt16)
            guard bytes.count - offset >= 4, length <= bytes.count - offset - 4,
                let kind = Kind(rawValue: type), kind.length ?? length == length,
                values[kind] == nil
            else { throw .attribute(at: place) }
            values[kind] = Array(bytes[(offset + 4)..<(offset + 4 + length)])
            offsets[kind] = place
            offset += 4 + (length + 3) / 4 * 4
        }
    }

    /// Where an attribute stands in the creation data, for error records; 0 when it is not there.
    public func offset(of kind: Kind) -> UInt32 {
        offsets[kind] ?? 0
    }

    /// Features to offer.
    public var features: FeatureBits? {
        get { integer(.features).map { FeatureBits(rawValue: $0) } }
        set { set(.features, newValue?.rawValue) }
    }

    /// First bytes of the configuration space.
    public var configuration: [UInt8]? {
        get { values[.configuration] }
        set { values[.configuration] = newValue }
    }

    /// Number of queues.
    public var queueCount: UInt16? {
        get { integer(.queueCount) }
        set { set(.queueCount, newValue) }
    }

    /// Largest queue size.
    public var maximumQueueSize: UInt16? {
        get { integer(.maximumQueueSize) }
        set { set(.maximumQueueSize, newValue) }
    }

    /// Number of interrupt vectors.
    public var vectorCount: UInt16? {
        get { integer(.vectorCount) }
        set { set(.vectorCount, newValue) }
    }

    /// A name that survives the device; 16 bytes.
    public var uuid: [UInt8]? {
        get { values[.uuid] }
        set { values[.uuid] = newValue }
    }

    /// The attributes on the wire, by ascending type.
    public var bytes: [UInt8] {
        var writer = WireWriter()
        for (kind, value) in values.sorted(by: { $0.key.rawValue < $1.key.rawValue }) {
            writer.integer(kind.rawValue)
            writer.integer(UInt16(clamping: value.count))
            writer.append(value)
            writer.zeros((4 - value.count % 4) % 4)
        }
        return writer.bytes
    }

    private func integer<Value: FixedWidthInteger>(_ kind: Kind) -> Value? {
        values[kind].map { WireFields($0)[0] }
    }

    private mutating func set<Value: FixedWidthInteger>(_ kind: Kind, _ value: Value?) {
        values[kind] = value.map {
            var writer = WireWriter()
            writer.integer($0)
            return writer.bytes
        }
    }
}
