import RingSupport
import Testing
import VirtioSpec
import Virtqueue

/// How much of a ring can be under way, whatever its driver does.
@Suite struct InFlightTests {
    private static let buffers = SplitRingRig.buffers

    @Test func `HI-A20: one poll takes at most a ring's worth, the next goes on`() throws {
        let rig = try SplitRingRig(size: 8)
        var queue = try SplitDeviceQueue(rig.configuration, memory: rig.table)
        var burst = ChainBurst()
        for _ in 0..<3 {
            for head in UInt16(0)..<8 { rig.offer(head, Self.buffers, 3) }
            burst.clear()
            #expect(queue.takeReadable(into: &burst, limit: .max) == 8)
            queue.releaseTaken(burst)
        }
        #expect(queue.error == nil)
        let long = try SplitRingRig(size: 256)
        for head in UInt16(0)..<256 { long.offer(head, Self.buffers, 3) }
        var other = try SplitDeviceQueue(long.configuration, memory: long.table)
        burst.clear()
        #expect(other.takeReadable(into: &burst, limit: .max) == ChainBurst.capacity)
        #expect(other.takeReadable(into: &burst, limit: .max) == 0)
    }

    @Test func `HI-A21: more chains in flight than entries break the ring`() throws {
        let rig = try SplitRingRig(size: 8)
        for head in UInt16(0)..<8 { rig.offer(head, Self.buffers, 3) }
        var queue = try SplitDeviceQueue(rig.configuration, memory: rig.table)
        var burst = ChainBurst()
        #expect(queue.takeReadable(into: &burst, limit: 32) == 8)
        #expect(queue.inFlight == 8)
        rig.offer(0, Self.buffers, 3)
        #expect(queue.takeReadable(into: &burst, limit: 8) == 0)
        #expect(queue.error == .inFlight)
    }

    @Test func `HI-A21: the largest ring may be in flight whole`() throws {
        let rig = try SplitRingRig(size: 32768)
        var queue = try SplitDeviceQueue(rig.configuration, memory: rig.table)
        rig.setDescriptor(0, SplitDescriptor(address: Self.buffers, length: 3))
        for index in 0..<32768 { rig.setSlot(UInt16(index), 0) }
        rig.storeIndex(32768)
        var burst = ChainBurst()
        for _ in 0..<1024 {
            burst.clear()
            #expect(queue.takeReadable(into: &burst, limit: 32) == 32)
        }
        #expect(queue.inFlight == 32768)
        burst.clear()
        #expect(queue.takeReadable(into: &burst, limit: 32) == 0)
        #expect(queue.error == nil)
        rig.storeIndex(32769)
        #expect(queue.takeReadable(into: &burst, limit: 32) == 0)
        #expect(queue.error == .inFlight)
    }

    @Test func `HI-A22: a head offered twice is served twice and in order`() throws {
        let rig = try SplitRingRig(size: 8)
        rig.write([1, 2, 3], at: Self.buffers)
        rig.offer(4, Self.buffers, 3)
        rig.offer(4)
        var queue = try SplitDeviceQueue(rig.configuration, memory: rig.table)
        var burst = ChainBurst()
        #expect(queue.takeReadable(into: &burst, limit: 32) == 2)
        #expect(bytes(of: burst, 0) == bytes(of: burst, 1))
        queue.releaseTaken(burst)
        #expect(rig.usedIndex == 2)
        #expect(rig.usedElement(0).id == 4)
        #expect(rig.usedElement(1).id == 4)
        #expect(queue.error == nil)
    }
}
