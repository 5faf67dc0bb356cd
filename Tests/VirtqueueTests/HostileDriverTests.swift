import GuestMemory
import RingSupport
import Testing
import VirtioSpec
import Virtqueue

/// Rows of hostile-inputs section A in which the driver of a ring is the hostile one; rows about
/// headers of packets are in PeerPortTests, about set-up in QueueSetupTests.
@Suite struct HostileDriverTests {
    private static let buffers = SplitRingRig.buffers
    private static let write = SplitDescriptor.writeFlag

    /// Takes what a rig offers; the chains that came before a violation, and the queue's fault.
    /// A broken queue must stay broken, and must have returned nothing.
    private func take(_ rig: SplitRingRig, limit: Int = 32) throws -> (
        chains: [[UInt8]], QueueFault?
    ) {
        var queue = try SplitDeviceQueue(rig.configuration, memory: rig.table)
        var burst = ChainBurst()
        let taken = queue.takeReadable(into: &burst, limit: limit)
        #expect(taken == burst.count)
        let chains = (0..<burst.count).map { bytes(of: burst, $0) }
        let before = rig.usedIndex
        queue.releaseTaken(burst)
        let fault = queue.fault
        if fault != nil {
            #expect(rig.usedIndex == before)
            rig.offer(0, Self.buffers, 8)
            burst.clear()
            #expect(queue.takeReadable(into: &burst, limit: limit) == 0)
            #expect(queue.shouldNotifyDriver() == false)
            #expect(queue.requestNotifications() == false)
            #expect(queue.fault == fault)
        }
        return (chains, fault)
    }

    private func expectBreak(_ error: QueueError, _ rig: SplitRingRig) throws {
        let (chains, fault) = try take(rig)
        #expect(fault?.error == error)
        #expect(chains.isEmpty)
    }

    @Test(arguments: [9, 10, 256, 0x7FFF, 0x8000, 0xFFFF] as [UInt16])
    func `HI-A1: an available index ahead by more than the ring breaks it`(ahead: UInt16) throws {
        let rig = try SplitRingRig(size: 8)
        rig.storeIndex(ahead)
        let (_, fault) = try take(rig)
        #expect(fault?.error == .availableJump)
        #expect(fault?.value == UInt64(ahead))
    }

    @Test func `HI-A1: an available index ahead by the whole ring is good`() throws {
        let rig = try SplitRingRig(size: 8)
        for head in UInt16(0)..<8 { rig.offer(head, Self.buffers, 8) }
        let (chains, fault) = try take(rig)
        #expect(fault == nil)
        #expect(chains.count == 8)
    }

    @Test func `HI-A2: an available index that goes back breaks the ring`() throws {
        let rig = try SplitRingRig(size: 8)
        for head in UInt16(0)..<4 { rig.offer(head, Self.buffers, 8) }
        var queue = try SplitDeviceQueue(rig.configuration, memory: rig.table)
        var burst = ChainBurst()
        #expect(queue.takeReadable(into: &burst, limit: 2) == 2)
        rig.storeIndex(1)
        #expect(queue.takeReadable(into: &burst, limit: 30) == 0)
        #expect(queue.error == .availableJump)
    }

    @Test func `HI-A2: chains that were announced and not taken cannot be called back`() throws {
        let rig = try SplitRingRig(size: 8)
        for head in UInt16(0)..<4 { rig.offer(head, Self.buffers, 8) }
        var queue = try SplitDeviceQueue(rig.configuration, memory: rig.table)
        var burst = ChainBurst()
        #expect(queue.takeReadable(into: &burst, limit: 2) == 2)
        rig.storeIndex(3)
        #expect(queue.takeReadable(into: &burst, limit: 30) == 0)
        #expect(queue.error == .availableJump)
    }

    @Test(arguments: [8, 9, 0x7FFF, 0xFFFF] as [UInt16])
    func `HI-A3: a head outside the table breaks the ring`(head: UInt16) throws {
        let rig = try SplitRingRig(size: 8)
        rig.offer(head)
        try expectBreak(.headRange, rig)
    }

    @Test(arguments: [8, 9, 0x7FFF, 0xFFFF] as [UInt16])
    func `HI-A4: a next outside the table breaks the ring`(next: UInt16) throws {
        let rig = try SplitRingRig(size: 8)
        rig.setDescriptor(
            0,
            SplitDescriptor(
                address: Self.buffers,
                length: 8,
                flags: SplitDescriptor.nextFlag,
                next: next
            )
        )
        rig.offer(0)
        try expectBreak(.nextRange, rig)
    }

    @Test(arguments: [1, 2, 3, 8])
    func `HI-A5: a chain that returns to itself breaks the ring`(length: Int) throws {
        let rig = try SplitRingRig(size: 8)
        for index in 0..<length {
            rig.setDescriptor(
                index,
                SplitDescriptor(
                    address: Self.buffers,
                    length: 8,
                    flags: SplitDescriptor.nextFlag,
                    next: UInt16((index + 1) % length)
                )
            )
        }
        rig.offer(0)
        try expectBreak(.loop, rig)
    }

    @Test func `HI-A5: a chain of all descriptors is no loop`() throws {
        let rig = try SplitRingRig(size: 8)
        rig.write((1...8).map { UInt8($0) }, at: Self.buffers)
        rig.offerChain(
            0,
            (0..<8).map { SplitDescriptor(address: Self.buffers + UInt64($0), length: 1) }
        )
        let (chains, fault) = try take(rig)
        #expect(fault == nil)
        #expect(chains == [[1, 2, 3, 4, 5, 6, 7, 8]])
    }

    @Test func `HI-A6: a chain of 2^32 bytes breaks the ring, one byte less does not`() throws {
        let gigabyte = 1 << 30
        let rig = try SplitRingRig(areas: [
            .init(SplitRingRig.base, 0x1000), .init(1 << 40, gigabyte),
        ])
        for last in [UInt32(gigabyte), UInt32(gigabyte) - 1] {
            let parts = [UInt32](repeating: UInt32(gigabyte), count: 3) + [last]
            rig.offerChain(0, parts.map { SplitDescriptor(address: 1 << 40, length: $0) })
            var queue = try SplitDeviceQueue(rig.configuration, memory: rig.table)
            #expect((queue.takeChain() == nil) == (last == UInt32(gigabyte)))
            #expect(queue.error == (last == UInt32(gigabyte) ? .chainBytes : nil))
            rig.available = 0
        }
    }

    @Test(
        arguments: [0, 0x10, SplitRingRig.base - 1, SplitRingRig.base + 0x30_0000, 1 << 63]
            as [UInt64]
    )
    func `HI-A7: a descriptor outside memory breaks the ring`(address: UInt64) throws {
        for flags in [0, Self.write] {
            let rig = try SplitRingRig()
            rig.offer(0, address, 8, flags: flags)
            let (_, fault) = try take(rig)
            #expect(fault?.error == .unmapped)
            #expect(fault?.address == address)
            #expect(fault?.access == (flags == 0 ? .read : .write))
        }
    }

    @Test func `HI-A7: chains before a bad one are taken, those behind it are not`() throws {
        let rig = try SplitRingRig()
        rig.write([1, 2], at: Self.buffers)
        rig.offer(0, Self.buffers, 2)
        rig.offer(1, 0x10, 2)
        rig.offer(2, Self.buffers, 2)
        let (chains, fault) = try take(rig)
        #expect(chains == [[1, 2]])
        #expect(fault?.error == .unmapped)
        #expect(fault?.head == 1)
    }

    @Test func `VPN-M-09: memory without the right breaks the ring`() throws {
        let rig = try SplitRingRig(areas: [
            .init(SplitRingRig.base, 0x1000), .init(0x1000, 0x1000, .read),
        ])
        rig.offer(0, 0x1000, 8, flags: Self.write)
        try expectBreak(.unmapped, rig)
        let readable = try SplitRingRig(
            areas: [.init(SplitRingRig.base, 0x1000), .init(0x1000, 0x1000, .read)]
        )
        readable.offer(0, 0x1000, 8)
        #expect(try take(readable).1 == nil)
    }

    @Test(arguments: [UInt64.max, UInt64.max - 6, UInt64(bitPattern: -4096)])
    func `HI-A8: address plus length above 64 bits breaks the ring`(address: UInt64) throws {
        let rig = try SplitRingRig()
        rig.offer(0, address, 8192)
        try expectBreak(.addressWrap, rig)
    }

    @Test func `HI-A9: a buffer over two adjacent regions is taken in pieces`() throws {
        let rig = try SplitRingRig(areas: [
            .init(SplitRingRig.base, 0x1000), .init(SplitRingRig.base + 0x1000, 64),
        ])
        rig.write([1, 2, 3, 4], at: SplitRingRig.base + 0xFFE)
        rig.offer(0, SplitRingRig.base + 0xFFE, 4)
        var queue = try SplitDeviceQueue(rig.configuration, memory: rig.table)
        var burst = ChainBurst()
        #expect(queue.takeReadable(into: &burst, limit: 1) == 1)
        #expect(unsafe burst.entries[0].segmentCount == 2)
        #expect(bytes(of: burst, 0) == [1, 2, 3, 4])
    }

    @Test func `HI-A9: a buffer that runs into a hole breaks the ring`() throws {
        let rig = try SplitRingRig(areas: [
            .init(SplitRingRig.base, 0x1000), .init(SplitRingRig.base + 0x2000, 64),
        ])
        rig.offer(0, SplitRingRig.base + 0xFFE, 4)
        let (_, fault) = try take(rig)
        #expect(fault?.error == .unmapped)
        #expect(fault?.address == SplitRingRig.base + 0x1000)
    }

    @Test func `HI-A10: a buffer may end with the last byte of a region and no later`() throws {
        for extra in [0, 1] as [UInt32] {
            let rig = try SplitRingRig()
            let end = SplitRingRig.base + 0x30_0000
            rig.offer(0, end - 16, 16 + extra)
            let (chains, fault) = try take(rig)
            #expect(chains.count == Int(1 - extra))
            #expect(fault?.error == (extra == 0 ? nil : .unmapped))
        }
    }

    @Test func `HI-A11: segments of length 0 are passed over and counted`() throws {
        let rig = try SplitRingRig()
        rig.write([1, 2, 3], at: Self.buffers)
        rig.offerChain(
            0,
            [
                SplitDescriptor(address: Self.buffers, length: 0),
                SplitDescriptor(address: Self.buffers, length: 2),
                SplitDescriptor(address: Self.buffers, length: 0),
                SplitDescriptor(address: Self.buffers + 2, length: 1),
            ]
        )
        rig.offer(5, Self.buffers, 0)
        var queue = try SplitDeviceQueue(rig.configuration, memory: rig.table)
        var burst = ChainBurst()
        #expect(queue.takeReadable(into: &burst, limit: 32) == 2)
        #expect(unsafe burst.entries[0].segmentCount == 2)
        #expect(bytes(of: burst, 0) == [1, 2, 3])
        #expect(unsafe burst.entries[1].byteCount == 0)
        #expect(queue.skippedSegments == 3)
        #expect(queue.error == nil)
    }

    @Test func `HI-A12: a length of 0 does not excuse a bad address`() throws {
        let rig = try SplitRingRig()
        rig.offer(0, 0x10, 0)
        try expectBreak(.unmapped, rig)
    }

    @Test func `HI-A13: a readable descriptor behind a writable one breaks the ring`() throws {
        let rig = try SplitRingRig()
        rig.offerChain(
            0,
            [
                SplitDescriptor(address: Self.buffers, length: 4),
                SplitDescriptor(address: Self.buffers, length: 4, flags: Self.write),
                SplitDescriptor(address: Self.buffers, length: 4),
            ]
        )
        try expectBreak(.order, rig)
    }

    @Test func `HI-A14: writable descriptors of a transmit chain are left alone`() throws {
        let rig = try SplitRingRig()
        rig.write([1, 2, 3, 4, 5, 6], at: Self.buffers)
        rig.offerChain(
            0,
            [
                SplitDescriptor(address: Self.buffers, length: 4),
                SplitDescriptor(address: Self.buffers + 4, length: 2, flags: Self.write),
            ]
        )
        let (chains, fault) = try take(rig)
        #expect(fault == nil)
        #expect(chains == [[1, 2, 3, 4]])
        #expect(rig.read(Self.buffers, 6) == [1, 2, 3, 4, 5, 6])
        #expect(rig.usedElement(0) == (id: 0, length: 0))
    }

    @Test func `HI-A18: what changes in a descriptor after it was taken has no effect`() throws {
        let rig = try SplitRingRig()
        rig.write([1, 2, 3], at: Self.buffers)
        rig.offer(0, Self.buffers, 3)
        var queue = try SplitDeviceQueue(rig.configuration, memory: rig.table)
        var burst = ChainBurst()
        #expect(queue.takeReadable(into: &burst, limit: 1) == 1)
        rig.setDescriptor(0, SplitDescriptor(address: 0x10, length: .max, flags: 7, next: 99))
        rig.setSlot(0, 7)
        #expect(bytes(of: burst, 0) == [1, 2, 3])
        queue.releaseTaken(burst)
        #expect(rig.usedElement(0) == (id: 0, length: 0))
        #expect(queue.error == nil)
    }

    @Test func `VPN-M-10: every chain of a burst is checked by itself`() throws {
        let rig = try SplitRingRig()
        rig.offer(0, Self.buffers, 3)
        rig.offer(1, Self.buffers, 3)
        rig.offer(8)
        let (chains, fault) = try take(rig)
        #expect(chains.count == 2)
        #expect(fault?.error == .headRange)
    }

    @Test func `HI-A26: buffers over the ring itself do no harm`() throws {
        let rig = try SplitRingRig(size: 8)
        let areas = rig.configuration
        rig.offer(0, areas.descriptorArea, 128)
        rig.offer(1, areas.driverArea, 22)
        rig.offer(2, areas.deviceArea, 70)
        let (chains, fault) = try take(rig)
        #expect(chains.map(\.count) == [128, 22, 70])
        #expect(fault == nil)
    }

    @Test func `HI-A35: memory stays mapped for as long as a queue may copy`() throws {
        var rig: SplitRingRig? = try SplitRingRig()
        rig?.write([7, 8, 9], at: Self.buffers)
        rig?.offer(0, Self.buffers, 3)
        weak let table = rig?.table
        let configuration = try #require(rig?.configuration)
        try {
            var queue = try SplitDeviceQueue(configuration, memory: #require(rig?.table))
            var burst = ChainBurst()
            #expect(queue.takeReadable(into: &burst, limit: 1) == 1)
            rig = nil
            #expect(bytes(of: burst, 0) == [7, 8, 9])
            #expect(table != nil)
            queue.releaseTaken(burst)
        }()
        #expect(table == nil)
    }
}
