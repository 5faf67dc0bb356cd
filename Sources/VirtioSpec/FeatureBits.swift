/// A set of feature bits (virtio 1.3 §2.2); bit numbers beyond 63 are not used here.
public struct FeatureBits: OptionSet, Hashable, Sendable {
    /// Bit n is feature n.
    public let rawValue: UInt64

    /// Takes the bits as they are.
    public init(rawValue: UInt64) {
        self.rawValue = rawValue
    }

    /// The set with only feature `bit`.
    public init(bit: UInt8) {
        rawValue = bit < 64 ? 1 << UInt64(bit) : 0
    }

    // Device independent, virtio 1.3 §6.
    /// Descriptors may refer to tables of descriptors.
    public static let indirectDescriptors = FeatureBits(bit: 28)
    /// `used_event` and `avail_event` decide on notifications.
    public static let eventIndex = FeatureBits(bit: 29)
    /// The device is no legacy device.
    public static let version1 = FeatureBits(bit: 32)
    /// Addresses are translated by the platform's IOMMU.
    public static let accessPlatform = FeatureBits(bit: 33)
    /// Packed virtqueue layout.
    public static let ringPacked = FeatureBits(bit: 34)
    /// Buffers are used in the order they were made available.
    public static let inOrder = FeatureBits(bit: 35)
    /// Memory and registers are ordered as hardware orders them, not as processors do among
    /// themselves (VIRTIO_F_ORDER_PLATFORM).
    public static let orderPlatform = FeatureBits(bit: 36)
    /// A queue can be reset by itself.
    public static let ringReset = FeatureBits(bit: 40)
    /// Group administration commands; not a meaning of bit 41 for our own types' dialects.
    public static let adminQueue = FeatureBits(bit: 41)

    // Network device, virtio 1.3 §5.1.3.
    /// Receive buffers can be merged.
    public static let netMergeableBuffers = FeatureBits(bit: 15)
    /// The configuration has a status field.
    public static let netStatus = FeatureBits(bit: 16)
    /// There is a control queue.
    public static let netControlQueue = FeatureBits(bit: 17)
    /// There are several queue pairs.
    public static let netMultiqueue = FeatureBits(bit: 22)
    /// The configuration has the longest packet.
    public static let netMTU = FeatureBits(bit: 3)
    /// The control queue chooses what is taken in.
    public static let netControlReceive = FeatureBits(bit: 18)
    /// The configuration has a MAC address.
    public static let netMAC = FeatureBits(bit: 5)

    // vhost.
    /// All writes are logged (vhost: VHOST_F_LOG_ALL).
    public static let vhostLogAll = FeatureBits(bit: 26)
    /// vhost-user: protocol features can be negotiated (VHOST_USER_F_PROTOCOL_FEATURES).
    public static let vhostUserProtocol = FeatureBits(bit: 30)

    // Our management device type (device-type bits of multi personality).
    /// The class/command admin dialect is served.
    public static let managementClassDialect = FeatureBits(bit: 0)
    /// The virtual-device admin dialect is served.
    public static let managementVirtualDeviceDialect = FeatureBits(bit: 1)

    /// Numbers of the set bits, ascending.
    public var bits: [UInt8] {
        (0..<64).filter { rawValue & (1 << UInt64($0)) != 0 }
    }
}
