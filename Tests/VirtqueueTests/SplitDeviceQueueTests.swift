import RingSupport
import Testing
import VirtioSpec
import Virtqueue

@Suite struct SplitDeviceQueueTests {
    @Test func `a chain is taken with its bytes and given back`() throws {
        let rig = try SplitRingRig()
        rig.write([1, 2, 3], at: SplitRingRig.buffers)
        rig.write([4, 5], at: SplitRingRig.buffers + 100)
        rig.offerChain(
            2,
            [
                SplitDescriptor(address: SplitRingRig.buffers, length: 3),
                SplitDescriptor(address: SplitRingRig.buffers + 100, length: 2),
            ]
        )
        var queue = try SplitDeviceQueue(rig.configuration, memory: rig.table)
        var burst = ChainBurst()
        #expect(queue.takeReadable(into: &burst, limit: 32) == 1)
        #expect(bytes(of: burst, 0) == [1, 2, 3, 4, 5])
        #expect(rig.usedIndex == 0)
        queue.releaseTaken(burst)
        #expect(rig.usedIndex == 1)
        #expect(rig.usedElement(0) == (id: 2, length: 0))
        #expect(queue.error == nil)
    }

    @Test func `VPN-M-11: a burst is published at once and in order`() throws {
        let rig = try SplitRingRig(size: 8)
        for head in UInt16(0)..<8 { rig.offer(7 - head, SplitRingRig.buffers, 64) }
        var queue = try SplitDeviceQueue(rig.configuration, memory: rig.table)
        var burst = ChainBurst()
        #expect(queue.takeReadable(into: &burst, limit: 5) == 5)
        queue.releaseTaken(burst)
        #expect(rig.usedIndex == 5)
        for index in UInt16(0)..<5 { #expect(rig.usedElement(index).id == UInt32(7 - index)) }
        burst.clear()
        #expect(queue.takeReadable(into: &burst, limit: 32) == 3)
        queue.releaseTaken(burst)
        #expect(rig.usedIndex == 8)
        #expect(queue.nextAvailable == 8)
    }

    @Test func `VU-R-06: a queue goes on where its base says`() throws {
        let rig = try SplitRingRig(size: 4, start: 65_534)
        for _ in 0..<4 { rig.offer(1, SplitRingRig.buffers, 9) }
        var queue = try SplitDeviceQueue(rig.configuration, memory: rig.table)
        var burst = ChainBurst()
        #expect(queue.takeReadable(into: &burst, limit: 32) == 4)
        queue.releaseTaken(burst)
        #expect(rig.usedIndex == 2)
        #expect(queue.nextAvailable == 2)
        #expect(queue.inFlight == 0)
    }
}
