import GuestMemory
import RingSupport
import Testing
import VirtioSpec
import Virtqueue

/// Rows of hostile-inputs section A in which the device of a ring is the hostile one, and what a
/// good device sees.
@Suite struct SplitDriverQueueTests {
    private static let buffers = SplitRingRig.buffers

    private func buffer(_ length: UInt32, writable: Bool = true) -> DriverBuffer {
        DriverBuffer(address: Self.buffers, length: length, isWritable: writable)
    }

    private func queue(_ rig: SplitRingRig, isStrict: Bool = false) throws -> SplitDriverQueue {
        try SplitDriverQueue(rig.configuration, memory: rig.table, isStrict: isStrict)
    }

    @Test func `a chain is written as posted and shown with publish`() throws {
        let rig = try SplitRingRig()
        var queue = try queue(rig)
        let head = try present(
            queue.post([buffer(10, writable: false), buffer(20), buffer(30)].span)
        )
        #expect(rig.availableIndex == 0)
        queue.publish()
        #expect(rig.availableIndex == 1)
        #expect(rig.slot(0) == head)
        let first = rig.descriptor(head)
        let second = rig.descriptor(first.next)
        let third = rig.descriptor(second.next)
        #expect([first.length, second.length, third.length] == [10, 20, 30])
        #expect([first.flags, second.flags, third.flags] == [1, 3, 2])
        #expect(queue.freeDescriptors == 5)
        rig.use(UInt32(head), 44)
        #expect(queue.reap() == UsedChain(head: head, written: 44))
        #expect(queue.freeDescriptors == 8)
        #expect(queue.outstanding == 0)
        #expect(queue.reap() == nil)
        #expect(queue.error == nil)
    }

    @Test func `a full ring takes no more, and a chain fits whole or not at all`() throws {
        let rig = try SplitRingRig(size: 4)
        var queue = try queue(rig)
        #expect(queue.post([buffer(1), buffer(1), buffer(1)].span) != nil)
        #expect(queue.post([buffer(1), buffer(1)].span) == nil)
        #expect(queue.post(buffer(1)) != nil)
        #expect(queue.post(buffer(1)) == nil)
        #expect(queue.post([DriverBuffer]().span) == nil)
        #expect(queue.outstanding == 2)
    }

    @Test func `an indirect chain uses one descriptor`() throws {
        let rig = try SplitRingRig(size: 4, features: .indirect)
        var queue = try queue(rig)
        let table = Self.buffers + 0x1000
        let head = unsafe queue.postIndirect(
            [buffer(10, writable: false), buffer(20), buffer(30)].span,
            table: rig.pointer(table),
            deviceAddress: table
        )
        #expect(queue.freeDescriptors == 3)
        queue.publish()
        var device = try SplitDeviceQueue(rig.configuration, memory: rig.table)
        let chain = try present(device.takeChain())
        #expect(chain.head == head)
        #expect(chain.readableCount == 10)
        #expect(chain.writableCount == 50)
        device.release(head: chain.head, written: 50)
        #expect(queue.reap()?.written == 50)
        let plain = try SplitRingRig(size: 4)
        var other = try self.queue(plain)
        let refused = unsafe other.postIndirect(
            [buffer(10)].span,
            table: plain.pointer(table),
            deviceAddress: table
        )
        #expect(refused == nil)
    }

    @Test(arguments: [8, 9, 0x8000, 0xFFFF, 0x1_0000, 0xFFFF_FFFF] as [UInt32])
    func `HI-A40: a used id outside the ring breaks it`(id: UInt32) throws {
        let rig = try SplitRingRig(size: 8)
        var queue = try queue(rig)
        #expect(queue.post(buffer(64)) != nil)
        queue.publish()
        rig.use(id)
        #expect(queue.reap() == nil)
        #expect(queue.error == .usedRange)
        #expect(queue.fault?.value == UInt64(id))
        #expect(queue.post(buffer(64)) == nil)
        rig.usedIndex = 0
        rig.use(0)
        #expect(queue.reap() == nil)
    }

    @Test func `HI-A41: a used id that is not outstanding breaks the ring`() throws {
        let rig = try SplitRingRig(size: 8)
        var queue = try queue(rig)
        let head = try present(queue.post([buffer(1), buffer(2)].span))
        queue.publish()
        rig.use(UInt32(rig.descriptor(head).next))
        #expect(queue.reap() == nil)
        #expect(queue.error == .usedNotHead)
    }

    @Test func `HI-A41: a used id given back twice breaks the ring`() throws {
        let rig = try SplitRingRig(size: 8)
        var queue = try queue(rig)
        let head = try present(queue.post(buffer(1)))
        #expect(queue.post(buffer(2)) != nil)
        queue.publish()
        rig.use(UInt32(head))
        rig.use(UInt32(head))
        #expect(queue.reap()?.head == head)
        #expect(queue.reap() == nil)
        #expect(queue.error == .usedNotHead)
        #expect(queue.outstanding == 1)
    }

    @Test(arguments: [3, 8, 9, 0x8000, 0xFFFF] as [UInt16])
    func `HI-A42: a used index ahead of what is outstanding breaks the ring`(index: UInt16) throws {
        let rig = try SplitRingRig(size: 8)
        var queue = try queue(rig)
        #expect(queue.post(buffer(1)) != nil)
        #expect(queue.post(buffer(1)) != nil)
        queue.publish()
        rig.usedIndex = index
        #expect(queue.reap() == nil)
        #expect(queue.error == .usedJump)
    }

    @Test func `HI-A43: a used length above what was posted is cut and counted`() throws {
        let rig = try SplitRingRig(size: 8)
        var queue = try queue(rig)
        let head = try present(queue.post([buffer(9, writable: false), buffer(100)].span))
        let readable = try present(queue.post(buffer(64, writable: false)))
        queue.publish()
        rig.use(UInt32(head), 101)
        rig.use(UInt32(readable), .max)
        #expect(queue.reap() == UsedChain(head: head, written: 100))
        #expect(queue.reap() == UsedChain(head: readable, written: 0))
        #expect(queue.cutLengths == 2)
        #expect(queue.error == nil)
    }

    @Test func `HI-A43: in strict mode a used length above what was posted breaks the ring`() throws
    {
        let rig = try SplitRingRig(size: 8)
        var queue = try queue(rig, isStrict: true)
        let head = try present(queue.post(buffer(100)))
        let other = try present(queue.post(buffer(100)))
        queue.publish()
        rig.use(UInt32(head), 100)
        rig.use(UInt32(other), 101)
        #expect(queue.reap()?.written == 100)
        #expect(queue.reap() == nil)
        #expect(queue.error == .usedLength)
    }

    @Test func `HI-A46: descriptors that the device overwrites have no effect`() throws {
        let rig = try SplitRingRig(size: 8)
        var queue = try queue(rig)
        let head = try present(queue.post([buffer(10), buffer(20), buffer(30)].span))
        queue.publish()
        for index in 0..<8 {
            rig.setDescriptor(
                index,
                SplitDescriptor(address: 0, length: .max, flags: 0xFFFF, next: 0xFFFF)
            )
        }
        rig.setSlot(0, 0xFFFF)
        rig.storeIndex(0x1234)
        rig.use(UInt32(head), 70)
        #expect(queue.reap() == UsedChain(head: head, written: 60))
        #expect(queue.freeDescriptors == 8)
        for _ in 0..<8 { #expect(queue.post(buffer(5)) != nil) }
        #expect(queue.post(buffer(5)) == nil)
        queue.publish()
        #expect(rig.availableIndex == 9)
        #expect(Set((0..<8).map { rig.descriptor($0).length }) == [5])
        #expect(queue.error == nil)
    }

    @Test func `rings that others left dirty are cleared`() throws {
        let rig = try SplitRingRig(size: 8)
        rig.storeIndex(77)
        rig.driverFlags = 0xFFFF
        let queue = try queue(rig)
        #expect(queue.error == nil)
        #expect(rig.availableIndex == 0)
        #expect(rig.driverFlags == 0)
    }
}
