import Testing

@testable import vhost_pci

@Suite struct TrafficFlowTests {
    private let here = MACAddress(local: 1)
    private let there = MACAddress(local: 2)

    private func flow(_ total: UInt64 = 1000) -> TrafficFlow {
        TrafficFlow(from: here, to: there, total: total, lengths: [60, 61, 1514], session: 7)
    }

    private func bytes(_ frame: TrafficFrame) -> [UInt8] {
        var bytes = [UInt8](repeating: 0, count: frame.length)
        _ = unsafe bytes.withUnsafeMutableBytes { unsafe frame.write(into: $0) }
        return bytes
    }

    private func make(_ flow: inout TrafficFlow, _ count: Int) throws -> [[UInt8]] {
        var frames: [[UInt8]] = []
        for _ in 0..<count {
            let frame = flow.nextFrame(now: 1)
            frames.append(bytes(try #require(frame)))
        }
        return frames
    }

    private func accept(_ flow: inout TrafficFlow, _ frame: [UInt8]) {
        unsafe frame.withUnsafeBytes { unsafe flow.accept($0) }
    }

    @Test func `all frames, once, whole and in order, are good`() throws {
        var flow = flow()
        while let frame = flow.nextFrame(now: 1) { accept(&flow, bytes(frame)) }
        #expect(flow.isGood)
        #expect(flow.sent == 1000)
        #expect(flow.received == 1000)
        #expect(flow.lost == 0)
        #expect(flow.bytes == 334 * 60 + 333 * (61 + 1514))
    }

    @Test func `no more are under way than a window`() throws {
        var flow = flow()
        let frames = try make(&flow, 64)
        #expect(flow.nextFrame(now: 1) == nil)
        accept(&flow, frames[0])
        #expect(flow.nextFrame(now: 1) != nil)
        #expect(flow.nextFrame(now: 1) == nil)
        #expect(!flow.isDone)
    }

    @Test func `a frame that never comes is lost`() throws {
        var flow = flow(10)
        let frames = try make(&flow, 10)
        for frame in frames.dropFirst() { accept(&flow, frame) }
        #expect(flow.lost == 1)
        #expect(flow.received == 9)
        #expect(flow.reordered == 0)
        #expect(!flow.isDone)
    }

    @Test func `a late frame is received and reordered, a second one only reordered`() throws {
        var flow = flow(3)
        let frames = try make(&flow, 3)
        for index in [1, 0, 2] { accept(&flow, frames[index]) }
        #expect(flow.isDone)
        #expect(flow.reordered == 1)
        #expect(!flow.isGood)
        accept(&flow, frames[2])
        accept(&flow, frames[0])
        #expect(flow.received == 3)
        #expect(flow.reordered == 3)
        #expect(flow.lost == 0)
    }

    @Test func `a frame with one wrong byte is damaged, wherever it is`() throws {
        var sender = flow()
        let good = try make(&sender, 1)[0]
        for index in 24..<good.count {
            var flow = flow()
            _ = flow.nextFrame(now: 1)
            var bad = good
            bad[index] ^= 0x10
            accept(&flow, bad)
            #expect(flow.damaged == 1, "byte \(index)")
            #expect(flow.received == 0)
        }
    }

    @Test func `frames of others are foreign, and never counted`() throws {
        var flow = flow()
        var other = TrafficFlow(from: there, to: here, total: 10, lengths: [60])
        let echoed = try make(&other, 1)[0]
        let own = try make(&flow, 1)[0]
        accept(&flow, echoed)
        accept(&flow, [UInt8](repeating: 0, count: 60))
        accept(&flow, [UInt8](own.prefix(59)))
        accept(&flow, [])
        #expect(flow.foreign == 4)
        #expect(flow.received == 0)
        #expect(flow.damaged == 0)
    }

    @Test func `frames of an earlier run are foreign`() throws {
        var earlier = TrafficFlow(from: here, to: there, total: 10, lengths: [60])
        var flow = flow()
        let late = try make(&earlier, 10)
        let own = try make(&flow, 10)
        for frame in late + own { accept(&flow, frame) }
        #expect(flow.foreign == 10)
        #expect(flow.received == 10)
        #expect(flow.reordered == 0)
    }

    @Test func `a number that was never sent is damage`() throws {
        var sender = flow()
        var receiver = flow()
        let frames = try make(&sender, 2)
        _ = receiver.nextFrame(now: 1)
        accept(&receiver, frames[1])
        #expect(receiver.damaged == 1)
        #expect(receiver.received == 0)
    }
}
