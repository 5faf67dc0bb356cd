import GuestMemory
import RingSupport
import Testing
import VirtioSpec
import Virtqueue

/// What is refused before a ring ever runs, on either side.
@Suite struct QueueSetupTests {
    /// The error with which both sides refuse a set-up, or `nil`; they must agree.
    private func refusal(
        of configuration: QueueConfiguration,
        _ table: MemoryTable
    ) -> QueueError? {
        var errors: [QueueError?] = []
        do throws(QueueError) {
            let queue = try SplitDeviceQueue(configuration, memory: table)
            errors.append(queue.error)
        } catch {
            errors.append(error)
        }
        do throws(QueueError) {
            let queue = try SplitDriverQueue(configuration, memory: table)
            errors.append(queue.error)
        } catch {
            errors.append(error)
        }
        #expect(errors[0] == errors[1])
        return errors[0]
    }

    @Test(arguments: [0, 3, 6, 7, 12, 255, 257, 32767, 32769, 0xFFFF] as [UInt16])
    func `HI-A23: a size that is no power of two is refused`(size: UInt16) throws {
        let rig = try SplitRingRig()
        var configuration = rig.configuration
        configuration.size = size
        #expect(refusal(of: configuration, rig.table) == .size)
    }

    @Test func `HI-A23: a size above the queue's maximum is refused`() throws {
        let rig = try SplitRingRig(size: 512)
        #expect(throws: QueueError.size) {
            _ = try SplitDeviceQueue(rig.configuration, memory: rig.table, maximumSize: 256).error
        }
        let exact = try SplitDeviceQueue(
            rig.configuration,
            memory: rig.table,
            maximumSize: 512
        )
        #expect(exact.error == nil)
    }

    @Test(arguments: [1, 2, 4, 8, 4096, 32768] as [UInt16])
    func `every power of two up to 32768 is a size`(size: UInt16) throws {
        let rig = try SplitRingRig(size: size, features: .eventIndex)
        #expect(refusal(of: rig.configuration, rig.table) == nil)
    }

    @Test func `HI-A24: an area that is not aligned is refused`() throws {
        let rig = try SplitRingRig()
        for offset in [1, 2, 4, 8] as [UInt64] {
            var configuration = rig.configuration
            configuration.descriptorArea += offset
            #expect(refusal(of: configuration, rig.table) == .alignment)
        }
        var odd = rig.configuration
        odd.driverArea += 1
        #expect(refusal(of: odd, rig.table) == .alignment)
        for offset in [1, 2, 3] as [UInt64] {
            var configuration = rig.configuration
            configuration.deviceArea += offset
            #expect(refusal(of: configuration, rig.table) == .alignment)
        }
    }

    @Test func `HI-A25: an area outside memory or over its end is refused`() throws {
        let rig = try SplitRingRig()
        let end = SplitRingRig.base + 0x30_0000
        let changes: [(inout QueueConfiguration) -> Void] = [
            { $0.descriptorArea = 0 },
            { $0.descriptorArea = end - 112 },
            { $0.descriptorArea = UInt64.max - 15 },
            { $0.driverArea = SplitRingRig.base - 2 },
            { $0.driverArea = end - 18 },
            { $0.deviceArea = end },
            { $0.deviceArea = end - 64 },
        ]
        for change in changes {
            var configuration = rig.configuration
            change(&configuration)
            #expect(refusal(of: configuration, rig.table) == .area)
        }
        var last = rig.configuration
        last.deviceArea = end - 68
        #expect(refusal(of: last, rig.table) == nil)
        last.features = .eventIndex
        #expect(refusal(of: last, rig.table) == .area)
    }

    @Test func `HI-A25: an area over two regions is refused`() throws {
        let rig = try SplitRingRig(
            areas: [.init(SplitRingRig.base, 0x1000), .init(SplitRingRig.base + 0x1000, 0x1000)]
        )
        var configuration = rig.configuration
        configuration.descriptorArea = SplitRingRig.base + 0xFC0
        #expect(refusal(of: configuration, rig.table) == .area)
    }

    @Test func `HI-A26: areas over each other are memory-safe`() throws {
        let rig = try SplitRingRig()
        var configuration = rig.configuration
        configuration.driverArea = configuration.descriptorArea
        configuration.deviceArea = configuration.descriptorArea
        rig.setDescriptor(0, SplitDescriptor(address: 0x0002_0001_0003_0000, length: 5))
        var queue = try SplitDeviceQueue(configuration, memory: rig.table)
        var burst = ChainBurst()
        for _ in 0..<64 {
            burst.clear()
            _ = queue.takeReadable(into: &burst, limit: 32)
            queue.releaseTaken(burst)
            _ = queue.shouldNotifyDriver()
        }
        #expect(queue.nextAvailable == 0 || queue.error != nil || burst.count <= 8)
    }

    @Test func `HI-A27: a used ring in read-only memory is refused`() throws {
        let rig = try SplitRingRig(
            areas: [.init(SplitRingRig.base, 0x2000), .init(0x1000, 0x1000, .read)]
        )
        var configuration = rig.configuration
        configuration.deviceArea = 0x1000
        #expect(throws: QueueError.readOnly) {
            _ = try SplitDeviceQueue(configuration, memory: rig.table).error
        }
    }

    @Test func `VU-R-06: chains that were never returned are taken again`() throws {
        let rig = try SplitRingRig(size: 8, start: 65_534)
        for head in UInt16(0)..<4 { rig.offer(head, SplitRingRig.buffers, 8) }
        var configuration = rig.configuration
        configuration.nextAvailable = 1
        var queue = try SplitDeviceQueue(configuration, memory: rig.table)
        #expect(queue.nextAvailable == 65_534)
        #expect(queue.inFlight == 0)
        var burst = ChainBurst()
        #expect(queue.takeReadable(into: &burst, limit: 32) == 4)
    }

    @Test func `a used index that makes no sense is not followed`() throws {
        let rig = try SplitRingRig(size: 8)
        rig.usedIndex = 4000
        var configuration = rig.configuration
        configuration.nextAvailable = 5
        let queue = try SplitDeviceQueue(configuration, memory: rig.table)
        #expect(queue.nextAvailable == 5)
        #expect(queue.inFlight == 0)
    }

    @Test func `a queue follows its driver's memory to a new table`() throws {
        let rig = try SplitRingRig()
        rig.write([1, 2], at: SplitRingRig.buffers)
        rig.offer(0, SplitRingRig.buffers, 2)
        var queue = try SplitDeviceQueue(rig.configuration, memory: rig.table)
        #expect(queue.takeChain() != nil)
        let moved = try SplitRingRig()
        moved.write([3], at: SplitRingRig.buffers)
        moved.storeIndex(1)
        moved.available = 1
        moved.offer(1, SplitRingRig.buffers, 1)
        try queue.rebind(to: moved.table)
        #expect(queue.inFlight == 1)
        #expect(queue.takeChain()?.head == 1)
        queue.release(head: 0, written: 0)
        queue.release(head: 1, written: 0)
        #expect(moved.usedIndex == 2)
        #expect(rig.usedIndex == 0)
        #expect(throws: QueueError.area) { try queue.rebind(to: .empty) }
    }
}
