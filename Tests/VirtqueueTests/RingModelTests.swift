import RingSupport
import Testing
import VirtioSpec
import Virtqueue

/// Both sides of a ring against a model that is a plain array of what is under way.
@Suite struct RingModelTests {
    /// One chain in the model.
    private struct Chain {
        let head: UInt16
        let bytes: [UInt8]
        let descriptors: Int
    }

    /// Driver, device and model over one rig, and the checks after every step.
    private struct Machine: ~Copyable {
        let rig: SplitRingRig
        var driver: SplitDriverQueue
        var device: SplitDeviceQueue
        var burst = ChainBurst(longestChain: 512)
        var posted: [Chain] = []
        var published = 0
        var taken: [Chain] = []
        var returned: [Chain] = []
        var serial: UInt8 = 0

        init(_ rig: SplitRingRig) throws {
            let driver = try SplitDriverQueue(rig.configuration, memory: rig.table)
            let device = try SplitDeviceQueue(rig.configuration, memory: rig.table)
            self.rig = rig
            self.driver = driver
            self.device = device
        }

        var size: Int { Int(rig.configuration.size) }
        var busy: Int { (posted + taken + returned).reduce(0) { $0 + $1.descriptors } }

        /// Posts a chain of `count` readable buffers, the first `count - 1` of 1 byte.
        mutating func post(_ count: Int, indirect: Bool) {
            serial &+= 1
            let bytes = (0..<(count + 4)).map { serial &+ UInt8(truncatingIfNeeded: $0) }
            // Heads are unique while out, so they can name the buffers as well; the driver hands
            // heads out itself, so bytes are laid down where the serial says.
            let base = SplitRingRig.buffers + UInt64(serial) * 1024
            rig.write(bytes, at: base)
            let buffers = (0..<count).map { index in
                DriverBuffer(
                    address: base + UInt64(index),
                    length: index + 1 < count ? 1 : 5,
                    isWritable: false
                )
            }
            let needed = indirect ? 1 : count
            let table = base + 512
            let head =
                indirect
                ? unsafe driver.postIndirect(
                    buffers.span,
                    table: rig.pointer(table),
                    deviceAddress: table
                ) : (count == 1 ? driver.post(buffers[0]) : driver.post(buffers.span))
            #expect((head != nil) == (busy + needed <= size))
            if let head { posted.append(Chain(head: head, bytes: bytes, descriptors: needed)) }
        }

        mutating func publish() {
            driver.publish()
            published = posted.count
        }

        mutating func take(_ limit: Int) {
            burst.clear()
            let before = burst.count
            let count = device.takeReadable(into: &burst, limit: limit)
            #expect(before == 0)
            #expect(count == min(limit, published, ChainBurst.capacity))
            for index in 0..<count {
                let chain = posted.removeFirst()
                published -= 1
                #expect(bytes(of: burst, index) == chain.bytes)
                #expect(unsafe burst.entries[index].head == chain.head)
                taken.append(chain)
            }
            // A burst is returned before the next is taken, as a worker does.
            device.releaseTaken(burst)
            returned += taken
            taken = []
        }

        mutating func reap() {
            while let used = driver.reap() {
                let chain = returned.removeFirst()
                #expect(used == UsedChain(head: chain.head, written: 0))
            }
            #expect(returned.isEmpty)
        }

        mutating func check() {
            #expect(driver.error == nil)
            #expect(device.error == nil)
            #expect(driver.freeDescriptors == size - busy)
            #expect(driver.outstanding == posted.count + returned.count)
            #expect(device.inFlight == 0)
        }
    }

    @Test(
        arguments: [1, 2, 4, 16, 64] as [UInt16],
        [[], [.indirect, .eventIndex]] as [QueueFeatures]
    )
    func `any interleaving of posting, taking and reaping keeps order and bytes`(
        size: UInt16,
        features: QueueFeatures
    ) throws {
        var dice = Dice(UInt64(size) << 8 | UInt64(features.rawValue))
        let rig = try SplitRingRig(size: size, features: features)
        var machine = try Machine(rig)
        for _ in 0..<4000 {
            switch dice.below(6) {
            case 0, 1:
                let count = 1 + dice.below(min(Int(size), 9))
                machine.post(count, indirect: features.contains(.indirect) && dice.below(2) == 0)
            case 2: machine.publish()
            case 3: machine.take(1 + dice.below(40))
            case 4: machine.take(1)
            default: machine.reap()
            }
            machine.check()
        }
    }

    @Test func `indices wrap at 65,536 on both sides`() throws {
        let rig = try SplitRingRig(size: 32)
        var machine = try Machine(rig)
        var total = 0
        while total < 70_000 {
            for _ in 0..<30 { machine.post(1, indirect: false) }
            machine.publish()
            machine.take(32)
            machine.reap()
            total += 30
        }
        machine.check()
        #expect(machine.device.nextAvailable == UInt16(truncatingIfNeeded: total))
        #expect(rig.usedIndex == UInt16(truncatingIfNeeded: total))
    }

    /// Every sequence of six steps on rings of 1, 2 and 4 entries, from just before the wrap.
    @Test(arguments: [1, 2, 4] as [UInt16])
    func `every short sequence of steps on a tiny ring keeps the model`(size: UInt16) throws {
        let rig = try SplitRingRig(size: size)
        let steps = 6
        let depth = 6
        var total = 1
        for _ in 0..<depth { total *= steps }
        for number in 0..<total {
            rig.reset()
            var machine = try Machine(rig)
            var rest = number
            for _ in 0..<depth {
                switch rest % steps {
                case 0: machine.post(1, indirect: false)
                case 1: machine.post(2, indirect: false)
                case 2: machine.publish()
                case 3: machine.take(1)
                case 4: machine.take(32)
                default: machine.reap()
                }
                rest /= steps
            }
            machine.check()
        }
    }
}
