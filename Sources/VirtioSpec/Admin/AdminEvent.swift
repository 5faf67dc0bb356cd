/// What an event on the event queue tells.
public enum AdminEventType: UInt16, Sendable, CaseIterable {
    /// A queue has used buffers; `index` is the queue, `data` the vector.
    case usedBuffer = 1
    /// The configuration changed; `data` is the vector.
    case configurationChange = 2
    /// An access did not translate; `index` is the queue, `data` the address.
    case mmuFault = 3
    /// The virtual device cannot go on without a reset.
    case needsReset = 4
    /// There is a new virtual device; `data` is its type.
    case deviceAdded = 5
    /// A virtual device is gone; `data` was its type.
    case deviceRemoved = 6
}

/// Which events are sent: bit n is event type n.
public struct AdminEventMask: OptionSet, Hashable, Sendable {
    /// The bits as sent.
    public let rawValue: UInt32

    /// Takes the bits as they are.
    public init(rawValue: UInt32) {
        self.rawValue = rawValue
    }

    /// The mask of one type.
    public init(_ type: AdminEventType) {
        rawValue = 1 << UInt32(type.rawValue)
    }

    /// Every type there is.
    public static let all = AdminEventMask(AdminEventType.allCases.map { AdminEventMask($0) })
}

/// One event: 32 bytes in a buffer of the event queue.
public struct AdminEvent: Hashable, Sendable {
    /// The virtual device.
    public var virtualDeviceID: UInt64
    /// What happened, as sent.
    public var rawType: UInt16
    /// The queue, where there is one.
    public var index: UInt16
    /// Events lost before this one for want of a buffer (AVQ-D-324).
    public var lostCount: UInt32
    /// Depends on the type.
    public var data: UInt64

    /// Length on the wire.
    public static let size = 32

    /// Describes an event.
    public init(
        _ type: AdminEventType,
        virtualDeviceID: UInt64,
        index: UInt16 = 0,
        data: UInt64 = 0
    ) {
        self.virtualDeviceID = virtualDeviceID
        rawType = type.rawValue
        self.index = index
        lostCount = 0
        self.data = data
    }

    /// Reads an event; bytes that were not sent count as zero.
    public init(zeroExtending bytes: [UInt8]) {
        let fields = WireFields(bytes)
        virtualDeviceID = fields[0]
        rawType = fields[8]
        index = fields[10]
        lostCount = fields[12]
        data = fields[16]
    }

    /// What happened; `nil` for a type that is not known.
    public var type: AdminEventType? { AdminEventType(rawValue: rawType) }

    /// The event on the wire.
    public var bytes: [UInt8] {
        var writer = WireWriter()
        writer.integer(virtualDeviceID)
        writer.integer(rawType)
        writer.integer(index)
        writer.integer(lostCount)
        writer.integer(data)
        writer.zeros(8)
        return writer.bytes
    }
}
