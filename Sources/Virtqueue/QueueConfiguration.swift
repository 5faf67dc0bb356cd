public import GuestMemory
public import VirtioSpec

/// The negotiated features that change how a ring is read.
@frozen
public struct QueueFeatures: OptionSet, Sendable, BitwiseCopyable {
    /// Our own bits, not the wire's.
    public let rawValue: UInt8

    /// Takes the bits as they are.
    @inlinable
    public init(rawValue: UInt8) {
        self.rawValue = rawValue
    }

    /// Descriptors may refer to indirect tables (VIRTIO_F_INDIRECT_DESC).
    public static let indirect = QueueFeatures(rawValue: 1)
    /// `used_event` and `avail_event` decide on notifications (VIRTIO_F_EVENT_IDX).
    public static let eventIndex = QueueFeatures(rawValue: 2)
    /// Buffers are used in order (VIRTIO_F_IN_ORDER).
    public static let inOrder = QueueFeatures(rawValue: 4)

    /// The part of a feature set that rings care for.
    public init(_ features: FeatureBits) {
        var set: QueueFeatures = []
        if features.contains(.indirectDescriptors) { set.insert(.indirect) }
        if features.contains(.eventIndex) { set.insert(.eventIndex) }
        if features.contains(.inOrder) { set.insert(.inOrder) }
        self = set
    }
}

/// A split virtqueue while it is being set up: numbers only, no memory is touched.
///
/// Activating it (`SplitDeviceQueue.init`, `SplitDriverQueue.init`) resolves the three areas and
/// yields the running type, so that no loop has to ask whether a queue is ready.
public struct QueueConfiguration: Sendable, Equatable {
    /// Number of descriptors: a power of two, 1 … 32768 (virtio 1.3 §2.7).
    public var size: UInt16
    /// Address of the descriptor table, 16-byte aligned.
    public var descriptorArea: UInt64
    /// Address of the available ring, 2-byte aligned.
    public var driverArea: UInt64
    /// Address of the used ring, 4-byte aligned.
    public var deviceArea: UInt64
    /// Next available entry to take (vhost-user SET_VRING_BASE); 0 for a fresh queue.
    public var nextAvailable: UInt16
    /// Negotiated ring features.
    public var features: QueueFeatures

    /// Describes a queue.
    public init(
        size: UInt16,
        descriptorArea: UInt64,
        driverArea: UInt64,
        deviceArea: UInt64,
        nextAvailable: UInt16 = 0,
        features: QueueFeatures = []
    ) {
        self.size = size
        self.descriptorArea = descriptorArea
        self.driverArea = driverArea
        self.deviceArea = deviceArea
        self.nextAvailable = nextAvailable
        self.features = features
    }
}

extension QueueConfiguration {
    /// Throws why a device cannot work the ring in that memory: its size, its alignment, or an area
    /// that is out of reach.
    public func check(
        in memory: MemoryTable,
        maximumSize: UInt16 = 32768
    ) throws(QueueError) {
        _ = unsafe try SplitRingAreas(
            self,
            memory: memory,
            maximumSize: maximumSize,
            side: .device
        )
    }
}
