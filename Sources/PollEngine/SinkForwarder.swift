internal import GuestMemory
internal import Virtqueue

/// Takes every packet, reads its Ethernet header, gives the buffer back.
struct SinkForwarder: ~Copyable, Forwarder {
    private var burst = ChainBurst()
    /// Folds all headers read, so that reading them is not for nothing.
    private(set) var digest: UInt64 = 0

    init(_ plan: WorkerPlan) {}

    @_noLocks
    static func poll(
        _ forwarder: inout SinkForwarder,
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

    @_noLocks @inline(__always)
    mutating func turn(_ ports: PortList) -> Int {
        var moved = 0
        var index = 0
        while index < (unsafe ports.count) {
            moved &+= unsafe SinkForwarder.drain(ports.ports[index], &burst, &digest)
            index &+= 1
        }
        return moved
    }

    /// Takes one burst from every lane of a port.
    @_noLocks @inline(__always)
    static func drain(
        _ port: UnsafeMutablePointer<PortState>,
        _ burst: inout ChainBurst,
        _ digest: inout UInt64
    ) -> Int {
        var moved = 0
        var lane = 0
        while lane < (unsafe port.pointee.laneCount) {
            let taken = unsafe port.pointee.take(lane, into: &burst)
            if taken > 0 {
                unsafe consume(port, burst, &digest)
                unsafe port.pointee.finish(lane, burst)
                moved &+= taken
            }
            lane &+= 1
        }
        return moved
    }

    @_noLocks @inline(__always)
    private static func consume(
        _ port: UnsafeMutablePointer<PortState>,
        _ burst: borrowing ChainBurst,
        _ digest: inout UInt64
    ) {
        var good: UInt64 = 0
        var copies: UInt64 = 0
        var fold = digest
        var index = 0
        while index < burst.count {
            let entry = unsafe burst.entries[index]
            if entry.isDropped == 0 {
                good &+= 1
                copies &+= UInt64(entry.copies)
                if let header = EthernetHeader(burst, entry) {
                    fold = fold &+ (header.destination ^ header.source)
                }
            }
            index &+= 1
        }
        digest = fold
        unsafe port.pointee.record.pointee.engine.consumed &+= good
        unsafe port.pointee.record.pointee.engine.consumedCopies &+= copies
    }
}
