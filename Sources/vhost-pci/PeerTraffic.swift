import Histogram

/// What one of our own peers sends and expects: a value, driven by tests without rings or clocks.
///
/// It never has more frames under way than the other side has room for, so a lossless path loses
/// nothing and every loss is a finding. Either the other end is a peer like this one, which counts
/// what arrives and says so in each frame it sends, or it is an echo that returns our own frames.
struct PeerTraffic {
    enum Partner: Equatable {
        /// Another peer with this address.
        case peer(MACAddress)
        /// Whatever is sent comes back with addresses swapped.
        case echo
    }

    enum Phase: Equatable {
        /// Nobody was heard yet.
        case greeting
        /// Sending and receiving.
        case running
        /// Sending nothing new; waiting for what is under way.
        case draining
        /// Done, or the wait for the rest is over.
        case finished
    }

    struct Summary: Codable, Equatable {
        var sent: UInt64 = 0
        var sentBytes: UInt64 = 0
        var received: UInt64 = 0
        var receivedBytes: UInt64 = 0
        /// Frames of ours that the other end counted.
        var confirmed: UInt64 = 0
        /// Sequence numbers that never came.
        var missing: UInt64 = 0
        /// Frames that came after a later one, or twice.
        var reordered: UInt64 = 0
        /// Frames with wrong bytes.
        var damaged: UInt64 = 0
        var latencyP50: UInt64?
        var latencyP99: UInt64?
        var latencyP999: UInt64?
    }

    /// Frames under way at the most: well below the smallest ring used here, with room for
    /// acknowledgements.
    static let window: UInt64 = 96
    /// An acknowledgement goes out after so many frames when nothing else does.
    static let acknowledgeEvery: UInt64 = 32
    /// How long the other end may take to appear, and the last frames to arrive.
    static let greetingInterval: UInt64 = 20_000_000
    static let drainLimit: UInt64 = 2_000_000_000

    private(set) var phase = Phase.greeting
    private(set) var summary = Summary()

    /// The address this end sends from and listens to.
    let own: MACAddress
    private let partner: Partner
    private let lengths: [Int]
    private let runFor: UInt64
    private var lastHello: UInt64?
    private var startedAt: UInt64 = 0
    private var drainAt: UInt64 = 0
    private var expected: UInt64 = 0
    private var acknowledged: UInt64 = 0
    private var isHelloDue = false
    private var latency = Histogram<UInt64>(
        highestTrackableValue: 60_000_000_000,
        numberOfSignificantValueDigits: .two
    )

    /// Times are in nanoseconds of one monotonic clock.
    init(own: MACAddress, partner: Partner, lengths: [Int], runFor: UInt64) {
        self.own = own
        self.partner = partner
        self.lengths = lengths.isEmpty ? [TrafficFrame.minimumLength] : lengths
        self.runFor = runFor
    }

    /// The next frame to send, `nil` when there is none now.
    mutating func nextFrame(now: UInt64) -> TrafficFrame? {
        advance(now)
        switch phase {
        case .greeting:
            if let last = lastHello, Self.elapsed(last, now) < Self.greetingInterval, !isHelloDue {
                return nil
            }
            lastHello = now
            isHelloDue = false
            return frame(.hello, now)
        case .running:
            if isHelloDue {
                isHelloDue = false
                return frame(.hello, now)
            }
            if underWay < Self.window {
                var next = frame(.payload, now)
                next.sequence = summary.sent
                summary.sent += 1
                summary.sentBytes += UInt64(next.length)
                acknowledged = summary.received
                return next
            }
            return acknowledgement(now, after: Self.acknowledgeEvery)
        case .draining, .finished:
            return acknowledgement(now, after: 1)
        }
    }

    /// Takes in what arrived; `nil` for a frame that could not be read.
    mutating func accept(_ frame: TrafficFrame?, now: UInt64) {
        guard let frame else {
            summary.damaged += 1
            return
        }
        guard frame.destination == own else { return }
        switch frame.kind {
        case .hello:
            if phase == .greeting { begin(now) }
        case .acknowledgement:
            confirm(frame)
        case .payload:
            if phase == .greeting { begin(now) }
            confirm(frame)
            count(frame, now)
        }
    }

    /// Sends nothing new from now on; an end that has heard nobody is finished.
    mutating func end(now: UInt64) {
        switch phase {
        case .greeting: phase = .finished
        case .running:
            phase = .draining
            drainAt = now
        case .draining, .finished: break
        }
    }

    /// Frames sent of which nothing is known yet.
    var underWay: UInt64 { summary.sent - min(summary.sent, summary.confirmed) }

    /// The counts, with latencies and with what is missing now that no more will come.
    func finalSummary() -> Summary {
        var final = summary
        if latency.totalCount > 0 {
            final.latencyP50 = latency.valueAtPercentile(50)
            final.latencyP99 = latency.valueAtPercentile(99)
            final.latencyP999 = latency.valueAtPercentile(99.9)
        }
        return final
    }

    private mutating func begin(_ now: UInt64) {
        phase = .running
        startedAt = now
        // The other end may have missed ours: it answers nothing until it has heard from us.
        isHelloDue = partner != .echo
    }

    private mutating func advance(_ now: UInt64) {
        if phase == .running, Self.elapsed(startedAt, now) >= runFor {
            phase = .draining
            drainAt = now
        }
        if phase == .draining, underWay == 0 || Self.elapsed(drainAt, now) >= Self.drainLimit {
            phase = .finished
        }
    }

    private mutating func confirm(_ frame: TrafficFrame) {
        guard partner != .echo else { return }
        // Counts only grow; one above what was sent would be a forgery and is not believed.
        if frame.received <= summary.sent {
            summary.confirmed = max(summary.confirmed, frame.received)
        }
    }

    private mutating func count(_ frame: TrafficFrame, _ now: UInt64) {
        summary.received += 1
        summary.receivedBytes += UInt64(frame.length)
        if partner == .echo { summary.confirmed = summary.received }
        if frame.sequence < expected {
            summary.reordered += 1
            summary.missing -= min(1, summary.missing)
        } else {
            summary.missing += frame.sequence - expected
            expected = frame.sequence + 1
        }
        if now >= frame.sentAt { _ = latency.record(min(now - frame.sentAt, 59_000_000_000)) }
    }

    private mutating func acknowledgement(_ now: UInt64, after count: UInt64) -> TrafficFrame? {
        guard partner != .echo, summary.received - acknowledged >= count else { return nil }
        acknowledged = summary.received
        return frame(.acknowledgement, now)
    }

    /// Nanoseconds from one reading of the clock to a later one.
    private static func elapsed(_ earlier: UInt64, _ later: UInt64) -> UInt64 {
        later > earlier ? later - earlier : 0
    }

    private func frame(_ kind: TrafficFrame.Kind, _ now: UInt64) -> TrafficFrame {
        let destination: MACAddress =
            switch partner {
            case .peer(let address): address
            case .echo: MACAddress(local: 0xee)
            }
        let length =
            kind == .payload
            ? lengths[Int(summary.sent % UInt64(lengths.count))] : TrafficFrame.minimumLength
        return TrafficFrame(
            destination: destination,
            source: own,
            kind: kind,
            sequence: 0,
            received: summary.received,
            sentAt: now,
            length: length
        )
    }
}
