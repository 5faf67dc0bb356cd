/// A set of vhost-user protocol features, in the numbering of QEMU's document.
public struct ProtocolFeatures: OptionSet, Hashable, Sendable, CustomStringConvertible {
    /// Bit n is protocol feature n.
    public let rawValue: UInt64

    /// Takes the bits as they are.
    public init(rawValue: UInt64) {
        self.rawValue = rawValue
    }

    private init(bit: UInt64) {
        rawValue = 1 << bit
    }

    /// GET_QUEUE_NUM is known.
    public static let multiqueue = ProtocolFeatures(bit: 0)
    /// SET_LOG_BASE carries a descriptor.
    public static let logShared = ProtocolFeatures(bit: 1)
    /// SEND_RARP is known.
    public static let rarp = ProtocolFeatures(bit: 2)
    /// A request may ask for an acknowledgement.
    public static let replyAcknowledge = ProtocolFeatures(bit: 3)
    /// NET_SET_MTU is known.
    public static let mtu = ProtocolFeatures(bit: 4)
    /// The back-end may send requests of its own.
    public static let backendRequests = ProtocolFeatures(bit: 5)
    /// SET_VRING_ENDIAN is known.
    public static let crossEndian = ProtocolFeatures(bit: 6)
    /// Crypto sessions.
    public static let cryptoSession = ProtocolFeatures(bit: 7)
    /// Post-copy migration.
    public static let pageFault = ProtocolFeatures(bit: 8)
    /// GET_CONFIG and SET_CONFIG are known.
    public static let configuration = ProtocolFeatures(bit: 9)
    /// The back-end may send descriptors.
    public static let backendSendsDescriptors = ProtocolFeatures(bit: 10)
    /// The back-end may offer doorbells of its own.
    public static let hostNotifier = ProtocolFeatures(bit: 11)
    /// Buffers in flight are recorded in shared memory.
    public static let inflight = ProtocolFeatures(bit: 12)
    /// RESET_DEVICE is known.
    public static let resetDevice = ProtocolFeatures(bit: 13)
    /// Kicks and calls are messages.
    public static let inBandNotifications = ProtocolFeatures(bit: 14)
    /// Memory regions come and go one by one.
    public static let memorySlots = ProtocolFeatures(bit: 15)
    /// SET_STATUS and GET_STATUS are known.
    public static let status = ProtocolFeatures(bit: 16)
    /// Regions carry Xen fields.
    public static let xenMapping = ProtocolFeatures(bit: 17)
    /// Shared objects (in another document: probing).
    public static let sharedObject = ProtocolFeatures(bit: 18)
    /// Device state is transferred.
    public static let deviceState = ProtocolFeatures(bit: 19)
    /// GET_VRING_BASE leaves buffers in flight.
    public static let baseInflight = ProtocolFeatures(bit: 20)
    /// Ring addresses are guest addresses.
    public static let guestAddresses = ProtocolFeatures(bit: 21)
    /// The back-end may map files for the front-end.
    public static let sharedMemoryMap = ProtocolFeatures(bit: 22)

    /// What our back-end implements, and so may offer (VU-B-02).
    public static let served: ProtocolFeatures = [
        .multiqueue, .replyAcknowledge, .resetDevice, .memorySlots, .status,
    ]

    /// What our front-end makes use of, and so acknowledges when it is offered (VU-F-01).
    public static let used: ProtocolFeatures = served

    /// In-band notifications need the back-end channel and acknowledgements (VU-B-05).
    public var lacksCompanions: Bool {
        contains(.inBandNotifications)
            && !isSuperset(of: [.backendRequests, .replyAcknowledge])
    }

    /// The mask in hexadecimal.
    public var description: String { "0x" + String(rawValue, radix: 16) }
}
