import CAllocationCounter
import RingSupport
import Testing
import Virtqueue

@testable import PollEngine

/// Millions of frames through a device's queue pair and back; optimised builds only. The device is
/// played by our own device side of both rings.
@Suite struct DevicePortBulkTests {
    private static let frames = 1_000_000

    @Test(arguments: [60, 1514, 5000])
    func `a million frames in and out again allocate nothing and lose nothing`(
        length: Int
    ) throws {
        try #require(allocation_is_counted() == 1)
        let control = allocation_count()
        let frame = (0..<length).map { UInt8(truncatingIfNeeded: $0) }
        try #require(allocation_count() > control)
        let rig = try DeviceRig(size: 256)
        rig.pair.receiveDoorbell = .none
        rig.pair.transmitDoorbell = .none
        // What is sent lies in one buffer, so a long frame needs a long one.
        rig.pair.transmitBuffers = PacketBuffers(
            address: rig.pair.transmitBuffers.address - 0x8_0000,
            size: length > 2000 ? 5056 : 2048,
            count: 256
        )
        var port = try DevicePort(rig.pair)
        var device = PeerPort(
            receive: try SplitDeviceQueue(rig.pair.transmit, memory: rig.pair.memory),
            transmit: try SplitDeviceQueue(rig.pair.receive, memory: rig.pair.memory),
            mergeable: true,
            receiveDoorbell: .none,
            transmitDoorbell: .none
        )
        let memory = UnsafeMutableRawBufferPointer.allocate(byteCount: 1 << 18, alignment: 64)
        defer { unsafe memory.deallocate() }
        let outside = unsafe ChainBurst.of(Array(repeating: frame, count: 32), in: memory)
        var inside = ChainBurst()
        var back = ChainBurst()
        var moved = 0
        var returned = 0
        let before = allocation_count()
        while moved < Self.frames {
            moved += device.transmit(outside, from: 0, count: 32)
            device.finishTransmit()
            // A frame of several buffers may end a burst early: the rest comes with the next.
            var isEmpty = false
            while !isEmpty {
                inside.clear()
                isEmpty = port.receive(into: &inside, limit: 32) == 0
                _ = port.transmit(inside, from: 0, count: inside.count)
                port.finishTransmit()
                port.finishReceive()
                back.clear()
                returned += device.receive(into: &back, limit: 32)
                device.finishReceive(back)
            }
        }
        let allocations = allocation_count() - before
        #expect(allocations == 0)
        #expect(returned == moved)
        #expect(port.counters.receivedPackets == UInt64(moved))
        #expect(port.counters.transmittedBytes == UInt64(moved * length))
        #expect(port.counters.copies == UInt64(moved))
        #expect(port.counters.drops == [:])
        #expect(port.error == nil)
        #expect(device.error == nil)
        #expect(device.counters.receivedBytes == UInt64(moved * length))
        #expect(back.count == 0 || bytes(of: back, 0) == frame)
    }
}
