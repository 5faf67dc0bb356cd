internal import GuestMemory
internal import HostSystem
internal import VirtioSpec
public import Virtqueue

/// One queue pair of a network device that we drive: we are the driver of both rings, and the device
/// is not trusted (HI-A40 … HI-A46).
///
/// Received frames are handed on where the device put them, and their buffers go back to the ring
/// with `finishReceive`; a frame to be sent is copied once, into a buffer that the device reaches.
/// Driven by one thread:
///
///     let count = port.receive(into: &burst, limit: 32)
///     let fitted = other.transmit(burst, from: 0, count: burst.count)
///     other.finishTransmit()
///     port.finishReceive()
@safe
public struct DevicePort: ~Copyable {
    // Safety: `receiveBase` and `transmitBase` were translated together with the length of all
    // buffers, and the queues keep that memory. A buffer's number is below the size of its ring: it
    // is counted here, never read from shared memory. The arrays are our own until deinit.
    /// The device's receive ring.
    var incoming: SplitDriverQueue
    /// The device's transmit ring.
    var outgoing: SplitDriverQueue
    let isMergeable: Bool
    let receiveBase: UnsafeMutableRawPointer
    let receiveSize: Int
    private let receiveAddress: UInt64
    private let transmitBase: UnsafeMutableRawPointer
    private let transmitSize: Int
    private let transmitAddress: UInt64
    private let incomingDoorbell: Doorbell
    private let outgoingDoorbell: Doorbell
    private let canSleep: Bool

    /// Chains of the present burst, and room for the posting of one.
    let chains: UnsafeMutablePointer<UsedChain>
    private let staged: UnsafeMutablePointer<DriverBuffer>
    private let stagedHeads: UnsafeMutablePointer<UInt16>
    /// Number of the buffer that was posted under a head.
    let receiveBufferOfHead: UnsafeMutablePointer<UInt16>
    private let transmitBufferOfHead: UnsafeMutablePointer<UInt16>
    /// Receive buffers that are not with the device.
    let taken: UnsafeMutablePointer<UInt16>
    var takenCount = 0
    /// Transmit buffers that are not with the device.
    private let free: UnsafeMutablePointer<UInt16>
    private var freeCount = 0
    private var hasUnnotified = false

    /// What was counted so far.
    public internal(set) var counters = PortCounters()

    /// Resolves the pair and gives the device all receive buffers.
    ///
    /// Once for each time the device was enabled: both rings start at 0. `area` when the memory does
    /// not hold the buffers, `size` when they are not as many as the ring has entries or too small.
    public init(_ pair: PacketPairConfiguration) throws(QueueError) {
        unsafe self.init(
            pair,
            incoming: try SplitDriverQueue(pair.receive, memory: pair.memory),
            outgoing: try SplitDriverQueue(pair.transmit, memory: pair.memory),
            receiveBase: try Self.resolve(pair.receiveBuffers, pair.receive, pair.memory),
            transmitBase: try Self.resolve(pair.transmitBuffers, pair.transmit, pair.memory)
        )
        suppressNotifications()
        finishReceive()
    }

    private init(
        _ pair: PacketPairConfiguration,
        incoming: consuming SplitDriverQueue,
        outgoing: consuming SplitDriverQueue,
        receiveBase: UnsafeMutableRawPointer,
        transmitBase: UnsafeMutableRawPointer
    ) {
        self.incoming = incoming
        self.outgoing = outgoing
        unsafe self.receiveBase = receiveBase
        unsafe self.transmitBase = transmitBase
        isMergeable = pair.isMergeable
        receiveSize = pair.receiveBuffers.size
        receiveAddress = pair.receiveBuffers.address
        transmitSize = pair.transmitBuffers.size
        transmitAddress = pair.transmitBuffers.address
        incomingDoorbell = pair.receiveDoorbell
        outgoingDoorbell = pair.transmitDoorbell
        canSleep = pair.wakeup != nil
        unsafe chains = .allocate(capacity: ChainBurst.capacity)
        unsafe staged = .allocate(capacity: ChainBurst.capacity)
        unsafe stagedHeads = .allocate(capacity: ChainBurst.capacity)
        unsafe receiveBufferOfHead = Self.numbers(pair.receive.size)
        unsafe transmitBufferOfHead = Self.numbers(pair.transmit.size)
        unsafe taken = Self.numbers(pair.receive.size)
        unsafe free = Self.numbers(pair.transmit.size)
        takenCount = Int(pair.receive.size)
        freeCount = Int(pair.transmit.size)
    }

    deinit {
        unsafe chains.deallocate()
        unsafe staged.deallocate()
        unsafe stagedHeads.deallocate()
        unsafe receiveBufferOfHead.deallocate()
        unsafe transmitBufferOfHead.deallocate()
        unsafe taken.deallocate()
        unsafe free.deallocate()
    }

    /// Why a ring of the pair broke; the pair moves nothing from then on.
    public var error: QueueError? {
        @_noLocks get {
            if let error = incoming.error { return error }
            return outgoing.error
        }
    }

    /// The details of `error`.
    public var fault: QueueFault? { incoming.fault ?? outgoing.fault }

    /// Frames that the device has been given and has not said to be done with; after a fault nobody
    /// knows what became of them (HI-A48).
    public var underWay: Int { outgoing.outstanding }

    @inline(__always)
    private var isBroken: Bool { @_noLocks get { incoming.isBroken || outgoing.isBroken } }

    /// Appends received frames to the burst, without network headers; returns how many buffers were
    /// taken from the ring. Bad frames are counted and left out. The segments stay valid until
    /// `finishReceive`.
    @_noLocks
    public mutating func receive(into burst: inout ChainBurst, limit: Int) -> Int {
        guard !isBroken else { return 0 }
        let room = ChainBurst.capacity &- burst.count
        let count = unsafe incoming.reap(into: chains, limit: limit < room ? limit : room)
        guard count > 0 else {
            counters.emptyPolls &+= 1
            return 0
        }
        accept(&burst, count)
        counters.cutLengths = incoming.cutLengths
        // Without a frame nobody looks into the buffers, and nobody has to call `finishReceive`.
        if burst.count == 0 { finishReceive() }
        return count
    }

    /// Gives the buffers of what was received back to the device, and notifies it if it wants it.
    @_noLocks
    public mutating func finishReceive() {
        guard !isBroken, takenCount > 0 else { return }
        let length = UInt32(truncatingIfNeeded: receiveSize)
        while takenCount > 0 {
            let count = takenCount < ChainBurst.capacity ? takenCount : ChainBurst.capacity
            let first = takenCount &- count
            var index = 0
            while index < count {
                let number = unsafe Int(taken[first &+ index])
                unsafe staged[index] = DriverBuffer(
                    address: receiveAddress &+ UInt64(truncatingIfNeeded: number &* receiveSize),
                    length: length,
                    isWritable: true
                )
                index &+= 1
            }
            let posted = unsafe incoming.postEach(staged, count: count, heads: stagedHeads)
            index = 0
            while index < posted {
                unsafe receiveBufferOfHead[Int(stagedHeads[index])] = taken[first &+ index]
                index &+= 1
            }
            takenCount = first
        }
        incoming.publish()
        notify(incomingDoorbell, incoming.shouldNotifyDevice())
    }

    /// Copies frames into transmit buffers; returns how many entries are dealt with, the rest found
    /// no buffer (`peer/no-buffer`, counted by whoever drops them). Entries marked as dropped are
    /// passed over, and frames that no buffer holds are skipped and counted.
    @_noLocks
    public mutating func transmit(
        _ burst: borrowing ChainBurst,
        from: Int,
        count: Int
    ) -> Int {
        guard !isBroken else { return 0 }
        if freeCount < count {
            reclaim()
            guard !isBroken else { return 0 }
        }
        let most = UInt32(truncatingIfNeeded: transmitSize &- NetHeader.size)
        let end = from &+ count
        var index = from
        var used = 0
        var bytes: UInt64 = 0
        var copies: UInt64 = 0
        while index < end, used < ChainBurst.capacity {
            let entry = unsafe burst.entries[index]
            if entry.isDropped != 0 {
                index &+= 1
                continue
            }
            if entry.byteCount > most {
                counters.bufferSize &+= 1
                index &+= 1
                continue
            }
            guard used < freeCount else { break }
            let number = unsafe Int(free[freeCount &- 1 &- used])
            let offset = number &* transmitSize
            unsafe copy(entry, burst.segments, to: transmitBase + offset)
            unsafe staged[used] = DriverBuffer(
                address: transmitAddress &+ UInt64(truncatingIfNeeded: offset),
                length: entry.byteCount &+ UInt32(NetHeader.size),
                isWritable: false
            )
            bytes &+= UInt64(entry.byteCount)
            copies &+= UInt64(entry.copies) &+ 1
            used &+= 1
            index &+= 1
        }
        post(used)
        counters.transmittedPackets &+= UInt64(truncatingIfNeeded: used)
        counters.transmittedBytes &+= bytes
        counters.copies &+= copies
        return index &- from
    }

    /// Shows the device what was queued since the last call, with one store, and notifies it if it
    /// wants it.
    @_noLocks
    public mutating func finishTransmit() {
        guard !isBroken, hasUnnotified else { return }
        hasUnnotified = false
        outgoing.publish()
        notify(outgoingDoorbell, outgoing.shouldNotifyDevice())
    }

    /// Tells the device that we poll.
    @_noLocks
    public mutating func suppressNotifications() {
        incoming.suppressInterrupts()
        outgoing.suppressInterrupts()
    }

    /// Asks the device to interrupt at the next frame. True when some arrived meanwhile, or when the
    /// device cannot interrupt: then nobody may sleep.
    @_noLocks
    public mutating func requestNotifications() -> Bool {
        guard !isBroken else { return false }
        return canSleep ? incoming.requestInterrupts() : true
    }

    /// Notes what the device has not said to be done with: nobody will ask it any more.
    mutating func settle() {
        reclaim()
        counters.unfinished = UInt64(underWay)
    }

    /// Takes back the transmit buffers that the device is done with.
    @_noLocks @inline(never)
    private mutating func reclaim() {
        while true {
            let count = unsafe outgoing.reap(into: chains, limit: ChainBurst.capacity)
            var index = 0
            while index < count {
                unsafe free[freeCount] = transmitBufferOfHead[Int(chains[index].head)]
                freeCount &+= 1
                index &+= 1
            }
            guard count == ChainBurst.capacity else { return }
        }
    }

    /// Writes an empty network header and a frame behind it.
    @_noLocks @inline(__always)
    private func copy(
        _ entry: BurstEntry,
        _ segments: UnsafeMutablePointer<Segment>,
        to target: UnsafeMutableRawPointer
    ) {
        unsafe SharedCell.storeRelaxed64(target, 0)
        unsafe SharedCell.storeRelaxed32(target + 8, 0)
        var place = unsafe target + NetHeader.size
        var piece = Int(entry.firstSegment)
        let end = piece &+ Int(entry.segmentCount)
        while piece < end {
            let segment = unsafe segments[piece]
            let length = unsafe Int(segment.length)
            unsafe SharedCell.copyPacket(place, segment.pointer, length)
            unsafe place += length
            piece &+= 1
        }
    }

    /// Posts what is staged; the buffers are the last ones of `free`.
    @_noLocks @inline(__always)
    private mutating func post(_ count: Int) {
        guard count > 0 else { return }
        let posted = unsafe outgoing.postEach(staged, count: count, heads: stagedHeads)
        var index = 0
        while index < posted {
            freeCount &-= 1
            unsafe transmitBufferOfHead[Int(stagedHeads[index])] = free[freeCount]
            index &+= 1
        }
        hasUnnotified = true
    }

    @_noLocks
    private mutating func notify(_ doorbell: Doorbell, _ wanted: Bool) {
        guard wanted, !doorbell.isNone else {
            counters.kicksSuppressed &+= 1
            return
        }
        switch doorbell.ring() {
        case .signalled: counters.kicksSent &+= 1
        case .full, .blocked: counters.notifyFull &+= 1
        }
    }

    /// 0, 1, … one for each entry of a ring.
    private static func numbers(_ count: UInt16) -> UnsafeMutablePointer<UInt16> {
        let numbers = UnsafeMutablePointer<UInt16>.allocate(capacity: Int(count))
        for number in 0..<count {
            unsafe (numbers + Int(number)).initialize(to: number)
        }
        return unsafe numbers
    }

    private static func resolve(
        _ buffers: PacketBuffers,
        _ ring: QueueConfiguration,
        _ memory: MemoryTable
    ) throws(QueueError) -> UnsafeMutableRawPointer {
        guard buffers.count == Int(ring.size), buffers.size % 64 == 0,
            (128...131_072).contains(buffers.size)
        else { throw .size }
        let length = UInt64(buffers.count * buffers.size)
        guard let start = unsafe memory.view.translate(buffers.address, length, .readWrite) else {
            throw .area
        }
        return unsafe start
    }
}
