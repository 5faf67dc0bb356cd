internal import GuestMemory
internal import HostSystem
internal import Virtqueue

/// Sends every frame back to its peer with the two addresses exchanged, in one copy: the addresses
/// come from own memory, all else straight from the peer's transmit buffer, which is not written.
@safe
struct EchoForwarder: ~Copyable, Forwarder {
    // Safety: `addresses` has `stride` bytes for every entry of a burst; `reply` has room for the
    // segments of `burst` and one more for each entry.
    private static var stride: Int { 16 }
    private static var longestChain: Int { 32_768 }

    private var burst = ChainBurst(longestChain: EchoForwarder.longestChain)
    private var reply: ChainBurst
    private let addresses: UnsafeMutableRawPointer

    init(_ plan: WorkerPlan) {
        reply = ChainBurst(longestChain: EchoForwarder.longestChain + ChainBurst.capacity)
        unsafe addresses = .allocate(
            byteCount: EchoForwarder.stride * ChainBurst.capacity,
            alignment: 64
        )
        unsafe addresses.initializeMemory(
            as: UInt8.self,
            repeating: 0,
            count: EchoForwarder.stride * ChainBurst.capacity
        )
    }

    deinit {
        unsafe addresses.deallocate()
    }

    @_noLocks
    static func poll(
        _ forwarder: inout EchoForwarder,
        _ ports: PortList,
        _ control: WorkerControl,
        _ tally: inout WorkerTally,
        _ watch: PollWatch
    ) -> PollExit {
        var loop = PollLoop(watch)
        while true {
            if let exit = loop.exit(control) { return exit }
            let moved = unsafe forwarder.turn(ports)
            unsafe loop.book(moved, ports, control, &tally)
        }
    }

    @inline(__always)
    mutating func turn(_ ports: PortList) -> Int {
        var moved = 0
        var index = 0
        while index < (unsafe ports.count) {
            let port = unsafe ports.ports[index]
            var lane = 0
            while lane < (unsafe port.pointee.laneCount) {
                let taken = unsafe port.pointee.take(lane, into: &burst)
                if taken > 0 {
                    unsafe port.pointee.record.pointee.engine.short &+= exchange()
                    unsafe port.pointee.deliver(reply, from: 0, count: reply.count, lane: lane)
                    unsafe port.pointee.flush()
                    unsafe port.pointee.finish(lane, burst)
                    moved &+= taken
                }
                lane &+= 1
            }
            index &+= 1
        }
        return moved
    }

    /// Describes the frames to send in `reply`; returns how many were too short.
    @inline(__always)
    private mutating func exchange() -> UInt64 {
        let pieces = unsafe reply.segments
        var short: UInt64 = 0
        var used = 0
        var count = 0
        var index = 0
        while index < burst.count {
            let entry = unsafe burst.entries[index]
            index &+= 1
            guard entry.isDropped == 0 else { continue }
            guard let header = EthernetHeader(burst, entry) else {
                short &+= 1
                continue
            }
            let first = used
            let scratch = unsafe addresses + count &* EchoForwarder.stride
            let low = header.source | header.destination &<< 48
            let high = header.destination &>> 16
            unsafe scratch.storeBytes(of: low, as: UInt64.self)
            unsafe scratch.storeBytes(of: high, toByteOffset: 8, as: UInt64.self)
            unsafe pieces[used] = Segment(pointer: scratch, length: 12)
            used &+= 1
            var skip: UInt32 = 12
            var piece = Int(entry.firstSegment)
            let end = piece &+ Int(entry.segmentCount)
            while piece < end {
                let segment = unsafe burst.segments[piece]
                let length = unsafe segment.length
                if length > skip {
                    unsafe pieces[used] = Segment(
                        pointer: segment.pointer + Int(skip),
                        length: length &- skip
                    )
                    used &+= 1
                    skip = 0
                } else {
                    skip &-= length
                }
                piece &+= 1
            }
            unsafe reply.entries[count] = BurstEntry(
                firstSegment: UInt32(truncatingIfNeeded: first),
                segmentCount: UInt16(truncatingIfNeeded: used &- first),
                byteCount: entry.byteCount,
                head: entry.head,
                copies: entry.copies
            )
            count &+= 1
        }
        reply.count = count
        reply.segmentCount = used
        return short
    }
}
