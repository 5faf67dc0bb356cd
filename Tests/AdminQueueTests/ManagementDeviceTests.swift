import GuestMemory
import HostSystem
import PCI
import Testing
import Virtio
import VirtioSpec
import Virtqueue

@testable import AdminQueue

@Suite struct ManagementDeviceTests {
    private func rig(
        _ limits: ManagementDevice.Limits = ManagementDevice.Limits()
    ) throws -> ManagementRig {
        try ManagementRig(limits: limits)
    }

    /// Queue 0 without the driver above it.
    private func queue(
        _ rig: ManagementRig,
        vector: UInt16? = nil,
        size: UInt16 = 64
    ) throws -> DriverBufferQueue {
        let arena = try rig.transport.makeArena(size: 1 << 18)
        var queue: DriverBufferQueue?
        _ = try DriverHandshake.run(
            rig.transport,
            wanted: [],
            required: .managementVirtualDeviceDialect
        ) { features throws(VirtioError) in
            if let vector { try rig.transport.bindConfigurationVector(vector) }
            queue = try DriverBufferQueue(
                transport: rig.transport,
                queue: 0,
                size: size,
                bufferSize: 256,
                arena: arena,
                features: QueueFeatures(features),
                vector: vector
            )
        }
        return try #require(queue)
    }

    private func ask(
        _ queue: DriverBufferQueue,
        _ command: VirtualDeviceCommand,
        for id: UInt64 = 0,
        room: Int = 64
    ) throws -> [UInt8]? {
        _ = try queue.submit(readable: command.bytes(for: id), writableCount: room)
        try queue.notify()
        return try queue.poll()?.written
    }

    @Test(arguments: [Personality.std, .rfcG, .rfcW])
    func `a personality that is not built is refused by name`(_ personality: Personality) throws {
        let error = #expect(throws: VirtioError.self) {
            try ManagementDevice(
                personality: personality,
                factory: EchoFactory(),
                peerWindow: Mapping.anonymous(length: 4096),
                peerDoorbells: DoorbellTable(count: 1),
                loop: EventLoop()
            )
        }
        #expect(try #require(error).description.contains(personality.rawValue))
    }

    @Test func `VFU-S-60, HI-G34: a lost driver leaves no memory in use, nor a device running`()
        throws
    {
        let rig = try rig()
        let fixed = try rig.device.addStaticDevice(type: EchoDevice.type)
        let driver = try rig.driver()
        let created = try driver.create(type: EchoDevice.type)
        let clients = [
            try EchoClient(try driver.transport(for: fixed)),
            try EchoClient(try driver.transport(for: created)),
        ]
        for client in clients { #expect(try client.echo([1, 2]) == [1, 2]) }
        let echo = try #require(rig.factory.echo(fixed))
        let gone = try #require(rig.factory.echo(created))
        weak let memory = rig.bus.memory
        #expect(memory != nil)
        rig.function.clientGone()
        #expect(echo.deactivations == 1 && echo.context == nil)
        #expect(gone.deactivations == 1 && gone.context == nil)
        #expect(rig.device.virtualDeviceIDs == [fixed])
        // The table is replaced, as it is when a client's memory goes.
        _ = try rig.bus.makeArena(size: 4096)
        try rig.settle()
        #expect(memory == nil)
        // What the next machine shows is not touched before its own driver begins.
        #expect(rig.device.managementMemory.all.isEmpty)
    }

    @Test func `AVQ-D-902: neither bit 40 nor bit 41 is offered`() throws {
        let offered = try rig().transport.deviceFeatures()
        #expect(offered.isDisjoint(with: [.ringReset, .adminQueue]))
        #expect(offered.contains(.managementVirtualDeviceDialect))
        #expect(!offered.contains(.managementClassDialect))
    }

    @Test func `AVQ-D-901, AVQ-D-903: queues without a negotiated dialect have size 0`() throws {
        let rig = try rig()
        var limits: [UInt16] = []
        _ = try DriverHandshake.run(rig.transport, wanted: []) { _ throws(VirtioError) in
            for queue in 0..<3 { limits.append(try rig.transport.queueLimit(queue)) }
        }
        #expect(limits == [0, 0, 0])
        // A kick for such a queue is nothing.
        for queue in 0..<4 { rig.device.queueNotified(queue) }
        #expect(rig.device.virtualDeviceIDs.isEmpty)
        limits = []
        _ = try DriverHandshake.run(
            rig.transport,
            wanted: .managementVirtualDeviceDialect
        ) { _ throws(VirtioError) in
            for queue in 0..<3 { limits.append(try rig.transport.queueLimit(queue)) }
        }
        #expect(limits == [128, 0, 128])
    }

    @Test func `AVQ-D-303, HI-F3: a command without a writable byte is used with length 0`() throws
    {
        let rig = try rig()
        let queue = try queue(rig)
        let create = VirtualDeviceCommand.create(type: EchoDevice.type, attributes: [])
        #expect(try ask(queue, create, room: 0) == [])
        #expect(rig.device.virtualDeviceIDs.isEmpty)
        #expect(rig.device.incidents["admin/no-status"] == 1)
        #expect(try ask(queue, create)?.first == 0)
        #expect(rig.device.virtualDeviceIDs == [1])
    }

    @Test func `AVQ-D-302: the used length is what was written`() throws {
        let rig = try rig()
        let queue = try queue(rig)
        #expect(try ask(queue, .capabilityGet)?.count == 9)
        #expect(try ask(queue, .statusGet, for: 5)?.count == 9)
        #expect(try ask(queue, .statusGet, for: 5, room: 4)?.count == 4)
        #expect(try ask(queue, .subscribe(.all))?.count == 1)
    }

    @Test func `AVQ-D-306, HI-F5: ten thousand commands are answered in order`() throws {
        let rig = try rig()
        let queue = try queue(rig)
        var answered = 0
        var expected: [UInt16] = []
        for round in 0..<10_000 {
            expected.append(
                try queue.submit(
                    readable: VirtualDeviceCommand.statusGet.bytes(for: UInt64(round)),
                    writableCount: 16
                )
            )
            guard expected.count == 32 || round == 9_999 else { continue }
            try queue.notify()
            while let completion = try queue.poll() {
                #expect(completion.token == expected.removeFirst())
                #expect(completion.written.count == 9)
                answered += 1
            }
        }
        #expect(answered == 10_000)
    }

    @Test func `HI-F5: what a driver adds while it is served waits for the next turn`() throws {
        let rig = try rig(ManagementDevice.Limits(queueSize: 8))
        let queue = try queue(rig, size: 8)
        for _ in 0..<8 {
            _ = try queue.submit(
                readable: VirtualDeviceCommand.capabilityGet.bytes(for: 0),
                writableCount: 0
            )
        }
        try queue.notify()
        var answers = 0
        while try queue.poll() != nil { answers += 1 }
        #expect(answers == 8)
        // A turn as long as the ring ends with another one to come, which finds nothing.
        try rig.settle()
        #expect(try ask(queue, .capabilityGet)?.count == 9)
    }

    @Test func `HI-F4: a command in descriptors of one byte is executed as if whole`() throws {
        let rig = try rig()
        let arena = try rig.transport.makeArena(size: 1 << 16)
        let areas = [16 * 128, 6 + 2 * 128, 6 + 8 * 128].compactMap { arena.allocate($0) }
        try #require(areas.count == 3)
        let configuration = QueueConfiguration(
            size: 128,
            descriptorArea: areas[0].deviceAddress,
            driverArea: areas[1].deviceAddress,
            deviceArea: areas[2].deviceAddress
        )
        _ = try DriverHandshake.run(
            rig.transport,
            wanted: [],
            required: .managementVirtualDeviceDialect
        ) { _ throws(VirtioError) in
            try rig.transport.enableQueue(0, configuration, vector: nil)
        }
        var queue = try SplitDriverQueue(configuration, memory: rig.bus.memory)
        let bytes = VirtualDeviceCommand.create(type: EchoDevice.type, attributes: []).bytes(for: 0)
        let readable = try #require(arena.allocate(bytes.count))
        readable.write(bytes)
        let writable = try #require(arena.allocate(16))
        var parts: [DriverBuffer] = []
        for index in 0..<(bytes.count + 9) {
            let isWritable = index >= bytes.count
            let base =
                isWritable
                ? writable.deviceAddress + UInt64(index - bytes.count)
                : readable.deviceAddress + UInt64(index)
            parts.append(DriverBuffer(address: base, length: 1, isWritable: isWritable))
        }
        #expect(queue.post(parts.span) != nil)
        queue.publish()
        try rig.transport.notifyQueue(0)
        let used = queue.reap()
        #expect(used?.written == 9)
        #expect(writable.read(count: 9) == [0, 1, 0, 0, 0, 0, 0, 0, 0])
        #expect(rig.device.virtualDeviceIDs == [1])
    }

    @Test func `AVQ-D-908: completion is told on the queue's vector, even the configuration's`()
        throws
    {
        let rig = try rig()
        let event = try rig.transport.interrupt(0)
        let queue = try queue(rig, vector: 0)
        #expect(try ask(queue, .capabilityGet)?.count == 9)
        #expect(event.drain() == 1)
    }

    @Test func `AVQ-D-309, AVQ-D-905, HI-F6: a reset clears what commands built up`() throws {
        let rig = try rig()
        let fixed = try rig.device.addStaticDevice(type: EchoDevice.type)
        let queue = try queue(rig)
        _ = try ask(queue, .create(type: EchoDevice.type, attributes: []))
        _ = try ask(
            queue,
            .map(MappingRecord(first: 0x1000, last: 0x1fff, target: 0, flags: .read)),
            for: fixed
        )
        _ = try ask(queue, .statusSet(.acknowledge), for: fixed)
        _ = try ask(queue, .subscribe(.all))
        #expect(rig.device.virtualDeviceIDs.count == 2)
        #expect(rig.device.snapshot.backlog.mask == .all)
        // One command is in the ring, and the device was not told of it.
        let create = VirtualDeviceCommand.create(type: EchoDevice.type, attributes: [])
        _ = try queue.submit(readable: create.bytes(for: 0), writableCount: 16)
        try rig.transport.reset()
        rig.device.queueNotified(0)
        #expect(try queue.poll() == nil)
        #expect(rig.device.virtualDeviceIDs == [fixed])
        let state = try #require(rig.device.virtualDevice(fixed)).state
        #expect(state.mmu.mappings.isEmpty)
        #expect(state.status.status == [])
        #expect(rig.device.snapshot.backlog == EventBacklog())
        #expect(rig.device.managementMemory.all.isEmpty)
    }

    @Test func `AVQ-D-308: pre-made devices keep their ids over a reset and are found by listing`()
        throws
    {
        let rig = try rig()
        let fixed = try rig.device.addStaticDevice(type: EchoDevice.type)
        for _ in 0..<3 {
            let driver = try rig.driver()
            #expect(try driver.list() == [fixed])
            let client = try EchoClient(driver.transport(for: fixed))
            #expect(try client.echo([7]) == [7])
            #expect(throws: VirtioError.self) { try driver.destroy(fixed, force: true) }
            driver.close()
        }
    }

    @Test func `AVQ-D-324: events without a buffer wait or are counted`() throws {
        let rig = try rig()
        let queue = try queue(rig)
        _ = try ask(queue, .subscribe(.all))
        _ = try ask(queue, .create(type: EchoDevice.type, attributes: []))
        rig.device.send(AdminEvent(.usedBuffer, virtualDeviceID: 1, index: 1))
        rig.device.send(AdminEvent(.usedBuffer, virtualDeviceID: 1, index: 1))
        let backlog = rig.device.snapshot.backlog
        #expect(backlog.lostCount == 1)
        #expect(backlog.held.count == 1)
    }

    @Test func `HI-A25: an admin queue outside memory breaks this device, and a reset cures it`()
        throws
    {
        let rig = try rig()
        _ = try? DriverHandshake.run(
            rig.transport,
            wanted: .managementVirtualDeviceDialect
        ) { _ throws(VirtioError) in
            let nowhere = QueueConfiguration(
                size: 16,
                descriptorArea: 0x7000_0000_0000,
                driverArea: 0x7000_0001_0000,
                deviceArea: 0x7000_0002_0000
            )
            try rig.transport.enableQueue(0, nowhere, vector: nil)
        }
        #expect(try rig.transport.status().contains(.needsReset))
        #expect(try rig.driver().create(type: EchoDevice.type) == 1)
    }

    @Test func `a management device carries the window and the doorbells of its virtual devices`()
        throws
    {
        let rig = try rig()
        #expect(rig.function.barSize(2) == 1 << 16)
        #expect(rig.transport.peerNotify != nil)
    }
}
