import GuestMemory
import HostSystem
import RingSupport
import Testing
import VirtioSpec
import Virtqueue

@testable import PollEngine

@Suite struct DevicePortTests {
    private static let frame = (0..<60).map { UInt8($0) }

    /// The frames that one poll of the port finds; their buffers go back.
    private func poll(_ port: inout DevicePort, limit: Int = 32) -> [[UInt8]] {
        var burst = ChainBurst()
        _ = port.receive(into: &burst, limit: limit)
        let frames = (0..<burst.count).map { bytes(of: burst, $0) }
        port.finishReceive()
        return frames
    }

    /// Sends frames from memory of the test; returns how many were dealt with.
    private func send(_ frames: [[UInt8]], _ port: inout DevicePort) -> Int {
        let memory = UnsafeMutableRawBufferPointer.allocate(byteCount: 1 << 18, alignment: 64)
        defer { unsafe memory.deallocate() }
        let burst = unsafe ChainBurst.of(frames, in: memory)
        let done = port.transmit(burst, from: 0, count: frames.count)
        port.finishTransmit()
        return done
    }

    /// What a port makes of one delivery: the frames and the counters. All buffers must be back.
    private func received(
        mergeable: Bool = true,
        _ deliver: (DeviceRig) -> Void
    ) throws -> (frames: [[UInt8]], counters: PortCounters) {
        let rig = try DeviceRig(mergeable: mergeable)
        var port = try DevicePort(rig.pair)
        deliver(rig)
        let frames = poll(&port)
        #expect(rig.posted == 8)
        #expect(port.error == nil)
        // The ring goes on.
        rig.deliver(frame: Self.frame)
        #expect(poll(&port) == [Self.frame])
        return (frames, port.counters)
    }

    @Test func `all receive buffers are posted, the device is told, interrupts are off`() throws {
        let rig = try DeviceRig()
        let port = try DevicePort(rig.pair)
        #expect(rig.posted == 8)
        #expect(rig.kick.drain() == 1)
        #expect(rig.receive.driverFlags == 1)
        #expect(rig.transmit.driverFlags == 1)
        let addresses = (0..<8).map { rig.receive.descriptor($0).address }
        #expect(Set(addresses).count == 8)
        #expect(port.error == nil)
    }

    @Test func `frames arrive without header, in place, and their buffers come back`() throws {
        let rig = try DeviceRig()
        var port = try DevicePort(rig.pair)
        for round in UInt8(0)..<100 {
            rig.deliver(frame: Self.frame + [round])
            rig.deliver(frame: [round] + Self.frame)
            #expect(rig.posted == 6)
            #expect(poll(&port) == [Self.frame + [round], [round] + Self.frame])
            #expect(rig.posted == 8)
        }
        #expect(port.counters.receivedPackets == 200)
        #expect(port.counters.receivedBytes == 200 * 61)
        #expect(port.counters.drops == [:])
    }

    @Test func `a buffer stays with the burst until the burst is done`() throws {
        let rig = try DeviceRig()
        var port = try DevicePort(rig.pair)
        rig.deliver(frame: Self.frame)
        var burst = ChainBurst()
        let count = port.receive(into: &burst, limit: 32)
        #expect(count == 1)
        #expect(rig.posted == 7)
        #expect(rig.kick.drain() == 1)
        port.finishReceive()
        #expect(rig.posted == 8)
        #expect(rig.kick.drain() == 1)
        port.finishReceive()
        #expect(rig.kick.drain() == 0)
    }

    @Test func `a merged frame is one frame of several segments`() throws {
        let pieces = (0..<3).map { [UInt8](repeating: UInt8($0), count: 100 + $0) }
        let (frames, counters) = try received { $0.deliver(pieces: pieces) }
        #expect(frames == [pieces.flatMap { $0 }])
        #expect(counters.receivedPackets == 2)
        #expect(counters.drops == [:])
    }

    @Test func `a merged frame that begins at the limit is taken whole`() throws {
        let rig = try DeviceRig()
        var port = try DevicePort(rig.pair)
        rig.deliver(frame: Self.frame)
        rig.deliver(pieces: [[1], [2], [3]])
        rig.deliver(frame: Self.frame)
        #expect(poll(&port, limit: 2) == [Self.frame, [1, 2, 3]])
        #expect(poll(&port, limit: 2) == [Self.frame])
        #expect(rig.posted == 8)
    }

    @Test func `frames are sent with an empty header, in order, over the whole ring`() throws {
        let rig = try DeviceRig()
        var port = try DevicePort(rig.pair)
        for round in UInt8(0)..<50 {
            let frames = (0..<5).map { Self.frame + [round, $0] }
            #expect(send(frames, &port) == 5)
            for frame in frames {
                #expect(rig.takeTransmitted() == [UInt8](repeating: 0, count: 12) + frame)
            }
            #expect(rig.takeTransmitted() == nil)
        }
        #expect(port.counters.transmittedPackets == 250)
        #expect(port.counters.copies == 250)
        #expect(port.counters.kicksSent == 51)
    }

    @Test func `a full transmit ring takes what fits, and more once the device is done`() throws {
        let rig = try DeviceRig()
        var port = try DevicePort(rig.pair)
        let frames = (UInt8(0)..<12).map { Self.frame + [$0] }
        #expect(send(frames, &port) == 8)
        #expect(send([Self.frame], &port) == 0)
        #expect(port.underWay == 8)
        for _ in 0..<3 { _ = rig.takeTransmitted() }
        #expect(send(frames, &port) == 3)
        #expect(port.counters.transmittedPackets == 11)
    }

    @Test func `a frame longer than a buffer is skipped by name, the next one is sent`() throws {
        let rig = try DeviceRig()
        var port = try DevicePort(rig.pair)
        let long = [UInt8](repeating: 7, count: DeviceRig.bufferSize - 11)
        let longest = [UInt8](repeating: 7, count: DeviceRig.bufferSize - 12)
        #expect(send([long, longest, Self.frame], &port) == 3)
        #expect(rig.takeTransmitted()?.count == DeviceRig.bufferSize)
        #expect(rig.takeTransmitted()?.count == 72)
        #expect(port.counters.drops == ["peer/buffer-size": 1])
    }

    @Test func `a device that wants no notifications gets none`() throws {
        let rig = try DeviceRig()
        var port = try DevicePort(rig.pair)
        _ = rig.kick.drain()
        rig.transmit.deviceFlags = 1
        #expect(send([Self.frame], &port) == 1)
        #expect(rig.kick.drain() == 0)
        rig.transmit.deviceFlags = 0
        #expect(send([Self.frame], &port) == 1)
        #expect(rig.kick.drain() == 1)
    }

    @Test func `an interrupt is asked for, unless a frame is there or nobody can interrupt`() throws
    {
        let rig = try DeviceRig()
        var port = try DevicePort(rig.pair)
        var arrived = port.requestNotifications()
        #expect(!arrived)
        #expect(rig.receive.driverFlags == 0)
        #expect(rig.transmit.driverFlags == 1)
        port.suppressNotifications()
        #expect(rig.receive.driverFlags == 1)
        rig.deliver(frame: Self.frame)
        arrived = port.requestNotifications()
        #expect(arrived)
        let mute = try DeviceRig(hasInterrupt: false)
        var polled = try DevicePort(mute.pair)
        arrived = polled.requestNotifications()
        #expect(arrived)
        #expect(mute.receive.driverFlags == 1)
    }

    @Test func `buffers that are too few, too small or not there are refused`() throws {
        let rig = try DeviceRig()
        var pair = rig.pair
        pair.receiveBuffers = PacketBuffers(address: 0x20_0000, size: 2048, count: 7)
        #expect(throws: QueueError.size) { _ = try DevicePort(pair) }
        pair.receiveBuffers = PacketBuffers(address: 0x20_0000, size: 64, count: 8)
        #expect(throws: QueueError.size) { _ = try DevicePort(pair) }
        pair.receiveBuffers = PacketBuffers(address: 0x20_0000, size: 2047, count: 8)
        #expect(throws: QueueError.size) { _ = try DevicePort(pair) }
        pair.receiveBuffers = PacketBuffers(address: 0x2F_FFC0, size: 2048, count: 8)
        #expect(throws: QueueError.area) { _ = try DevicePort(pair) }
        pair = rig.pair
        pair.transmitBuffers = PacketBuffers(address: .max - 64, size: 2048, count: 8)
        #expect(throws: QueueError.area) { _ = try DevicePort(pair) }
    }
}
