/// A register of the common configuration structure (virtio 1.3 §4.1.4.3).
///
/// 64-bit queue addresses are two registers each, because drivers write them by halves
/// (virtio 1.3 §4.1.3.1).
public enum CommonConfiguration: Int, Sendable, CaseIterable {
    /// Which word of the device's features to show.
    case deviceFeatureSelect = 0
    /// That word.
    case deviceFeature = 4
    /// Which word of the driver's features to show.
    case driverFeatureSelect = 8
    /// That word.
    case driverFeature = 12
    /// Vector of configuration changes.
    case configurationVector = 16
    /// Number of queues, admin queues not counted.
    case queueCount = 18
    /// The device status byte.
    case deviceStatus = 20
    /// Changes whenever the device configuration did.
    case configurationGeneration = 21
    /// Queue that the following registers concern.
    case queueSelect = 22
    /// Size of the queue, its largest size after reset.
    case queueSize = 24
    /// Vector of the queue.
    case queueVector = 26
    /// 1 when the queue is enabled.
    case queueEnable = 28
    /// Notify address of the queue, in multiples of the notify multiplier.
    case queueNotifyOffset = 30
    /// Descriptor area, low half.
    case queueDescriptorLow = 32
    /// Descriptor area, high half.
    case queueDescriptorHigh = 36
    /// Driver area, low half.
    case queueDriverLow = 40
    /// Driver area, high half.
    case queueDriverHigh = 44
    /// Device area, low half.
    case queueDeviceLow = 48
    /// Device area, high half.
    case queueDeviceHigh = 52
    /// What to store on notification with VIRTIO_F_NOTIF_CONFIG_DATA.
    case queueNotifyConfigurationData = 56
    /// 1 while a single queue is being reset.
    case queueReset = 58
    /// First admin queue.
    case adminQueueIndex = 60
    /// Number of admin queues.
    case adminQueueCount = 62

    /// Length of the structure in bytes.
    public static let length = 64
    /// Length that every device has: without the fields that came after virtio 1.0.
    public static let leastLength = 56
    /// A vector field's "no interrupt" (VIRTIO_MSI_NO_VECTOR).
    public static let noVector: UInt16 = 0xffff

    /// Offset of the first byte.
    public var offset: Int { rawValue }

    /// Width in bytes.
    public var width: Int {
        switch self {
        case .deviceStatus, .configurationGeneration: 1
        case .deviceFeatureSelect, .deviceFeature, .driverFeatureSelect, .driverFeature,
            .queueDescriptorLow, .queueDescriptorHigh, .queueDriverLow, .queueDriverHigh,
            .queueDeviceLow, .queueDeviceHigh:
            4
        default: 2
        }
    }

    /// The register that a byte belongs to; `nil` past the end.
    public init?(byte offset: Int) {
        for field in Self.allCases where field.offset <= offset {
            guard offset < field.offset + field.width else { continue }
            self = field
            return
        }
        return nil
    }
}
