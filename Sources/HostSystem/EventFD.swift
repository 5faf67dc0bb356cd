internal import CSystemShims

/// An eventfd of our own, non-blocking.
public final class EventFD: Sendable {
    /// The descriptor, to hand to epoll or to a peer.
    public let descriptor: FileDescriptor

    /// Makes a new eventfd with count 0.
    public init() throws(SystemError) {
        descriptor = FileDescriptor(owning: try checked(shim_eventfd(), "create an eventfd"))
    }

    /// Adds 1 to the count; never waits for whoever shares it, see `SignalOutcome`.
    @discardableResult
    public func signal() -> SignalOutcome {
        EventFD.signal(descriptor.rawValue)
    }

    /// Takes the whole count; 0 when nothing was signalled.
    @discardableResult
    public func drain() -> UInt64 {
        EventFD.drain(descriptor.rawValue)
    }

    /// Adds 1 to the count of a descriptor known to be an eventfd; never waits for whoever shares it,
    /// see `SignalOutcome`.
    @discardableResult
    public static func signal(_ descriptor: Int32) -> SignalOutcome {
        SignalOutcome(result: shim_event_add(descriptor))
    }

    /// Takes the whole count of a descriptor known to be an eventfd; 0 when nothing was signalled.
    ///
    /// Never waits, also when somebody else who holds the file has made it blocking and took the
    /// count between epoll's word and this read (HI-D24).
    @discardableResult
    public static func drain(_ descriptor: Int32) -> UInt64 {
        var count: UInt64 = 0
        return unsafe shim_read_at_once(descriptor, &count, 8) == 8 ? count : 0
    }
}
