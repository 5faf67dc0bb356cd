/// The peer's virtqueues (class 2, PEER_VIRTQ_INFO): one message, or one part of several.
///
/// The vhost-pci-net RFC names the count and leaves `struct virtq` open; its 64 bytes are ours.
public struct PeerQueueInformation: Equatable, Sendable {
    /// One queue: 64 bytes.
    public struct Queue: Equatable, Sendable {
        /// Peer virtqueue index.
        public var index: UInt16
        /// Number of descriptors.
        public var size: UInt16
        /// What the queue is and in which state.
        public var flags: QueueFlags
        /// Slot in the peer-notify structure.
        public var notifyIndex: UInt16
        /// Next available entry to process.
        public var nextAvailable: UInt16
        /// Packed rings only: used index and wrap bit.
        public var usedIndex: UInt16
        /// Descriptor table.
        public var descriptorArea: UInt64
        /// Available ring.
        public var driverArea: UInt64
        /// Used ring.
        public var deviceArea: UInt64
        /// Address to log used-ring writes at.
        public var logAddress: UInt64
        /// The features that the peer agreed to; 0 when the device does not say, and then they are
        /// those that device and driver agreed on. Without it a driver that came before its peer
        /// could not know how that peer reads its rings (VPN-D-06 assumes the reverse order).
        public var features: UInt64

        /// Describes a queue.
        public init(
            index: UInt16,
            size: UInt16,
            flags: QueueFlags,
            notifyIndex: UInt16,
            nextAvailable: UInt16 = 0,
            usedIndex: UInt16 = 0,
            descriptorArea: UInt64,
            driverArea: UInt64,
            deviceArea: UInt64,
            logAddress: UInt64 = 0,
            features: UInt64 = 0
        ) {
            self.index = index
            self.size = size
            self.flags = flags
            self.notifyIndex = notifyIndex
            self.nextAvailable = nextAvailable
            self.usedIndex = usedIndex
            self.descriptorArea = descriptorArea
            self.driverArea = driverArea
            self.deviceArea = deviceArea
            self.logAddress = logAddress
            self.features = features
        }
    }

    /// Flags of one queue.
    public struct QueueFlags: OptionSet, Sendable {
        /// The wire's bits; unknown ones are carried and ignored.
        public let rawValue: UInt16

        /// Takes the bits as they are.
        public init(rawValue: UInt16) {
            self.rawValue = rawValue
        }

        /// The queue is enabled.
        public static let enabled = QueueFlags(rawValue: 1)
        /// The queue is started.
        public static let started = QueueFlags(rawValue: 2)
        /// The ring has the packed layout.
        public static let packed = QueueFlags(rawValue: 4)
        /// Writes to the used ring are logged.
        public static let logsUsedRing = QueueFlags(rawValue: 8)
        /// It is a transmit queue of the peer.
        public static let peerTransmit = QueueFlags(rawValue: 16)
        /// It is the control queue of the peer.
        public static let peerControl = QueueFlags(rawValue: 32)
    }

    /// Number of queues that the peer has, over all parts.
    public var total: UInt32
    /// The queues of this part.
    public var queues: [Queue]

    /// Bytes of one entry.
    public static let entrySize = 64
    /// Longest message this project writes: the least buffer a driver posts (VPN-M-01).
    public static let maximumFrameLength = 4096

    /// Describes a part.
    public init(total: UInt32, queues: [Queue]) {
        self.total = total
        self.queues = queues
    }

    /// Splits queues into parts whose frames are no longer than `maximumFrameLength`.
    public static func parts(
        of queues: [Queue],
        maximumFrameLength: Int = maximumFrameLength
    ) -> [PeerQueueInformation] {
        let perPart = max(1, (maximumFrameLength - 6) / entrySize)
        return stride(from: 0, to: queues.count, by: perPart).map { start in
            PeerQueueInformation(
                total: UInt32(clamping: queues.count),
                queues: Array(queues[start..<min(start + perPart, queues.count)])
            )
        }
    }
}

extension PeerQueueInformation {
    func encode(into writer: inout WireWriter) {
        writer.integer(total)
        for queue in queues {
            writer.integer(queue.index)
            writer.integer(queue.size)
            writer.integer(queue.flags.rawValue)
            writer.integer(queue.notifyIndex)
            writer.integer(queue.nextAvailable)
            writer.integer(queue.usedIndex)
            writer.zeros(4)
            writer.integer(queue.descriptorArea)
            writer.integer(queue.driverArea)
            writer.integer(queue.deviceArea)
            writer.integer(queue.logAddress)
            writer.integer(queue.features)
            writer.zeros(8)
        }
    }

    init(decoding data: [UInt8]) throws(ControlFrameError) {
        var reader = WireReader(data)
        guard let total = reader.integer(UInt32.self) else {
            throw .cut(expected: 4, actual: data.count)
        }
        let count = reader.remaining / Self.entrySize
        guard reader.remaining % Self.entrySize == 0 else {
            throw .cut(expected: 4 + (count + 1) * Self.entrySize, actual: data.count)
        }
        // What is described bounds the work and the memory, never what is announced (HI-G5).
        guard total >= 1, count >= 1, total >= UInt32(clamping: count) else {
            throw .queueCount(announced: total, described: UInt32(clamping: count))
        }
        var queues: [Queue] = []
        for _ in 0..<count {
            guard let entry = reader.bytes(Self.entrySize), let queue = Queue(decoding: entry)
            else { throw .cut(expected: 4 + count * Self.entrySize, actual: data.count) }
            queues.append(queue)
        }
        self.init(total: total, queues: queues)
    }
}

extension PeerQueueInformation.Queue {
    fileprivate init?(decoding entry: [UInt8]) {
        var reader = WireReader(entry)
        guard let index = reader.integer(UInt16.self),
            let size = reader.integer(UInt16.self),
            let flags = reader.integer(UInt16.self),
            let notifyIndex = reader.integer(UInt16.self),
            let nextAvailable = reader.integer(UInt16.self),
            let usedIndex = reader.integer(UInt16.self),
            reader.skip(4),
            let descriptorArea = reader.integer(UInt64.self),
            let driverArea = reader.integer(UInt64.self),
            let deviceArea = reader.integer(UInt64.self),
            let logAddress = reader.integer(UInt64.self),
            let features = reader.integer(UInt64.self)
        else { return nil }
        self.init(
            index: index,
            size: size,
            flags: PeerQueueInformation.QueueFlags(rawValue: flags),
            notifyIndex: notifyIndex,
            nextAvailable: nextAvailable,
            usedIndex: usedIndex,
            descriptorArea: descriptorArea,
            driverArea: driverArea,
            deviceArea: deviceArea,
            logAddress: logAddress,
            features: features
        )
    }
}
