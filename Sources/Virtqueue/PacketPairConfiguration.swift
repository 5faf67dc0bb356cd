public import GuestMemory
public import HostSystem

/// Equal buffers side by side in memory that a device reaches: numbers only.
public struct PacketBuffers: Sendable, Equatable {
    /// Where the device sees the first one.
    public let address: UInt64
    /// Bytes of each, network header included; a multiple of 64.
    public let size: Int
    /// Number of them.
    public let count: Int

    /// Describes buffers.
    public init(address: UInt64, size: Int, count: Int) {
        self.address = address
        self.size = size
        self.count = count
    }
}

/// A queue pair of a network device that we drive, while it is being set up: both rings are enabled
/// at the device and empty, and no buffer is posted yet.
public struct PacketPairConfiguration: Sendable {
    /// The device's receive ring, which we fill with empty buffers.
    public var receive: QueueConfiguration
    /// The device's transmit ring.
    public var transmit: QueueConfiguration
    /// One buffer for each entry of the receive ring.
    public var receiveBuffers: PacketBuffers
    /// One buffer for each entry of the transmit ring.
    public var transmitBuffers: PacketBuffers
    /// The memory that rings and buffers lie in, at device addresses.
    public var memory: MemoryTable
    /// The device spreads long packets over several buffers (VIRTIO_NET_F_MRG_RXBUF).
    public var isMergeable: Bool
    /// Tells the device of new receive buffers.
    public var receiveDoorbell: Doorbell
    /// Tells the device of packets to send.
    public var transmitDoorbell: Doorbell
    /// Readable when the device has received something; `nil` when it cannot say so, and the pair
    /// has to be polled without pause.
    public var wakeup: EventFD?

    /// Describes a pair.
    public init(
        receive: QueueConfiguration,
        transmit: QueueConfiguration,
        receiveBuffers: PacketBuffers,
        transmitBuffers: PacketBuffers,
        memory: MemoryTable,
        isMergeable: Bool,
        receiveDoorbell: Doorbell = .none,
        transmitDoorbell: Doorbell = .none,
        wakeup: EventFD? = nil
    ) {
        self.receive = receive
        self.transmit = transmit
        self.receiveBuffers = receiveBuffers
        self.transmitBuffers = transmitBuffers
        self.memory = memory
        self.isMergeable = isMergeable
        self.receiveDoorbell = receiveDoorbell
        self.transmitDoorbell = transmitDoorbell
        self.wakeup = wakeup
    }
}
