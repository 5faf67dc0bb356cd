internal import GuestMemory
internal import Synchronization
internal import Virtqueue

/// A port as its worker sees it, from the turn that picks it up to the turn that lets it go.
///
/// Written by the worker alone. It lies in pages of its attachment, which the control thread keeps
/// until the worker has acknowledged that it uses them no more.
@safe
struct PortState {
    // Safety: all pointers lead into the pages of the attachment that owns this state; `pairs`, or
    // `devices` where that is not nil, holds `pairCount` initialised pairs; `tap` is nil or
    // initialised.
    /// Position in the engine's port table.
    let slot: Int
    /// Tells the ports apart that have one slot after the other.
    let serial: UInt64
    let pairs: UnsafeMutablePointer<PeerPort>
    let pairCount: Int
    /// Pairs, one bit each, into whose receive ring packets may be put.
    let receiveEnabled: UInt64
    /// Pairs, one bit each, whose transmit ring is forwarded.
    let transmitEnabled: UInt64
    let tap: UnsafeMutablePointer<TapPort>?
    /// Pairs of a network device that we drive, instead of a peer's.
    let devices: UnsafeMutablePointer<DevicePort>?
    let record: UnsafeMutablePointer<PortRecord>
    let ledger: PortLedger
    /// The table that the control thread wants to see used; nil until it was exchanged once. It keeps
    /// that one, and the one before, until the command that exchanged them is acknowledged.
    let wantedMemory: UnsafeMutablePointer<Atomic<UnsafeRawPointer?>>
    private var usedMemory: UnsafeRawPointer?

    /// Number of the next generated frame.
    var nextSequence: UInt64 = 0
    /// Generated frames are owed from this cycle count on.
    var pacedSince: UInt64 = 0
    /// Generated frames since `pacedSince`.
    var pacedCount: UInt64 = 0
    /// Cycle count at which packets began to find no buffer; 0 while they find some (HI-I10).
    var stalledSince: UInt64 = 0
    /// Pairs, one bit each, with packets that are not published yet.
    var unpublished: UInt64 = 0

    init(
        port: PortID,
        pairs: UnsafeMutablePointer<PeerPort>,
        pairCount: Int,
        receiveEnabled: UInt64,
        transmitEnabled: UInt64,
        tap: UnsafeMutablePointer<TapPort>?,
        devices: UnsafeMutablePointer<DevicePort>?,
        record: UnsafeMutablePointer<PortRecord>,
        ledger: PortLedger,
        wantedMemory: UnsafeMutablePointer<Atomic<UnsafeRawPointer?>>
    ) {
        slot = port.index
        serial = port.serial
        unsafe self.pairs = pairs
        self.pairCount = pairCount
        self.receiveEnabled = receiveEnabled
        self.transmitEnabled = transmitEnabled
        unsafe self.tap = tap
        unsafe self.devices = devices
        unsafe self.record = record
        self.ledger = ledger
        unsafe self.wantedMemory = wantedMemory
        unsafe usedMemory = nil
    }

    @_noLocks @inline(__always)
    private static func bit(_ pair: Int) -> UInt64 {
        1 &<< UInt64(truncatingIfNeeded: pair)
    }

    /// Receive queues to poll: the pairs, or the interface.
    var laneCount: Int {
        @_noLocks @inline(__always) get { unsafe tap == nil ? pairCount : 1 }
    }

    /// Fills the empty `burst` with packets that came in at a lane; returns how many the forwarder
    /// has to see. `finish` must follow when it is not 0.
    @_noLocks @inline(__always)
    mutating func take(_ lane: Int, into burst: inout ChainBurst) -> Int {
        burst.clear()
        if let tap = unsafe tap {
            return unsafe tap.pointee.receive(into: &burst, limit: ChainBurst.capacity)
        }
        if let devices = unsafe devices {
            _ = unsafe devices[lane].receive(into: &burst, limit: ChainBurst.capacity)
            return burst.count
        }
        _ = unsafe pairs[lane].receive(into: &burst, limit: ChainBurst.capacity)
        guard burst.count > 0, transmitEnabled & PortState.bit(lane) == 0 else {
            return burst.count
        }
        discard(lane, burst)
        return 0
    }

    /// Gives the buffers of a burst back.
    @_noLocks @inline(__always)
    mutating func finish(_ lane: Int, _ burst: borrowing ChainBurst) {
        guard unsafe tap == nil else { return }
        if let devices = unsafe devices {
            unsafe devices[lane].finishReceive()
        } else {
            unsafe pairs[lane].finishReceive(burst)
        }
    }

    /// A transmit ring that is started and not enabled: its packets are taken and dropped (VU-R-04).
    private mutating func discard(_ lane: Int, _ burst: borrowing ChainBurst) {
        unsafe record.pointee.engine.transmitDisabled &+= PortState.good(burst)
        finish(lane, burst)
    }

    /// Packets of a burst that are not dropped.
    static func good(_ burst: borrowing ChainBurst) -> UInt64 {
        var count: UInt64 = 0
        var index = 0
        while index < burst.count {
            if (unsafe burst.entries[index].isDropped) == 0 { count &+= 1 }
            index &+= 1
        }
        return count
    }

    /// Copies good packets into this port, as many as find buffers; returns how many.
    ///
    /// `lane` is the one they came from: it chooses the queue pair, so that the order of a flow is
    /// kept. Nothing waits (HI-I9). `flush` shows them to the peer.
    @_noLocks @inline(__always)
    mutating func offer(
        _ burst: borrowing ChainBurst,
        from: Int,
        count: Int,
        lane: Int
    ) -> Int {
        if let tap = unsafe tap {
            unsafe tap.pointee.transmit(burst, from: from, count: count)
            return count
        }
        let pair = openPair(lane)
        guard pair >= 0 else {
            unsafe record.pointee.engine.receiveDisabled &+= UInt64(truncatingIfNeeded: count)
            return count
        }
        let fitted: Int
        if let devices = unsafe devices {
            fitted = unsafe devices[pair].transmit(burst, from: from, count: count)
        } else {
            fitted = unsafe pairs[pair].transmit(burst, from: from, count: count)
        }
        unpublished |= PortState.bit(pair)
        if fitted > 0 {
            stalledSince = 0
        } else if stalledSince == 0 {
            stalledSince = CycleClock.now
        }
        return fitted
    }

    /// As `offer`; what finds no buffer is dropped and counted here.
    @_noLocks @inline(__always)
    mutating func deliver(
        _ burst: borrowing ChainBurst,
        from: Int,
        count: Int,
        lane: Int
    ) {
        let fitted = offer(burst, from: from, count: count, lane: lane)
        if fitted < count {
            unsafe record.pointee.engine.noBuffer &+= UInt64(truncatingIfNeeded: count &- fitted)
        }
    }

    /// Publishes what `offer` put in, once per pair, and notifies where the peer wants it.
    @_noLocks @inline(__always)
    mutating func flush() {
        var pair = 0
        while unpublished != 0 {
            if unpublished & 1 != 0 {
                if let devices = unsafe devices {
                    unsafe devices[pair].finishTransmit()
                } else {
                    unsafe pairs[pair].finishTransmit()
                }
            }
            unpublished &>>= 1
            pair &+= 1
        }
    }

    /// False when no receive ring is enabled: nothing can be put in.
    var isOpen: Bool {
        @_noLocks get { unsafe tap != nil || openPair(0) >= 0 }
    }

    /// The enabled pair for packets of a lane; -1 when none is enabled.
    @_noLocks @inline(__always)
    private func openPair(_ lane: Int) -> Int {
        var pair = lane < pairCount ? lane : lane % pairCount
        var tried = 0
        while tried < pairCount {
            if receiveEnabled & PortState.bit(pair) != 0 { return pair }
            pair &+= 1
            if pair == pairCount { pair = 0 }
            tried &+= 1
        }
        return -1
    }

    /// Makes the counters visible to the control thread.
    @_noLocks func publish() {
        var fault: UInt64 = 0
        var broken: UInt64 = 0
        if let tap = unsafe tap {
            unsafe record.pointee.tap = tap.pointee.counters
        } else {
            var sum = counters(0)
            var pair = 0
            while pair < pairCount {
                if pair > 0 { sum.add(counters(pair)) }
                let code = RingFault.code(error(pair), pair: pair)
                if code != 0 {
                    broken |= PortState.bit(pair)
                    if fault == 0 { fault = code }
                }
                pair &+= 1
            }
            unsafe record.pointee.peer = sum
        }
        unsafe ledger.publish(
            record,
            stalledSince: stalledSince,
            fault: fault,
            brokenPairs: broken
        )
    }

    @_noLocks @inline(__always)
    private func counters(_ pair: Int) -> PortCounters {
        if let devices = unsafe devices { return unsafe devices[pair].counters }
        return unsafe pairs[pair].counters
    }

    @_noLocks @inline(__always)
    private func error(_ pair: Int) -> QueueError? {
        if let devices = unsafe devices { return unsafe devices[pair].error }
        return unsafe pairs[pair].error
    }

    /// Turns to the memory that is wanted, if it is another one. Between two turns, when nothing of the
    /// one before is in anybody's hands.
    mutating func followMemory() {
        let wanted = unsafe wantedMemory.pointee.load(ordering: .acquiring)
        guard let wanted = unsafe wanted, unsafe wanted != usedMemory else { return }
        unsafe usedMemory = wanted
        let table = unsafe Unmanaged<MemoryTable>.fromOpaque(wanted).takeUnretainedValue()
        guard unsafe devices == nil, unsafe tap == nil else { return }
        for pair in 0..<pairCount { unsafe pairs[pair].rebind(to: table) }
    }

    /// Asks the peer to notify us. True when packets arrived meanwhile.
    mutating func requestNotifications() -> Bool {
        if let tap = unsafe tap {
            unsafe tap.pointee.endRest()
            return false
        }
        var arrived = false
        for pair in 0..<pairCount {
            if let devices = unsafe devices {
                if unsafe devices[pair].requestNotifications() { arrived = true }
            } else if unsafe pairs[pair].requestNotifications() {
                arrived = true
            }
        }
        return arrived
    }

    /// Tells the peer that we poll.
    mutating func suppressNotifications() {
        for pair in 0..<pairCount {
            if let devices = unsafe devices {
                unsafe devices[pair].suppressNotifications()
            } else {
                unsafe pairs[pair].suppressNotifications()
            }
        }
    }
}
