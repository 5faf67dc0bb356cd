import Testing

@testable import PollEngine

@Suite struct WorkerTallyTests {
    private static let long: UInt64 = 2_000_000

    /// Lets cycles pass.
    private func spend(_ cycles: UInt64) {
        let start = CycleClock.now
        while CycleClock.now &- start < cycles {}
    }

    @Test func `a busy turn among idle ones is booked as busy, all of it`() {
        var tally = WorkerTally()
        _ = tally.book(0)
        let idle = tally.idleCycles
        spend(Self.long)
        let isDue = tally.book(32)
        #expect(!isDue)
        let busy = tally.busyCycles
        #expect(busy >= Self.long)
        #expect(tally.idleCycles == idle)
        spend(Self.long)
        let isShown = tally.book(0)
        #expect(isShown, "what was counted is shown when the worker becomes idle")
        #expect(tally.busyCycles == busy)
        #expect(tally.idleCycles >= idle + Self.long)
    }

    @Test func `a run of busy turns is booked as busy, whenever the clock was read`() {
        for length in [2, 3, 63, 64, 65, 200] {
            var tally = WorkerTally()
            _ = tally.book(0)
            let idle = tally.idleCycles
            for _ in 0..<length {
                spend(Self.long / 100)
                _ = tally.book(1)
            }
            _ = tally.book(0)
            #expect(tally.busyCycles >= UInt64(length) * (Self.long / 100))
            // The empty turn at the end is next to nothing, on either side.
            #expect(tally.idleCycles - idle < Self.long)
            #expect(tally.turns == UInt64(length) + 2)
            #expect(tally.emptyPolls == 2)
        }
    }

    @Test func `sleep is idle, whatever came before it`() {
        for last in [0, 1] {
            var tally = WorkerTally()
            _ = tally.book(1)
            _ = tally.book(last)
            tally.read()
            let busy = tally.busyCycles
            spend(Self.long)
            tally.read()
            #expect(tally.busyCycles == busy)
            #expect(tally.idleCycles >= Self.long)
        }
    }

    @Test func `counters are shown every 64 turns`() {
        var tally = WorkerTally()
        for turn in 1...256 {
            let isDue = tally.book(1)
            #expect(isDue == (turn % 64 == 0))
        }
    }
}
