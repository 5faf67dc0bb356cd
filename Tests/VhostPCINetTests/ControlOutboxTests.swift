import Testing

@testable import VhostPCINet

@Suite struct ControlOutboxTests {
    @Test func `VPN-D-20: messages leave in the order in which they came`() {
        var outbox = ControlOutbox()
        outbox.post([[1]], as: .memory)
        outbox.post([[2], [3]], as: .queues)
        outbox.post([[4]], as: .on)
        var frames: [[UInt8]] = []
        var ends: [Bool] = []
        while let entry = outbox.first {
            frames.append(entry.frame)
            ends.append(entry.isLast)
            outbox.removeFirst()
        }
        #expect(frames == [[1], [2], [3], [4]])
        #expect(ends == [true, false, true, true])
    }

    @Test func `HI-G33: OFF is never lost, and nothing else piles up`() {
        var outbox = ControlOutbox()
        for _ in 0..<10_000 {
            outbox.withdraw()
            outbox.post([[0, 0]], as: .off)
            outbox.withdraw()
            outbox.post([[1]], as: .memory)
            outbox.post([[2], [3]], as: .queues)
            outbox.post([[4]], as: .on)
        }
        #expect(outbox.count == 5)
        outbox.withdraw()
        #expect(outbox.count == 1)
        #expect(outbox.first?.notice == .off)
    }

    @Test func `a second OFF takes the place of the first, behind what came since`() {
        var outbox = ControlOutbox()
        outbox.post([[0]], as: .off)
        outbox.post([[1]], as: .memory)
        outbox.post([[2]], as: .off)
        #expect(outbox.first?.notice == .memory)
        #expect(outbox.count == 2)
    }

    @Test func `an empty outbox stays empty`() {
        var outbox = ControlOutbox()
        outbox.removeFirst()
        outbox.withdraw()
        outbox.clear()
        #expect(outbox.first == nil)
    }
}
