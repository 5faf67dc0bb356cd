internal import Virtqueue

/// Fills the receive rings of all peers with generated frames, at full speed or at a rate, and takes
/// what they transmit as a sink does.
struct SourceForwarder: ~Copyable, Forwarder {
    private var burst = ChainBurst()
    private var digest: UInt64 = 0
    private let generator: FrameGenerator
    /// Cycles from one frame of a port to the next, in 1/65,536; 0 for full speed.
    private let pace: UInt64

    init(_ plan: WorkerPlan) {
        generator = FrameGenerator(size: plan.packetSize)
        pace = plan.rate.map { Self.pace(framesPerSecond: $0) } ?? 0
    }

    /// Cycles a frame, in 1/65,536, at least 1.
    static func pace(framesPerSecond rate: UInt64) -> UInt64 {
        max(1, UInt64(Double(CycleClock.hertz) * 65_536 / Double(max(1, rate))))
    }

    @_noLocks
    static func poll(
        _ forwarder: inout SourceForwarder,
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
            let port = unsafe ports.ports[index]
            moved &+= unsafe SinkForwarder.drain(port, &burst, &digest)
            moved &+= unsafe feed(port)
            index &+= 1
        }
        return moved
    }

    /// Offers one burst to every queue pair of a port, as far as its rate allows. What finds no
    /// buffer was not sent: its numbers are used again.
    @_noLocks @inline(__always)
    private func feed(_ port: UnsafeMutablePointer<PortState>) -> Int {
        var sent = 0
        var lane = 0
        while lane < (unsafe port.pointee.laneCount) {
            let count = unsafe due(port)
            if count > 0, unsafe port.pointee.isOpen {
                unsafe generator.prepare(
                    count,
                    sequence: port.pointee.nextSequence,
                    port: port.pointee.slot
                )
                let fitted = unsafe port.pointee.offer(
                    generator.burst,
                    from: 0,
                    count: count,
                    lane: lane
                )
                let number = UInt64(truncatingIfNeeded: fitted)
                unsafe port.pointee.nextSequence &+= number
                unsafe port.pointee.pacedCount &+= number
                unsafe port.pointee.record.pointee.engine.generated &+= number
                sent &+= fitted
            }
            lane &+= 1
        }
        unsafe port.pointee.flush()
        return sent
    }

    /// Frames that may be sent now. A port that could not take them for long starts
    /// anew instead of being flooded.
    @_noLocks @inline(__always)
    private func due(_ port: UnsafeMutablePointer<PortState>) -> Int {
        guard pace != 0 else { return ChainBurst.capacity }
        let now = CycleClock.now
        if unsafe port.pointee.pacedSince == 0 { unsafe port.pointee.pacedSince = now }
        let elapsed = unsafe now &- port.pointee.pacedSince
        let (high, low) = elapsed.multipliedFullWidth(by: 65_536)
        guard high < pace else {
            unsafe restart(port, now)
            return 0
        }
        let total = pace.dividingFullWidth((high, low)).quotient
        let sent = unsafe port.pointee.pacedCount
        guard total > sent else { return 0 }
        let owed = total &- sent
        let most = UInt64(truncatingIfNeeded: ChainBurst.capacity)
        if owed > 4 &* most {
            unsafe restart(port, now)
            return 0
        }
        return Int(truncatingIfNeeded: min(owed, most))
    }

    @_noLocks
    private func restart(_ port: UnsafeMutablePointer<PortState>, _ now: UInt64) {
        unsafe port.pointee.pacedSince = now
        unsafe port.pointee.pacedCount = 0
    }
}
