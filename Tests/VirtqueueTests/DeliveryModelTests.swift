import RingSupport
import Testing
import VirtioSpec
import Virtqueue

/// Packets of any size into buffers of any shape, read back by a driver that knows only the rules.
@Suite struct DeliveryModelTests {
    private static let write = SplitDescriptor.writeFlag

    /// Puts packets into a burst of one segment or several each.
    private func fill(
        _ burst: inout ChainBurst,
        _ packets: [[UInt8]],
        _ rig: SplitRingRig,
        _ cut: Int
    ) {
        burst.clear()
        for (index, packet) in packets.enumerated() {
            let base = SplitRingRig.buffers + UInt64(index) * 4096
            rig.write(packet, at: base)
            let first = burst.segmentCount
            for start in stride(from: 0, to: packet.count, by: cut) {
                unsafe burst.segments[burst.segmentCount] = Segment(
                    pointer: rig.pointer(base + UInt64(start)),
                    length: UInt32(min(cut, packet.count - start))
                )
                burst.segmentCount += 1
            }
            unsafe burst.entries[index] = BurstEntry(
                firstSegment: UInt32(first),
                segmentCount: UInt16(burst.segmentCount - first),
                byteCount: UInt32(packet.count),
                head: 0
            )
            burst.count += 1
        }
    }

    @Test(arguments: [false, true], [1, 2, 3] as [UInt64])
    func `packets arrive whole whatever the buffers look like`(
        mergeable: Bool,
        seed: UInt64
    ) throws {
        var dice = Dice(seed)
        let source = try SplitRingRig()
        let rig = try SplitRingRig(size: 64, features: .indirect)
        var driver = try SplitDriverQueue(rig.configuration, memory: rig.table)
        var device = try SplitDeviceQueue(rig.configuration, memory: rig.table)
        var chains: [UInt16: (address: UInt64, length: Int)] = [:]
        var slots = Array(0..<64)
        var slotOf: [UInt16: Int] = [:]
        var burst = ChainBurst()
        var tally = DeliveryTally()
        var delivered = 0
        for _ in 0..<400 {
            while let slot = slots.last {
                // A chain of adjacent buffers, so that the driver can read it as one run.
                let length = mergeable ? 1 + dice.below(400) : 1600
                let pieces = 1 + dice.below(min(3, length))
                let base = SplitRingRig.buffers + UInt64(slot) * 4096
                var at = 0
                let buffers = (0..<pieces).map { index in
                    let part = index + 1 < pieces ? 1 + dice.below(length / pieces) : length - at
                    defer { at += part }
                    return DriverBuffer(
                        address: base + UInt64(at),
                        length: UInt32(part),
                        isWritable: true
                    )
                }
                guard let head = driver.post(buffers.span) else { break }
                slots.removeLast()
                chains[head] = (base, length)
                slotOf[head] = slot
            }
            driver.publish()
            var packets: [[UInt8]] = []
            for _ in 0..<(1 + dice.below(8)) {
                let count = 1 + dice.below(1500)
                packets.append((0..<count).map { _ in UInt8(truncatingIfNeeded: dice.next()) })
            }
            fill(&burst, packets, source, 1 + dice.below(700))
            let done = device.deliver(
                burst,
                from: 0,
                count: packets.count,
                mergeable: mergeable,
                tally: &tally
            )
            delivered += done
            device.publishDelivered()
            for packet in packets.prefix(done) {
                var bytes: [UInt8] = []
                var buffers = 1
                var taken = 0
                while taken < buffers {
                    let used = try present(driver.reap())
                    let chain = try #require(chains[used.head])
                    let part = rig.read(chain.address, Int(used.written))
                    if taken + 1 < buffers, taken > 0 { #expect(part.count == chain.length) }
                    bytes += part
                    if bytes.count >= 12 { buffers = Int(bytes[10]) | Int(bytes[11]) << 8 }
                    if bytes.count < 12 { buffers = taken + 2 }
                    slots.append(try #require(slotOf[used.head]))
                    taken += 1
                }
                #expect(Array(bytes.dropFirst(12)) == packet)
                #expect(bytes.prefix(10).allSatisfy { $0 == 0 })
            }
            #expect(driver.reap() == nil)
            #expect(device.error == nil)
        }
        #expect(delivered > 400)
        #expect(tally.packets == UInt64(delivered))
        #expect(tally.tooBig == 0)
    }

    @Test func `HI-A14: a receive chain without a writable buffer breaks the ring`() throws {
        let source = try SplitRingRig()
        var burst = ChainBurst()
        fill(&burst, [[1, 2, 3]], source, 99)
        var tally = DeliveryTally()
        for mergeable in [false, true] {
            let rig = try SplitRingRig()
            rig.write([9, 9, 9], at: SplitRingRig.buffers)
            rig.offer(0, SplitRingRig.buffers, 64)
            var queue = try SplitDeviceQueue(rig.configuration, memory: rig.table)
            let done = queue.deliver(burst, from: 0, count: 1, mergeable: mergeable, tally: &tally)
            #expect(done == 0)
            #expect(queue.error == .noWritable)
            #expect(rig.read(SplitRingRig.buffers, 3) == [9, 9, 9])
            queue.publishDelivered()
            #expect(rig.usedIndex == 0)
        }
    }

    @Test func `HI-A14: the readable part of a receive chain is not written`() throws {
        let source = try SplitRingRig()
        var burst = ChainBurst()
        fill(&burst, [[1, 2, 3]], source, 99)
        let rig = try SplitRingRig()
        rig.write([9, 9, 9, 9], at: SplitRingRig.buffers)
        rig.offerChain(
            0,
            [
                SplitDescriptor(address: SplitRingRig.buffers, length: 4),
                SplitDescriptor(address: SplitRingRig.buffers + 64, length: 64, flags: Self.write),
            ]
        )
        var queue = try SplitDeviceQueue(rig.configuration, memory: rig.table)
        var tally = DeliveryTally()
        #expect(queue.deliver(burst, from: 0, count: 1, mergeable: false, tally: &tally) == 1)
        queue.publishDelivered()
        #expect(rig.read(SplitRingRig.buffers, 4) == [9, 9, 9, 9])
        #expect(rig.read(SplitRingRig.buffers + 76, 3) == [1, 2, 3])
        #expect(rig.usedElement(0) == (id: 0, length: 15))
    }

    @Test(arguments: [0, SplitRingRig.base + 0x30_0000 - 10, UInt64.max - 5] as [UInt64])
    func `HI-A7: a receive buffer outside memory breaks the ring unwritten`(address: UInt64) throws
    {
        let source = try SplitRingRig()
        var burst = ChainBurst()
        fill(&burst, [[1, 2, 3]], source, 99)
        var tally = DeliveryTally()
        let rig = try SplitRingRig()
        rig.offer(0, address, 64, flags: Self.write)
        var queue = try SplitDeviceQueue(rig.configuration, memory: rig.table)
        #expect(queue.deliver(burst, from: 0, count: 1, mergeable: true, tally: &tally) == 0)
        #expect(queue.error == .unmapped || queue.error == .addressWrap)
        #expect(tally.packets == 0)
    }

    @Test func `HI-A9: a receive buffer over two regions is filled in pieces`() throws {
        let source = try SplitRingRig()
        var burst = ChainBurst()
        let packet = (0..<60).map { UInt8($0) }
        fill(&burst, [packet], source, 7)
        let edge = SplitRingRig.base + 0x1000
        let rig = try SplitRingRig(areas: [.init(SplitRingRig.base, 0x1000), .init(edge, 0x1000)])
        rig.offer(0, edge - 30, 100, flags: Self.write)
        var queue = try SplitDeviceQueue(rig.configuration, memory: rig.table)
        var tally = DeliveryTally()
        #expect(queue.deliver(burst, from: 0, count: 1, mergeable: false, tally: &tally) == 1)
        queue.publishDelivered()
        #expect(rig.read(edge - 18, 60) == packet)
        #expect(rig.usedElement(0).length == 72)
    }

    @Test func `a ring of empty buffers holds no packet and stays alive`() throws {
        let source = try SplitRingRig()
        var burst = ChainBurst()
        fill(&burst, [[1, 2, 3]], source, 99)
        for mergeable in [false, true] {
            let rig = try SplitRingRig(size: 4)
            for head in UInt16(0)..<4 {
                rig.offer(head, SplitRingRig.buffers, 0, flags: Self.write)
            }
            var queue = try SplitDeviceQueue(rig.configuration, memory: rig.table)
            var tally = DeliveryTally()
            #expect(
                queue.deliver(burst, from: 0, count: 1, mergeable: mergeable, tally: &tally) == 1
            )
            #expect(tally.tooBig == 1)
            #expect(tally.packets == 0)
            queue.publishDelivered()
            #expect(rig.usedIndex == 0)
            #expect(queue.error == nil)
        }
    }

    @Test func `HI-A18: what changes in a receive descriptor after delivery has no effect`() throws
    {
        let source = try SplitRingRig()
        var burst = ChainBurst()
        fill(&burst, [[1, 2, 3]], source, 99)
        let rig = try SplitRingRig()
        rig.offer(6, SplitRingRig.buffers, 64, flags: Self.write)
        var queue = try SplitDeviceQueue(rig.configuration, memory: rig.table)
        var tally = DeliveryTally()
        #expect(queue.deliver(burst, from: 0, count: 1, mergeable: false, tally: &tally) == 1)
        rig.setDescriptor(6, SplitDescriptor(address: 0, length: .max))
        rig.setSlot(0, 2)
        queue.publishDelivered()
        #expect(rig.usedElement(0) == (id: 6, length: 15))
    }
}
