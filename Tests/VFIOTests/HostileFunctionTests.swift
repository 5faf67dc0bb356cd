import GuestMemory
import HostSystem
import PCI
import Testing
import VirtioSpec
import Virtqueue

@testable import VFIO
@testable import Virtio

/// The driver against devices that the kernel hands out, good and hostile.
@Suite struct HostileFunctionTests {
    let device = ScriptedDevice()
    let kernel: EndpointKernel
    let tree: FixtureTree

    init() throws {
        kernel = try EndpointKernel(device)
        tree = try FixtureTree()
    }

    func open() throws -> PCITransport {
        let function = try VFIODevice.open(
            FixtureTree.address,
            kernel: kernel,
            in: HostTree(root: tree.root)
        )
        let transport = try PCITransport(function: function)
        transport.resetLimit = 50
        return transport
    }

    func start(_ transport: PCITransport, vector: UInt16? = nil) throws -> DriverBufferQueue {
        let arena = try transport.makeArena(size: 1 << 16)
        var queue: DriverBufferQueue?
        _ = try DriverHandshake.run(transport, wanted: [.accessPlatform]) {
            (features) throws(VirtioError) in
            queue = try DriverBufferQueue(
                transport: transport,
                queue: 0,
                size: 8,
                bufferSize: 64,
                arena: arena,
                features: QueueFeatures(features),
                vector: vector
            )
        }
        return try #require(queue)
    }

    func command(_ queue: DriverBufferQueue, _ bytes: [UInt8]) throws -> [UInt8]? {
        _ = try queue.submit(readable: bytes, writableCount: bytes.count)
        try queue.notify()
        return try queue.poll()?.written
    }

    /// What a driver says that has sent one command to a device with a script.
    func outcome(_ script: @escaping (ScriptedDevice) -> Void) throws -> String {
        let transport = try open()
        let queue = try start(transport)
        #expect(try command(queue, [1, 2, 3]) == [3, 2, 1])
        device.script = script
        let text = failure { _ = try command(queue, [4, 5]) }
        // A reset and a good device: it works again (R8).
        device.script = { $0.answerAll() }
        let fresh = try start(transport)
        #expect(try command(fresh, [6, 7]) == [7, 6])
        return text
    }

    @Test func `commands go there and back, with interrupts, for longer than the ring`() throws {
        let transport = try open()
        let event = try transport.interrupt(1)
        let queue = try start(transport, vector: 1)
        for round in UInt8(0)..<100 {
            #expect(try command(queue, [round, 1, 2]) == [2, 1, round])
            kernel.deliver()
            #expect(event.drain() == 1)
        }
        // All that the device can reach is what was mapped.
        #expect(kernel.mapped.count == 1)
    }

    @Test(arguments: [8, 0xffff, 0x1_0000, UInt32.max])
    func `HI-A40: a used id outside the ring breaks it`(_ id: UInt32) throws {
        let text = try outcome { device in
            device.put(used: 1, id: id, length: 2)
            device.put(usedIndex: 2)
        }
        #expect(text.contains("ring/used-range"), "\(text)")
    }

    @Test func `HI-A41: a used id that is not outstanding breaks the ring`() throws {
        let text = try outcome { device in
            device.put(used: 1, id: 7, length: 2)
            device.put(usedIndex: 2)
        }
        #expect(text.contains("ring/used-not-head"), "\(text)")
    }

    @Test(arguments: [3, 9, 0x8000, 0xffff] as [UInt16])
    func `HI-A42: a used index ahead of what is outstanding breaks the ring`(
        _ index: UInt16
    ) throws {
        let text = try outcome { $0.put(usedIndex: index) }
        #expect(text.contains("ring/used-jump"), "\(text)")
    }

    @Test(arguments: [3, 64, UInt32.max])
    func `HI-A43: a used length above what was posted is cut to it`(_ length: UInt32) throws {
        let queue = try start(try open())
        device.script = { device in
            device.put(used: 0, id: 0, length: length)
            device.put(usedIndex: 1)
        }
        #expect(try command(queue, [1, 2])?.count == 2)
    }

    @Test func `HI-A46: descriptors that the device overwrites have no effect`() throws {
        let queue = try start(try open())
        device.script = { device in
            device.answerAll()
            device.spoilDescriptors()
        }
        for round in UInt8(0)..<20 {
            #expect(try command(queue, [round, 9]) == [9, round])
        }
    }

    @Test func `HI-A48: NEEDS_RESET is seen, and a reset revives the device`() throws {
        let transport = try open()
        let queue = try start(transport)
        device.script = { $0.context?.fail(DeviceFault("ring/area", queue: 0)) }
        #expect(try command(queue, [1]) == nil)
        #expect(failure { try transport.requireHealthy() }.hasPrefix("device/needs-reset"))
        device.script = { $0.answerAll() }
        #expect(try command(try start(transport), [1, 2]) == [2, 1])
    }

    @Test func `HI-A49: features that do not stick end in FAILED`() throws {
        device.accepts = false
        let transport = try open()
        #expect(failure { _ = try start(transport) }.hasPrefix("init/features"))
        #expect(try transport.status() == [.acknowledge, .driver, .failed])
        // Bit 32 is VERSION_1.
        device.accepts = true
        kernel.answer = { offset, value in
            offset == UInt64(CommonConfiguration.deviceFeature.rawValue) ? value & ~1 : value
        }
        #expect(failure { _ = try start(transport) }.hasPrefix("init/features"))
    }

    @Test func `HI-A50: a status that never becomes 0 ends at the limit`() throws {
        let transport = try open()
        kernel.answer = { offset, value in
            offset == UInt64(CommonConfiguration.deviceStatus.rawValue) ? 1 : value
        }
        #expect(failure { try transport.reset() }.hasPrefix("init/reset-timeout"))
    }

    @Test func `HI-A51: a generation that never settles is given up`() throws {
        let transport = try open()
        var generation: UInt32 = 0
        kernel.answer = { offset, value in
            guard offset == UInt64(CommonConfiguration.configurationGeneration.rawValue) else {
                return value
            }
            generation = (generation + 1) & 0x7f
            return generation
        }
        #expect(failure { _ = try transport.readConfiguration(0, 4) }.hasPrefix("cfg/unstable"))
    }

    @Test func `HI-A53: a device that goes under traffic is gone, and so is its memory`() throws {
        do {
            let transport = try open()
            let queue = try start(transport)
            #expect(try command(queue, [1, 2]) == [2, 1])
            kernel.isGone = true
            #expect(failure { _ = try transport.status() }.hasPrefix("pci/device-gone"))
            #expect(failure { _ = try command(queue, [3]) }.hasPrefix("pci/device-gone"))
        }
        #expect(kernel.mapped.isEmpty)
    }

    @Test func `HI-A54: no queues are refused, absurd sizes are cut`() throws {
        kernel.answer = { offset, value in
            offset == UInt64(CommonConfiguration.queueCount.rawValue) ? 0 : value
        }
        #expect(failure { _ = try open().queueCount() }.hasPrefix("cfg/range"))
        kernel.answer = { offset, value in
            offset == UInt64(CommonConfiguration.queueSize.rawValue) ? 0xfffe : value
        }
        #expect(try open().queueLimit(0) == 32768)
    }

    @Test func `HI-H6: a BAR that the kernel calls shorter holds no structure behind its end`()
        throws
    {
        for size in [0, 55, 0x1000] as [UInt64] {
            kernel.regions[0] = Answer.region(size: size, offset: 0x10000, flags: 3)
            #expect(failure { _ = try open() }.hasPrefix("pci/cap"), "\(size)")
        }
        kernel.regions[0] = nil
        #expect(failure { _ = try open() }.hasPrefix("pci/cap"))
    }

    @Test func `HI-H5: a capability list without end is refused`() throws {
        let first = Int(try kernel.bus.readConfiguration(ConfigurationHeader.capabilities, .byte))
        kernel.bytes[first + 1] = UInt8(truncatingIfNeeded: first)
        #expect(failure { _ = try open() }.hasPrefix("pci/cap-loop"))
    }

    @Test(arguments: [0x8000, 0xffff] as [UInt32])
    func `HI-H8: a notify address past its structure keeps the queue off`(
        _ offset: UInt32
    ) throws {
        kernel.answer = { at, value in
            at == UInt64(CommonConfiguration.queueNotifyOffset.rawValue) ? offset : value
        }
        let transport = try open()
        #expect(failure { _ = try start(transport) }.hasPrefix("pci/notify-range"))
    }

    @Test func `HI-H11: a vector that the device refuses is an error`() throws {
        let transport = try open()
        kernel.answer = { offset, value in
            offset == UInt64(CommonConfiguration.queueVector.rawValue) ? 0xffff : value
        }
        #expect(failure { _ = try start(transport, vector: 1) } != "nothing was thrown")
    }
}
