import RingSupport
import Testing
import VirtioSpec
import Virtqueue

/// Walks over every small descriptor table there is, judged by a second walker that was written
/// from the rules alone, over plain values.
@Suite struct ChainWalkTests {
    /// What a chain holds, or why there is none.
    private enum Outcome: Equatable {
        case chain(readable: [UInt64], writable: [UInt64])
        case broken(QueueError)
    }

    private static let good = SplitRingRig.base + 0x1000
    private static let bad: UInt64 = 0x10
    private static let next = SplitDescriptor.nextFlag
    private static let write = SplitDescriptor.writeFlag

    /// The rules of virtio 1.3 §2.7.5 for a ring without indirect tables.
    private func judge(_ table: [SplitDescriptor], _ head: Int) -> Outcome {
        guard head < table.count else { return .broken(.headRange) }
        var readable: [UInt64] = []
        var writable: [UInt64] = []
        var hasWritable = false
        var index = head
        for _ in 0..<table.count {
            guard index < table.count else { return .broken(.nextRange) }
            let entry = table[index]
            if entry.flags & 4 != 0 { return .broken(.indirectFeature) }
            if entry.flags & 2 != 0 {
                hasWritable = true
            } else if hasWritable {
                return .broken(.order)
            }
            guard entry.address != Self.bad else { return .broken(.unmapped) }
            if entry.length > 0 {
                if entry.flags & 2 != 0 {
                    writable.append(entry.address)
                } else {
                    readable.append(entry.address)
                }
            }
            if entry.flags & 1 == 0 { return .chain(readable: readable, writable: writable) }
            index = Int(entry.next)
        }
        // A chain that leaves the table at its very end is out of range before it is too long, and
        // a table in place of one more buffer is refused as such.
        guard index < table.count else { return .broken(.nextRange) }
        return .broken(table[index].flags & 4 != 0 ? .indirectFeature : .loop)
    }

    private func walk(_ rig: SplitRingRig, _ table: [SplitDescriptor], _ head: Int) throws
        -> Outcome
    {
        for (index, entry) in table.enumerated() { rig.setDescriptor(index, entry) }
        rig.setSlot(0, UInt16(head))
        var queue = try SplitDeviceQueue(rig.configuration, memory: rig.table)
        if let chain = queue.takeChain() {
            #expect(queue.error == nil)
            return .chain(
                readable: chain.readable.map(\.address),
                writable: chain.writable.map(\.address)
            )
        }
        return .broken(try present(queue.error))
    }

    private func compare(_ size: Int, _ choices: [SplitDescriptor], heads: Range<Int>) throws {
        let rig = try SplitRingRig(size: UInt16(size), areas: [.init(SplitRingRig.base, 0x2000)])
        rig.storeIndex(1)
        var table = [SplitDescriptor](repeating: choices[0], count: size)
        var total = 1
        for _ in 0..<size { total *= choices.count }
        for number in 0..<total {
            var rest = number
            for index in 0..<size {
                table[index] = choices[rest % choices.count]
                table[index].address += table[index].address == Self.bad ? 0 : UInt64(index)
                rest /= choices.count
            }
            for head in heads {
                let expected = judge(table, head)
                let found = try walk(rig, table, head)
                if found != expected {
                    Issue.record("\(table), head \(head): \(found), not \(expected)")
                    return
                }
            }
        }
    }

    private func choices(
        flags: [UInt16],
        next: Range<UInt16>,
        lengths: [UInt32],
        addresses: [UInt64]
    ) -> [SplitDescriptor] {
        flags.flatMap { flag in
            (flag & Self.next != 0 ? next : 0..<1).flatMap { next in
                lengths.flatMap { length in
                    addresses.map {
                        SplitDescriptor(address: $0, length: length, flags: flag, next: next)
                    }
                }
            }
        }
    }

    @Test(arguments: [1, 2])
    func `every table of one or two descriptors is walked by the rules`(size: Int) throws {
        let all = choices(
            flags: Array(0...7),
            next: 0..<UInt16(size + 1),
            lengths: [0, 1],
            addresses: [Self.good, Self.bad]
        )
        try compare(size, all, heads: 0..<(size + 1))
    }

    @Test func `every table of four descriptors is walked by the rules`() throws {
        let all = choices(
            flags: [0, Self.next, Self.write, Self.next | Self.write],
            next: 0..<5,
            lengths: [1],
            addresses: [Self.good]
        )
        try compare(4, all, heads: 0..<1)
    }

    @Test(arguments: [[], .indirect] as [QueueFeatures])
    func `every shape of chain up to the ring's size arrives as posted`(
        features: QueueFeatures
    ) throws {
        let size = 8
        let rig = try SplitRingRig(size: UInt16(size), features: features)
        var driver = try SplitDriverQueue(rig.configuration, memory: rig.table)
        var device = try SplitDeviceQueue(rig.configuration, memory: rig.table)
        let place = SplitRingRig.buffers + 0x1000
        for readable in 0...size {
            for writable in 0...(size - readable) where readable + writable > 0 {
                let buffers = (0..<(readable + writable)).map { index in
                    DriverBuffer(
                        address: SplitRingRig.buffers + UInt64(index * 16),
                        length: UInt32(index + 1),
                        isWritable: index >= readable
                    )
                }
                let posted =
                    features.contains(.indirect)
                    ? unsafe driver.postIndirect(
                        buffers.span,
                        table: rig.pointer(place),
                        deviceAddress: place
                    ) : driver.post(buffers.span)
                let head = try #require(posted)
                driver.publish()
                let chain = try present(device.takeChain())
                #expect(chain.head == head)
                #expect(chain.readable.map(\.length) == (0..<readable).map { UInt32($0 + 1) })
                #expect(
                    chain.writable.map(\.length)
                        == (readable..<(readable + writable)).map { UInt32($0 + 1) }
                )
                device.release(head: chain.head, written: UInt32(chain.writableCount))
                #expect(driver.reap()?.written == UInt32(chain.writableCount))
                #expect(driver.freeDescriptors == size)
            }
        }
    }
}
