import GuestMemory
import RingSupport
import Testing
import VirtioSpec
import Virtqueue

/// Rows of hostile-inputs section C.
@Suite struct IndirectTableTests {
    private static let table = SplitRingRig.buffers
    private static let bytes = SplitRingRig.buffers + 0x8000
    private static let next = SplitDescriptor.nextFlag
    private static let indirect = SplitDescriptor.indirectFlag

    private func rig(size: UInt16 = 8, features: QueueFeatures = .indirect) throws -> SplitRingRig {
        let rig = try SplitRingRig(size: size, features: features)
        rig.write((0..<64).map { UInt8($0) }, at: Self.bytes)
        return rig
    }

    /// Lays down a table of one-byte buffers, linked in order.
    private func lay(_ rig: SplitRingRig, _ count: Int, at table: UInt64 = table) {
        for index in 0..<count {
            rig.setEntry(
                table + UInt64(16 * index),
                SplitDescriptor(
                    address: Self.bytes + UInt64(index),
                    length: 1,
                    flags: index + 1 < count ? Self.next : 0,
                    next: UInt16(truncatingIfNeeded: index + 1)
                )
            )
        }
    }

    private func offer(
        _ rig: SplitRingRig,
        length: UInt32,
        flags: UInt16 = indirect,
        at table: UInt64 = table
    ) {
        rig.offer(0, table, length, flags: flags)
    }

    private func take(_ rig: SplitRingRig) throws -> (chain: [UInt8]?, error: QueueError?) {
        var queue = try SplitDeviceQueue(rig.configuration, memory: rig.table)
        var burst = ChainBurst()
        let taken = queue.takeReadable(into: &burst, limit: 32)
        return (taken == 0 ? nil : RingSupport.bytes(of: burst, 0), queue.error)
    }

    @Test(arguments: [1, 2, 7, 8])
    func `a table of any size up to the ring's is followed`(count: Int) throws {
        let rig = try rig()
        lay(rig, count)
        offer(rig, length: UInt32(16 * count))
        let (chain, error) = try take(rig)
        #expect(error == nil)
        #expect(chain == (0..<count).map { UInt8($0) })
    }

    @Test func `HI-C1: a table without the feature breaks the ring`() throws {
        let rig = try rig(features: [])
        lay(rig, 1)
        offer(rig, length: 16)
        #expect(try take(rig).error == .indirectFeature)
    }

    @Test(arguments: [0, 1, 8, 15, 17, 24, 0xFFFF_FFFF] as [UInt32])
    func `HI-C2: a table length that is no multiple of 16 breaks the ring`(length: UInt32) throws {
        let rig = try rig()
        lay(rig, 1)
        offer(rig, length: length)
        #expect(try take(rig).error == .indirectSize)
    }

    @Test(arguments: [9 * 16, 65536 * 16, 0xFFFF_FFF0] as [UInt32])
    func `HI-C3: a table longer than the ring breaks it`(length: UInt32) throws {
        let rig = try rig()
        lay(rig, 9)
        offer(rig, length: length)
        #expect(try take(rig).error == .indirectSize)
    }

    @Test func `HI-C4: a table inside a table breaks the ring`() throws {
        let rig = try rig()
        lay(rig, 2)
        rig.setEntry(
            Self.table + 16,
            SplitDescriptor(address: Self.table, length: 16, flags: Self.indirect)
        )
        offer(rig, length: 32)
        #expect(try take(rig).error == .indirectNested)
    }

    @Test func `HI-C5: a table with a successor breaks the ring`() throws {
        let rig = try rig()
        lay(rig, 1)
        rig.setDescriptor(1, SplitDescriptor(address: Self.bytes, length: 1))
        rig.setDescriptor(
            0,
            SplitDescriptor(
                address: Self.table,
                length: 16,
                flags: Self.indirect | Self.next,
                next: 1
            )
        )
        rig.offer(0)
        #expect(try take(rig).error == .indirectNext)
    }

    @Test func `HI-C6: direct descriptors may come before a table`() throws {
        let rig = try rig()
        lay(rig, 3)
        for index in 0..<2 {
            rig.setDescriptor(
                index,
                SplitDescriptor(
                    address: Self.bytes + 40 + UInt64(index),
                    length: 1,
                    flags: Self.next,
                    next: UInt16(index + 1)
                )
            )
        }
        rig.setDescriptor(
            2,
            SplitDescriptor(address: Self.table, length: 48, flags: Self.indirect)
        )
        rig.offer(0)
        let (chain, error) = try take(rig)
        #expect(error == nil)
        #expect(chain == [40, 41, 0, 1, 2])
    }

    @Test func `HI-C7: a table marked writable is read all the same`() throws {
        let rig = try rig()
        lay(rig, 3)
        offer(rig, length: 48, flags: Self.indirect | SplitDescriptor.writeFlag)
        let (chain, error) = try take(rig)
        #expect(error == nil)
        #expect(chain == [0, 1, 2])
    }

    @Test(arguments: [1, 3, 8, 15] as [UInt64])
    func `HI-C8: a table at any alignment is followed`(offset: UInt64) throws {
        let rig = try rig()
        lay(rig, 4, at: Self.table + offset)
        offer(rig, length: 64, at: Self.table + offset)
        let (chain, error) = try take(rig)
        #expect(error == nil)
        #expect(chain == [0, 1, 2, 3])
    }

    @Test(arguments: [8, 16, 24] as [UInt64])
    func `HI-C9: a table over two regions is copied in pieces`(before: UInt64) throws {
        let edge = SplitRingRig.base + 0x1000
        let rig = try SplitRingRig(
            features: .indirect,
            areas: [.init(SplitRingRig.base, 0x1000), .init(edge, 0x1000)]
        )
        rig.write([7, 8, 9], at: edge + 0x800)
        for index in 0..<3 as Range<UInt64> {
            let entry = SplitDescriptor(
                address: edge + 0x800 + index,
                length: 1,
                flags: index < 2 ? Self.next : 0,
                next: UInt16(index + 1)
            )
            let at = edge - before + 16 * index
            for (position, word) in [entry.address, entry.high].enumerated() {
                let bytes = (0..<8).map { UInt8(truncatingIfNeeded: word >> (8 * UInt64($0))) }
                rig.write(bytes, at: at + 8 * UInt64(position))
            }
        }
        offer(rig, length: 48, at: edge - before)
        let (chain, error) = try take(rig)
        #expect(error == nil)
        #expect(chain == [7, 8, 9])
    }

    @Test func `HI-C9: a table that runs out of memory breaks the ring by its whole length`() throws
    {
        let rig = try rig()
        let end = SplitRingRig.base + 0x30_0000
        lay(rig, 1, at: end - 16)
        offer(rig, length: 32, at: end - 16)
        #expect(try take(rig).error == .unmapped)
        let wrap = try self.rig()
        offer(wrap, length: 32, at: UInt64.max - 15)
        #expect(try take(wrap).error == .addressWrap)
    }

    @Test(arguments: [4, 5, 8, 0xFFFF] as [UInt16])
    func `HI-C10: a next beyond the table breaks the ring`(next: UInt16) throws {
        let rig = try rig()
        lay(rig, 4)
        rig.setEntry(
            Self.table + 16,
            SplitDescriptor(address: Self.bytes, length: 1, flags: Self.next, next: next)
        )
        offer(rig, length: 64)
        #expect(try take(rig).error == .nextRange)
    }

    @Test(arguments: [0, 1, 3] as [UInt16])
    func `HI-C10: a loop in a table breaks the ring`(back: UInt16) throws {
        let rig = try rig()
        lay(rig, 4)
        rig.setEntry(
            Self.table + 48,
            SplitDescriptor(address: Self.bytes, length: 1, flags: Self.next, next: back)
        )
        offer(rig, length: 64)
        #expect(try take(rig).error == .loop)
    }

    @Test func `HI-C11: a table that changes after it was taken has no effect`() throws {
        let rig = try rig()
        lay(rig, 3)
        offer(rig, length: 48)
        var queue = try SplitDeviceQueue(rig.configuration, memory: rig.table)
        var burst = ChainBurst()
        #expect(queue.takeReadable(into: &burst, limit: 1) == 1)
        for index in 0..<3 as Range<UInt64> {
            rig.setEntry(Self.table + 16 * index, SplitDescriptor(address: 0, length: .max))
        }
        #expect(RingSupport.bytes(of: burst, 0) == [0, 1, 2])
        queue.releaseTaken(burst)
        #expect(queue.error == nil)
    }

    @Test func `HI-C12: a table inside its own buffer is read from the private copy`() throws {
        let rig = try rig(size: 8)
        let write = SplitDescriptor.writeFlag
        let whole = SplitDescriptor(address: Self.table, length: 64, flags: write)
        rig.setEntry(Self.table, whole)
        offer(rig, length: 16)
        offer(rig, length: 16)
        let source = try SplitRingRig()
        source.write([UInt8](repeating: 0xFF, count: 40), at: Self.bytes)
        source.offer(0, Self.bytes, 40)
        var other = try SplitDeviceQueue(source.configuration, memory: source.table)
        var burst = ChainBurst()
        #expect(other.takeReadable(into: &burst, limit: 1) == 1)
        var queue = try SplitDeviceQueue(rig.configuration, memory: rig.table)
        var tally = DeliveryTally()
        let done = queue.deliver(burst, from: 0, count: 1, mergeable: false, tally: &tally)
        #expect(done == 1)
        #expect(rig.read(Self.table + 12, 40) == [UInt8](repeating: 0xFF, count: 40))
        // What now lies there is no table any more: the next packet breaks the ring, no more.
        #expect(queue.deliver(burst, from: 0, count: 1, mergeable: false, tally: &tally) == 0)
        #expect(queue.error != nil)
    }

    @Test func `HI-C12: a table over the ring's own descriptors does no harm`() throws {
        let rig = try rig()
        rig.setDescriptor(1, SplitDescriptor(address: Self.bytes, length: 2))
        offer(rig, length: 16, at: rig.configuration.descriptorArea + 16)
        let (chain, error) = try take(rig)
        #expect(error == nil)
        #expect(chain == [0, 1])
    }

    @Test func `HI-C14: a poll is bounded by descriptors, not by chains`() throws {
        let rig = try rig(size: 128)
        lay(rig, 128)
        for head in UInt16(0)..<128 {
            rig.offer(head, Self.table, 16 * 128, flags: Self.indirect)
        }
        var queue = try SplitDeviceQueue(rig.configuration, memory: rig.table)
        var burst = ChainBurst()
        var total = 0
        var polls = 0
        while total < 128 {
            burst.clear()
            let taken = queue.takeReadable(into: &burst, limit: 32)
            #expect(taken >= 1)
            #expect(taken * 128 <= 2 * 128)
            queue.releaseTaken(burst)
            total += taken
            polls += 1
        }
        #expect(polls >= 64)
        #expect(queue.error == nil)
    }
}
