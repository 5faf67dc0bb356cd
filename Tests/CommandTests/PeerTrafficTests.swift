import Testing

@testable import vhost_pci

@Suite struct PeerTrafficTests {
    private static let millisecond: UInt64 = 1_000_000

    private func pair(runFor: UInt64) -> (PeerTraffic, PeerTraffic) {
        let (a, b) = (MACAddress(local: 1), MACAddress(local: 2))
        return (
            PeerTraffic(own: a, partner: .peer(b), lengths: [64, 1518], runFor: runFor),
            PeerTraffic(own: b, partner: .peer(a), lengths: [60], runFor: runFor)
        )
    }

    /// Runs both ends over wires that may drop or change frames; returns their summaries.
    private func run(
        _ ends: (PeerTraffic, PeerTraffic),
        turns: Int = 4000,
        wire: (Int, TrafficFrame) -> TrafficFrame? = { $1 }
    ) -> (PeerTraffic, PeerTraffic) {
        var (a, b) = ends
        var now: UInt64 = 1000
        var count = 0
        for _ in 0..<turns {
            now += Self.millisecond / 10
            for _ in 0..<4 {
                if let frame = a.nextFrame(now: now) {
                    count += 1
                    if let arrived = wire(count, frame) { b.accept(arrived, now: now + 500) }
                }
                if let frame = b.nextFrame(now: now) {
                    count += 1
                    if let arrived = wire(count, frame) { a.accept(arrived, now: now + 500) }
                }
            }
        }
        return (a, b)
    }

    @Test func `a good wire loses nothing and both ends finish`() {
        let (a, b) = run(pair(runFor: 100 * Self.millisecond))
        #expect(a.phase == .finished)
        #expect(b.phase == .finished)
        #expect(a.summary.sent > 1000)
        #expect(a.summary.sent == b.summary.received)
        #expect(b.summary.sent == a.summary.received)
        #expect(a.summary.confirmed == a.summary.sent)
        #expect(a.summary.missing == 0 && a.summary.reordered == 0 && a.summary.damaged == 0)
        #expect(a.finalSummary().latencyP50 == 500)
    }

    @Test func `a lost frame is missing at the receiver and the sender finishes late`() {
        let (a, b) = run(pair(runFor: 50 * Self.millisecond), turns: 30_000) { count, frame in
            count == 500 && frame.kind == .payload ? nil : frame
        }
        let missing = a.summary.missing + b.summary.missing
        #expect(missing == 1)
        #expect(a.phase == .finished && b.phase == .finished)
    }

    @Test func `frames that change places are counted as reordered and not as missing`() {
        var held: TrafficFrame?
        var (a, b) = pair(runFor: 50 * Self.millisecond)
        b.accept(a.nextFrame(now: 1), now: 2)
        a.accept(b.nextFrame(now: 3), now: 4)
        _ = a.nextFrame(now: 5)
        for step in 0..<4 {
            guard let frame = a.nextFrame(now: 6) else { continue }
            if step == 1 {
                held = frame
            } else {
                b.accept(frame, now: 7)
            }
        }
        b.accept(held, now: 8)
        #expect(b.summary.received == 4)
        #expect(b.summary.reordered == 1)
        #expect(b.summary.missing == 0)
    }

    @Test func `no more than the window is under way`() {
        var (a, b) = pair(runFor: 50 * Self.millisecond)
        b.accept(a.nextFrame(now: 1), now: 2)
        a.accept(b.nextFrame(now: 3), now: 4)
        var payloads: UInt64 = 0
        for _ in 0..<1000 {
            if a.nextFrame(now: 5)?.kind == .payload { payloads += 1 }
        }
        #expect(payloads == PeerTraffic.window)
        #expect(a.underWay == PeerTraffic.window)
    }

    @Test func `a frame for somebody else is not counted`() {
        var (a, _) = pair(runFor: Self.millisecond)
        let foreign = TrafficFrame(
            destination: MACAddress(local: 9),
            source: MACAddress(local: 2),
            kind: .payload,
            sequence: 0,
            received: 0,
            sentAt: 0,
            length: 60
        )
        a.accept(foreign, now: 1)
        #expect(a.phase == .greeting)
        #expect(a.summary.received == 0)
    }

    @Test func `a count above what was sent is not believed`() {
        var (a, b) = pair(runFor: Self.millisecond)
        b.accept(a.nextFrame(now: 1), now: 2)
        guard var frame = b.nextFrame(now: 3) else {
            Issue.record("the second peer has nothing to say")
            return
        }
        frame.received = 1_000_000
        frame.kind = .payload
        a.accept(frame, now: 4)
        #expect(a.summary.confirmed == 0)
    }

    @Test func `an unreadable frame is damage`() {
        var (a, _) = pair(runFor: Self.millisecond)
        a.accept(nil, now: 1)
        #expect(a.summary.damaged == 1)
    }

    @Test func `an end that is asked to stop sends nothing new and waits for the rest`() {
        var (a, b) = pair(runFor: 50 * Self.millisecond)
        b.accept(a.nextFrame(now: 1), now: 2)
        a.accept(b.nextFrame(now: 3), now: 4)
        while let frame = a.nextFrame(now: 5) { b.accept(frame, now: 6) }
        a.end(now: 7)
        #expect(a.nextFrame(now: 8) == nil)
        #expect(a.phase == .draining && a.underWay == PeerTraffic.window)
        for _ in 0..<3 { a.accept(b.nextFrame(now: 9), now: 10) }
        _ = a.nextFrame(now: 11)
        #expect(a.phase == .finished)
        #expect(a.summary.sent == a.summary.confirmed)
    }

    @Test func `an end that heard nobody and is asked to stop is finished`() {
        var (a, _) = pair(runFor: Self.millisecond)
        _ = a.nextFrame(now: 1)
        a.end(now: 2)
        #expect(a.nextFrame(now: 3) == nil)
        #expect(a.phase == .finished && a.summary.sent == 0)
    }

    @Test func `an echo confirms by returning our own frames`() {
        var a = PeerTraffic(
            own: MACAddress(local: 1),
            partner: .echo,
            lengths: [64],
            runFor: 10 * Self.millisecond
        )
        var now: UInt64 = 1
        for _ in 0..<400 {
            now += Self.millisecond / 10
            guard var frame = a.nextFrame(now: now) else { continue }
            (frame.source, frame.destination) = (frame.destination, frame.source)
            a.accept(frame, now: now + 300)
        }
        #expect(a.phase == .finished)
        #expect(a.summary.sent > 0)
        #expect(a.summary.sent == a.summary.received)
        #expect(a.summary.missing == 0)
    }
}
