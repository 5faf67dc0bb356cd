import Testing

@testable import VhostPCINet

@Suite struct RingProgressTests {
    @Test func `VU-R-02: as many entries were taken as were returned`() {
        var progress = RingProgress()
        progress.begin(1, nextAvailable: 10, used: 10)
        progress.end(1, used: 42)
        #expect(progress.nextAvailable(1) == 42)
    }

    @Test func `HI-I7: entries that were lost before us were taken again from the used index`() {
        var progress = RingProgress()
        progress.begin(1, nextAvailable: 15, used: 10)
        progress.end(1, used: 12)
        #expect(progress.nextAvailable(1) == 12)
    }

    @Test func `VU-R-03: a ring on which nothing was returned keeps the front-end's base`() {
        var progress = RingProgress()
        progress.begin(1, nextAvailable: 15, used: 10)
        progress.end(1, used: 10)
        #expect(progress.nextAvailable(1) == 15)
    }

    @Test func `VU-R-06: indices wrap at 65536`() {
        var progress = RingProgress()
        progress.begin(0, nextAvailable: 65_530, used: 65_530)
        progress.end(0, used: 4)
        #expect(progress.nextAvailable(0) == 4)
    }

    @Test func `a ring that was never worked on has no place to go on`() {
        var progress = RingProgress()
        progress.end(3, used: 7)
        #expect(progress.nextAvailable(3) == nil)
        progress.begin(3, nextAvailable: 0, used: 0)
        #expect(progress.nextAvailable(3) == nil)
        #expect(progress.active == [3])
    }

    @Test func `VU-R-03: a ring that the front-end stopped is forgotten`() {
        var progress = RingProgress()
        progress.begin(0, nextAvailable: 0, used: 0)
        progress.end(0, used: 5)
        progress.forget(0)
        #expect(progress.nextAvailable(0) == nil)
        progress.begin(0, nextAvailable: 0, used: 0)
        progress.clear()
        #expect(progress.active.isEmpty)
    }
}
