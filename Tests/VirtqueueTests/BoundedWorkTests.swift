import RingSupport
import Testing
import VirtioSpec
import Virtqueue

/// What one turn may cost, whatever a driver puts into its ring (R3): nobody else's packets wait for
/// the walks that one driver provokes (HI-I9).
@Suite struct BoundedWorkTests {
    private static let write = SplitDescriptor.writeFlag
    private static let next = SplitDescriptor.nextFlag
    private static let buffers = SplitRingRig.buffers

    /// Packets of `length` bytes, all in the same place.
    private func packets(_ count: Int, _ length: UInt32, _ rig: SplitRingRig) -> ChainBurst {
        var burst = ChainBurst()
        unsafe burst.segments[0] = Segment(pointer: rig.pointer(Self.buffers), length: length)
        for index in 0..<count {
            unsafe burst.entries[index] = BurstEntry(
                firstSegment: 0,
                segmentCount: 1,
                byteCount: length,
                head: 0
            )
        }
        burst.count = count
        burst.segmentCount = 1
        return burst
    }

    /// A table of writable buffers, and a ring full of chains that all refer to it.
    private func fill(_ rig: SplitRingRig, table: UInt64, lengths: [UInt32]) {
        for (index, length) in lengths.enumerated() {
            rig.setEntry(
                table + 16 * UInt64(index),
                SplitDescriptor(
                    address: Self.buffers + 0x1000,
                    length: length,
                    flags: Self.write | (index + 1 < lengths.count ? Self.next : 0),
                    next: UInt16(truncatingIfNeeded: index + 1)
                )
            )
        }
        rig.setDescriptor(
            0,
            SplitDescriptor(
                address: table,
                length: UInt32(16 * lengths.count),
                flags: SplitDescriptor.indirectFlag
            )
        )
        for _ in 0..<rig.configuration.size { rig.offer(0) }
    }

    @Test(arguments: [false, true])
    func `HI-C14: receive chains with long tables share the budget of a turn`(
        mergeable: Bool
    ) throws {
        let source = try SplitRingRig()
        let rig = try SplitRingRig(size: 1024, features: .indirect)
        fill(
            rig,
            table: Self.buffers + 0x8000,
            lengths: [64] + [UInt32](repeating: 1, count: 1023)
        )
        var queue = try SplitDeviceQueue(rig.configuration, memory: rig.table)
        var tally = DeliveryTally()
        let burst = packets(32, 40, source)
        // A packet fits into the first buffer, but only after a walk of 1024.
        let done = queue.deliver(burst, from: 0, count: 32, mergeable: mergeable, tally: &tally)
        #expect((1...8).contains(done))
        #expect(tally.packets == UInt64(done))
        #expect(
            queue.deliver(burst, from: done, count: 32 - done, mergeable: mergeable, tally: &tally)
                == 0
        )
        // The next turn goes on where this one ended.
        queue.publishDelivered()
        #expect(rig.usedIndex == UInt16(done))
        let more = queue.deliver(burst, from: 0, count: 32, mergeable: mergeable, tally: &tally)
        #expect(more == done)
        #expect(queue.error == nil)
    }

    @Test(arguments: [0, 1] as [UInt32])
    func `HI-I9: a packet that finds too little room is not looked at without end`(
        room: UInt32
    ) throws {
        let source = try SplitRingRig()
        let rig = try SplitRingRig(size: 1024, features: .indirect)
        fill(
            rig,
            table: Self.buffers + 0x8000,
            lengths: [room] + [UInt32](repeating: 0, count: 1023)
        )
        var queue = try SplitDeviceQueue(rig.configuration, memory: rig.table)
        var tally = DeliveryTally()
        let burst = packets(32, 1400, source)
        let clock = ContinuousClock()
        let time = clock.measure {
            for _ in 0..<10 {
                _ = queue.deliver(burst, from: 0, count: 32, mergeable: true, tally: &tally)
                queue.publishDelivered()
            }
        }
        // Without a bound these are 300 million descriptors.
        #expect(time < .seconds(3))
        #expect(tally.packets == 0)
        #expect(rig.usedIndex == 0)
    }

    @Test func `HI-A33: a chain above the largest packet is dropped, not translated to its end`()
        throws
    {
        // 64 adjacent regions of a page, and buffers that span them all.
        let areas =
            [SplitRingRig.Area(SplitRingRig.base, 0x30_0000)]
            + (0..<64).map { SplitRingRig.Area(0x1000_0000 + UInt64($0) * 4096, 4096) }
        let rig = try SplitRingRig(size: 256, areas: areas)
        let span = SplitDescriptor(address: 0x1000_0000, length: 64 * 4096)
        rig.offerChain(0, [SplitDescriptor](repeating: span, count: 256))
        var queue = try SplitDeviceQueue(rig.configuration, memory: rig.table)
        var burst = ChainBurst()
        #expect(queue.takeReadable(into: &burst, limit: 32) == 1)
        #expect(queue.error == nil)
        #expect(unsafe burst.entries[0].byteCount == 256 * 64 * 4096)
        // One buffer's pieces: the packet is too big already.
        #expect(burst.segmentCount == 64)
    }
}
