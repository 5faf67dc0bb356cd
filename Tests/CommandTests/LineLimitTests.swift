import Testing

@testable import vhost_pci

@Suite struct LineLimitTests {
    @Test func `a flood shows a burst, then one an interval, and counts the rest`() {
        var limit = LineLimit(burst: 3, interval: 100, now: 0)
        var shown: [UInt64] = []
        for now in 0..<1000 as Range<UInt64> {
            if let omitted = limit.admit(now: now) { shown.append(omitted) }
        }
        #expect(shown.prefix(3) == [0, 0, 0])
        #expect(shown.count == 12)
        #expect(shown.reduce(0, +) + limit.omitted + UInt64(shown.count) == 1000)
    }

    @Test func `quiet earns a burst again, and no more than one`() {
        var limit = LineLimit(burst: 2, interval: 10, now: 0)
        for _ in 0..<5 { _ = limit.admit(now: 0) }
        #expect(limit.omitted == 3)
        #expect(limit.admit(now: 1_000_000) == 3)
        #expect(limit.admit(now: 1_000_000) == 0)
        #expect(limit.admit(now: 1_000_000) == nil)
    }

    @Test func `a clock that stands still or goes back earns nothing and traps nothing`() {
        var limit = LineLimit(burst: 1, interval: 10, now: 100)
        #expect(limit.admit(now: 5) == 0)
        #expect(limit.admit(now: 0) == nil)
        #expect(limit.admit(now: .max) == 1)
        #expect(limit.admit(now: .max) == nil)
    }
}
