internal import GuestMemory
internal import HostSystem
internal import VirtioSpec
public import Virtqueue

/// One queue pair of a peer's network device, worked from the other end: we are the device of both
/// rings. A packet goes from the segments it lies in to the peer's buffers in one copy.
///
/// Driven by one thread:
///
///     let count = port.receive(into: &burst, limit: 32)   // from the peer's transmit ring
///     let fitted = other.transmit(burst, from: 0, count: count)
///     other.finishTransmit()
///     port.finishReceive(burst)
public struct PeerPort: ~Copyable {
    /// The ring that `receive` takes from: the peer's transmit ring.
    var incoming: SplitDeviceQueue
    /// The ring that `transmit` fills: the peer's receive ring.
    var outgoing: SplitDeviceQueue
    private let incomingDoorbell: Doorbell
    private let outgoingDoorbell: Doorbell
    private let mergeable: Bool

    /// What was counted so far.
    public internal(set) var counters = PortCounters()

    /// Joins the two rings, either of which may be missing.
    ///
    /// `receive` is the ring that `receive(into:limit:)` takes from, the peer's *transmit* ring;
    /// `transmit` is the one that `transmit` fills, the peer's *receive* ring; each doorbell tells
    /// the peer that its ring moved. `mergeable` is VIRTIO_NET_F_MRG_RXBUF as negotiated.
    public init(
        receive: consuming SplitDeviceQueue?,
        transmit: consuming SplitDeviceQueue?,
        mergeable: Bool,
        receiveDoorbell: Doorbell,
        transmitDoorbell: Doorbell
    ) {
        incoming = receive ?? .absent
        outgoing = transmit ?? .absent
        self.mergeable = mergeable
        incomingDoorbell = receiveDoorbell
        outgoingDoorbell = transmitDoorbell
    }

    /// Why a ring of the pair broke; the pair moves nothing from then on (HI-G37).
    public var error: QueueError? {
        @_noLocks get {
            if let error = incoming.error { return error }
            return outgoing.error
        }
    }

    @inline(__always)
    private var isBroken: Bool { @_noLocks get { incoming.isBroken || outgoing.isBroken } }

    /// The details of `error`.
    public var fault: QueueFault? { incoming.fault ?? outgoing.fault }

    /// Appends packets of the peer's transmit ring to the burst, without their network headers;
    /// returns how many chains were taken. Bad ones are marked dropped, and counted. The segments
    /// stay valid until `finishReceive`, which must get the same burst.
    @_noLocks
    public mutating func receive(into burst: inout ChainBurst, limit: Int) -> Int {
        guard !isBroken else { return 0 }
        let first = burst.count
        let taken = incoming.takeReadable(into: &burst, limit: limit)
        guard taken > 0 else {
            counters.emptyPolls &+= 1
            return 0
        }
        stripHeaders(&burst, from: first)
        counters.emptySegments = incoming.skippedSegments
        return taken
    }

    /// Returns the chains of a burst that `receive` filled, and notifies the peer if it wants it.
    @_noLocks
    public mutating func finishReceive(_ burst: borrowing ChainBurst) {
        guard !isBroken, burst.count > 0 else { return }
        incoming.releaseTaken(burst)
        guard notify(incomingDoorbell, incoming.shouldNotifyDriver()) else {
            return incoming.breakQueue(QueueFault(.notifyBlocked))
        }
    }

    /// Copies packets into the peer's receive ring; returns how many entries are dealt with, the
    /// rest found no buffer (`peer/no-buffer`, counted by whoever drops them). Entries marked as
    /// dropped are passed over, and packets that this peer cannot hold are skipped and counted.
    @_noLocks
    public mutating func transmit(
        _ burst: borrowing ChainBurst,
        from: Int,
        count: Int
    ) -> Int {
        guard !isBroken else { return 0 }
        var tally = DeliveryTally()
        let done = outgoing.deliver(
            burst,
            from: from,
            count: count,
            mergeable: mergeable,
            tally: &tally
        )
        counters.transmittedPackets &+= tally.packets
        counters.transmittedBytes &+= tally.bytes
        counters.copies &+= tally.copies
        counters.bufferSize &+= tally.tooBig
        return done
    }

    /// Shows the peer what was transmitted since the last call, with one store, and notifies it if
    /// it wants it.
    @_noLocks
    public mutating func finishTransmit() {
        guard !isBroken else { return }
        outgoing.publishDelivered()
        guard outgoing.hasUnnotified else { return }
        guard notify(outgoingDoorbell, outgoing.shouldNotifyDriver()) else {
            return outgoing.breakQueue(QueueFault(.notifyBlocked))
        }
    }

    /// Works in other memory from now on, and in nothing of the one before; the rings lie where they
    /// lay in the peer's addresses, or the pair breaks. Between two bursts.
    mutating func rebind(to memory: MemoryTable) {
        do throws(QueueError) {
            try incoming.rebind(to: memory)
            try outgoing.rebind(to: memory)
        } catch {
            incoming.breakQueue(QueueFault(error))
            outgoing.breakQueue(QueueFault(error))
        }
    }

    /// Tells the peer that we poll.
    @_noLocks
    public mutating func suppressNotifications() {
        incoming.suppressNotifications()
        outgoing.suppressNotifications()
    }

    /// Asks the peer to notify us of packets. True when some arrived meanwhile.
    @_noLocks
    public mutating func requestNotifications() -> Bool {
        guard !isBroken else { return false }
        return incoming.requestNotifications()
    }

    /// False when the doorbell must not be rung again (HI-D25).
    @_noLocks
    private mutating func notify(_ doorbell: Doorbell, _ wanted: Bool) -> Bool {
        guard wanted, !doorbell.isNone else {
            counters.kicksSuppressed &+= 1
            return true
        }
        switch doorbell.ring() {
        case .signalled: counters.kicksSent &+= 1
        case .full: counters.notifyFull &+= 1
        case .blocked: return false
        }
        return true
    }
}
