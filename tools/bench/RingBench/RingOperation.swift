internal import CRingBaseline
internal import GuestMemory
internal import PollEngine
internal import Virtqueue

/// What is measured at a ring.
public enum RingOperation: String, Sendable, CaseIterable {
    /// Transmit ring: take, judge the header, return.
    case walk
    /// Transmit ring: the same, and copy every packet into private memory.
    case dequeue
    /// Receive ring: copy packets into its buffers.
    case enqueue
    /// From one peer's transmit ring into the other's receive ring, one copy.
    case forward
    /// A poll that finds nothing.
    case idle

    /// Copies something.
    var copies: Bool { self != .walk && self != .idle }
}

/// Our rings: runs blocks of one operation, one block being as many packets as the ring holds.
@safe
struct SwiftRings: ~Copyable {
    // Safety: `target` lies in `memory`.
    private var port: PeerPort
    private var burst = ChainBurst()
    private let memory: BenchMemory
    private let target: UnsafeMutableRawPointer
    private var index: UInt16 = 0

    init(_ memory: BenchMemory) throws {
        memory.reset()
        let port = try memory.port()
        self.memory = memory
        unsafe target = memory.target
        self.port = port
    }

    /// Packets moved so far, by the port's own count.
    var moved: UInt64 { max(port.counters.receivedPackets, port.counters.transmittedPackets) }
    /// Nothing went wrong.
    var isGood: Bool { port.error == nil && port.counters.drops.isEmpty }

    /// Makes a ring's worth of packets and buffers available.
    mutating func refill() {
        index = index &+ UInt16(BenchShape.ringSize)
        memory.refill(index)
    }

    /// One block; cycles it took. What is enqueued can be prepared once and used again.
    mutating func block(
        _ operation: RingOperation,
        burst size: Int,
        isPrepared: Bool = false
    ) -> UInt64 {
        if operation != .idle { refill() }
        if operation == .enqueue, !isPrepared { prepare(size) }
        let begin = unsafe SharedCell.cycles()
        run(operation, size)
        return unsafe SharedCell.cycles() &- begin
    }

    /// A burst to enqueue: packets of the transmit ring, which is returned untouched by the clock.
    private mutating func prepare(_ size: Int) {
        burst.clear()
        _ = port.receive(into: &burst, limit: size)
        port.finishReceive(burst)
        var rest = BenchShape.ringSize - size
        var other = ChainBurst(longestChain: 256)
        while rest > 0 {
            other.clear()
            rest -= port.receive(into: &other, limit: 32)
            port.finishReceive(other)
        }
    }

    @_noLocks
    private mutating func run(_ operation: RingOperation, _ size: Int) {
        var turns = BenchShape.ringSize / size
        while turns > 0 {
            turns &-= 1
            switch operation {
            case .walk, .idle: walk(size)
            case .dequeue: dequeue(size)
            case .enqueue: enqueue(size)
            case .forward: forward(size)
            }
        }
    }

    @_noLocks
    private mutating func walk(_ size: Int) {
        burst.clear()
        if port.receive(into: &burst, limit: size) > 0 { port.finishReceive(burst) }
    }

    @_noLocks
    private mutating func dequeue(_ size: Int) {
        burst.clear()
        _ = port.receive(into: &burst, limit: size)
        var target = unsafe target
        var number = 0
        while number < burst.count {
            let entry = unsafe burst.entries[number]
            let segment = unsafe burst.segments[Int(entry.firstSegment)]
            unsafe SharedCell.copyPacket(target, segment.pointer, Int(segment.length))
            unsafe target += BenchShape.stride
            number &+= 1
        }
        port.finishReceive(burst)
    }

    @_noLocks
    private mutating func enqueue(_ size: Int) {
        _ = port.transmit(burst, from: 0, count: size)
        port.finishTransmit()
    }

    @_noLocks
    private mutating func forward(_ size: Int) {
        burst.clear()
        let count = port.receive(into: &burst, limit: size)
        _ = port.transmit(burst, from: 0, count: count)
        port.finishTransmit()
        port.finishReceive(burst)
    }
}

/// The C loop, driven in the same way.
@safe
struct BaselineRings: ~Copyable {
    // Safety: `packets` has room for a burst until deinit.
    private var transmit: baseline_ring
    private var receive: baseline_ring
    private let packets: UnsafeMutablePointer<baseline_packet>
    private let memory: BenchMemory
    private var index: UInt16 = 0

    init(_ memory: BenchMemory) {
        memory.reset()
        self.memory = memory
        unsafe transmit = memory.baseline(0)
        unsafe receive = memory.baseline(1)
        unsafe packets = .allocate(capacity: Int(BASELINE_BURST))
    }

    deinit {
        unsafe packets.deallocate()
    }

    /// Packets moved so far.
    var moved: UInt64 { unsafe max(transmit.packets, receive.packets) }
    /// Nothing went wrong.
    var isGood: Bool { unsafe transmit.broken == 0 && receive.broken == 0 }

    /// Makes a ring's worth of packets and buffers available.
    mutating func refill() {
        index = index &+ UInt16(BenchShape.ringSize)
        memory.refill(index)
    }

    /// One block; cycles it took.
    mutating func block(_ operation: RingOperation, burst size: Int) -> UInt64 {
        if operation != .idle { refill() }
        if operation == .enqueue { prepare(size) }
        let begin = unsafe SharedCell.cycles()
        run(operation, Int32(size))
        return unsafe SharedCell.cycles() &- begin
    }

    private mutating func prepare(_ size: Int) {
        var rest = BenchShape.ringSize
        var limit = size
        while rest > 0 {
            let count = unsafe baseline_take(&transmit, packets, Int32(limit))
            _ = unsafe baseline_return(&transmit, packets, count)
            rest -= Int(count)
            limit = min(rest, 32)
        }
        // The first burst again: enqueue always sends the same packets.
        for number in 0..<size {
            unsafe packets[number] = baseline_packet(
                bytes: UnsafePointer(memory.frame(number)),
                length: packets[0].length,
                head: UInt16(number)
            )
        }
    }

    private mutating func run(_ operation: RingOperation, _ size: Int32) {
        var turns = BenchShape.ringSize / Int(size)
        let target = unsafe memory.target.assumingMemoryBound(to: UInt8.self)
        while turns > 0 {
            turns &-= 1
            switch operation {
            case .walk, .idle:
                let count = unsafe baseline_take(&transmit, packets, size)
                if count > 0 { _ = unsafe baseline_return(&transmit, packets, count) }
            case .dequeue:
                _ = unsafe baseline_dequeue(
                    &transmit,
                    size,
                    target,
                    UInt32(BenchShape.stride)
                )
            case .enqueue:
                _ = unsafe baseline_put(&receive, packets, size)
                _ = unsafe baseline_publish(&receive)
            case .forward:
                let count = unsafe baseline_take(&transmit, packets, size)
                _ = unsafe baseline_put(&receive, packets, count)
                _ = unsafe baseline_publish(&receive)
                _ = unsafe baseline_return(&transmit, packets, count)
            }
        }
    }
}
