import GuestMemory
import HostSystem
import PCI
import Testing
import Virtio
import VirtioSpec
import Virtqueue

@testable import AdminQueue

@Suite struct AdminTransportTests {
    private let rig: ManagementRig
    private let driver: ManagementDriver

    init() throws {
        rig = try ManagementRig()
        driver = try rig.driver()
    }

    @Test(arguments: [false, true])
    func `one driver runs one device type over PCI and over the admin queue`(
        _ overPCI: Bool
    ) throws {
        let transport: any VirtioTransport
        if overPCI {
            let function = try VirtioPCIFunction(device: EchoDevice())
            transport = try PCITransport(function: InProcessFunction(endpoint: function))
        } else {
            transport = try driver.transport(for: driver.create(type: EchoDevice.type))
        }
        #expect(transport.deviceType == EchoDevice.type)
        #expect(try transport.queueCount() == 2)
        #expect(try transport.queueLimit(0) == 64)
        let client = try EchoClient(transport)
        #expect(client.features == [.version1, .eventIndex])
        #expect(try transport.status() == [.acknowledge, .driver, .featuresOK, .driverOK])
        for round in 0..<200 {
            let bytes = (0..<64).map { UInt8(truncatingIfNeeded: $0 &* 3 &+ round) }
            #expect(try client.echo(bytes) == bytes)
        }
        #expect(try transport.readConfiguration(2, 4) == [3, 4, 5, 6])
        try transport.reset()
        #expect(try transport.status() == [])
        client.queue.release()
        try transport.releaseArena(client.arena)
    }

    @Test func `a used buffer is an event, and the event rings the queue's vector`() throws {
        let client = try EchoClient(driver.transport(for: driver.create(type: EchoDevice.type)))
        try rig.settle()
        #expect(client.used.drain() == 0)
        #expect(try client.echo([1, 2, 3]) == [1, 2, 3])
        try rig.settle()
        #expect(client.used.drain() > 0)
        #expect(client.changed.drain() == 0)
    }

    @Test func `each virtual device has its own interrupts and its own memory`() throws {
        let ids = [
            try driver.create(type: EchoDevice.type), try driver.create(type: EchoDevice.type),
        ]
        let clients = try ids.map { try EchoClient(driver.transport(for: $0)) }
        // Both may live at the same addresses: each has its own space.
        #expect(clients[0].arena.deviceAddress == clients[1].arena.deviceAddress)
        #expect(try clients[0].echo([1]) == [1])
        try rig.settle()
        #expect(clients[0].used.drain() > 0)
        #expect(clients[1].used.drain() == 0)
        #expect(try clients[1].echo([2]) == [2])
    }

    @Test func `AVQ-D-320: every access goes through the virtual device's MMU`() throws {
        let id = try driver.create(type: EchoDevice.type)
        let client = try EchoClient(driver.transport(for: id))
        let device = try #require(rig.device.virtualDevice(id))
        let mapping = try #require(device.state.mmu.mappings.first)
        #expect(device.state.mmu.mappings.count == 1)
        #expect(mapping.first == client.arena.deviceAddress)
        // The addresses that the driver uses mean nothing to the management device, nor its to them.
        #expect(mapping.target != mapping.first)
        #expect(rig.device.managementMemory.read(mapping.first, 1) == nil)
        #expect(device.memory.read(mapping.target, 1) == nil)
        #expect(try client.echo([9]) == [9])
    }

    @Test func `AVQ-D-219, AVQ-D-322, AVQ-D-323, HI-F69: unmapping under a device is its fault`()
        throws
    {
        let id = try driver.create(type: EchoDevice.type)
        let other = try EchoClient(driver.transport(for: driver.create(type: EchoDevice.type)))
        let transport = try driver.transport(for: id)
        let client = try EchoClient(transport)
        #expect(try client.echo([1]) == [1])
        let first = client.arena.deviceAddress
        let removed = try driver.execute(
            .unmap(first: first, last: first + 0xffff),
            for: id,
            room: 8
        )
        #expect(WireFields(removed)[0] == 0x10000)
        try rig.settle()
        _ = client.changed.drain()
        #expect(try client.echo([2]) == nil)
        #expect(try transport.status().isSuperset(of: [.mmuFail, .needsReset, .driverOK]))
        #expect(throws: VirtioError.self) { try transport.requireHealthy() }
        let fault = FaultRecord(
            WireFields(try driver.execute(.faultGet, for: id, room: FaultRecord.size))
        )
        #expect(fault.reason == .unmapped)
        #expect(fault.queue == 0)
        #expect((first...(first + 0xffff)).contains(fault.address))
        try rig.settle()
        #expect(client.changed.drain() > 0)
        #expect(try other.echo([3]) == [3])
    }

    @Test func `AVQ-D-323, AVQ-M-206: after a reset a failed device runs again`() throws {
        let id = try driver.create(type: EchoDevice.type)
        let transport = try driver.transport(for: id)
        var client = try EchoClient(transport)
        _ = try driver.execute(.unmapAll, for: id, room: 8)
        #expect(try client.echo([2]) == nil)
        try transport.reset()
        #expect(try transport.status() == [])
        client = try EchoClient(transport)
        #expect(try client.echo([3]) == [3])
    }

    @Test func `AVQ-M-304: interrupts, then mappings, then queues, then DRIVER_OK`() throws {
        let device = HostileManagement()
        device.answer = { command in
            command.opcode == .deviceFeaturesGet
                ? [0] + HostileManagement.little(FeatureBits.version1.rawValue)
                : HostileManagement.plain(command)
        }
        let driver = try device.driver(rig.loop)
        _ = try EchoClient(driver.transport(for: 1))
        let order: [VirtualDeviceOpcode] = [
            .driverFeaturesSet, .bindQueue, .map, .queueSizeSet, .queueAddressesSet, .queueEnable,
        ]
        #expect(device.opcodes.filter { order.contains($0) } == order)
        #expect(device.opcodes.last { $0 == .statusSet || $0 == .queueEnable } == .statusSet)
    }

    @Test func `a queue outside the transport's arenas is refused before any command`() throws {
        let transport = try driver.transport(for: driver.create(type: EchoDevice.type))
        let arena = try transport.makeArena(size: 4096)
        let outside = QueueConfiguration(
            size: 16,
            descriptorArea: arena.deviceAddress,
            driverArea: arena.deviceAddress + 2048,
            deviceArea: arena.deviceAddress + 4000
        )
        #expect(throws: VirtioError.self) { try transport.enableQueue(0, outside, vector: nil) }
    }

    @Test(arguments: [-1, 2, 65536])
    func `queues that are not there are refused`(_ queue: Int) throws {
        let transport = try driver.transport(for: driver.create(type: EchoDevice.type))
        #expect(throws: VirtioError.self) { try transport.queueLimit(queue) }
        #expect(throws: VirtioError.self) { try transport.notifyQueue(queue) }
    }

    @Test(arguments: [3, 0xfffe] as [UInt16])
    func `vectors that are not there are refused`(_ vector: UInt16) throws {
        let transport = try driver.transport(for: driver.create(type: EchoDevice.type))
        #expect(throws: VirtioError.self) { try transport.interrupt(vector) }
        #expect(throws: VirtioError.self) { try transport.bindConfigurationVector(vector) }
    }

    @Test func `AVQ-M-205: hidden features are neither shown nor taken`() throws {
        let id = try driver.create(type: EchoDevice.type)
        let transport = try driver.transport(for: id)
        transport.hiddenFeatures = .eventIndex
        #expect(try transport.deviceFeatures() == [.version1, .netMAC])
        let client = try EchoClient(transport, wanted: [.eventIndex, .netMAC])
        #expect(client.features == [.version1, .netMAC])
    }

    @Test func `configuration is read in bounds, whole or not at all`() throws {
        let id = try driver.create(type: EchoDevice.type)
        let transport = try driver.transport(for: id)
        #expect(try transport.readConfiguration(0, 8) == [1, 2, 3, 4, 5, 6, 7, 8])
        #expect(try transport.readConfiguration(8, 0) == [])
        for (offset, count) in [(0, 9), (-1, 2), (7, 2), (0, -1)] {
            #expect(throws: VirtioError.self) {
                try transport.readConfiguration(offset, count)
            }
        }
    }

    @Test func `AVQ-M-305: a long configuration comes in pieces of one generation`() throws {
        let id = try driver.create(type: EchoDevice.type)
        let bytes = (0..<3000).map { UInt8(truncatingIfNeeded: $0) }
        try #require(rig.factory.echo(id)).configuration = bytes
        let transport = try driver.transport(for: id)
        #expect(try transport.readConfiguration(0, 3000) == bytes)
        #expect(try transport.readConfiguration(900, 1100) == Array(bytes[900..<2000]))
    }

    @Test func `AVQ-M-305, HI-A51: a configuration that never rests is given up`() throws {
        let id = try driver.create(type: EchoDevice.type)
        let device = try #require(rig.factory.echo(id))
        device.configuration = [UInt8](repeating: 0, count: 3000)
        device.changesWithEveryRead = true
        let transport = try driver.transport(for: id)
        #expect {
            try transport.readConfiguration(0, 3000)
        } throws: { error in
            guard case .configurationUnstable? = error as? VirtioError else { return false }
            return true
        }
    }

    @Test func `windows and doorbells are the management device's`() throws {
        let transport = try driver.transport(for: driver.create(type: EchoDevice.type))
        let window = try transport.mapPeerWindow(bar: 2, offset: 4096, size: 8192)
        #expect(unsafe window.address == rig.window.address + 4096)
        #expect(window.size == 8192)
        _ = try transport.peerDoorbell(slot: 3)
        #expect(throws: VirtioError.self) { try transport.peerDoorbell(slot: 0xffff) }
        #expect(throws: VirtioError.self) {
            try transport.mapPeerWindow(bar: 2, offset: 1 << 16, size: 1)
        }
    }

    @Test func `HI-F62: a transport whose device was destroyed finds it gone`() throws {
        let id = try driver.create(type: EchoDevice.type)
        let transport = try driver.transport(for: id)
        let client = try EchoClient(transport)
        try driver.destroy(id, force: true)
        #expect(client.used.drain() > 0)
        #expect(throws: VirtioError.self) { try transport.status() }
        #expect(throws: VirtioError.self) { try transport.makeArena(size: 4096) }
        #expect(throws: VirtioError.self) { try client.echo([1]) }
    }

    @Test func `arenas come and go without a mapping left behind`() throws {
        let id = try driver.create(type: EchoDevice.type)
        let transport = try driver.transport(for: id)
        let client = try EchoClient(transport)
        let device = try #require(rig.device.virtualDevice(id))
        let regions = rig.bus.memory.all.count
        for _ in 0..<50 {
            let arenas = [
                try transport.makeArena(size: 5000), try transport.makeArena(size: 4096),
            ]
            #expect(device.state.mmu.mappings.count == 3)
            for arena in arenas { try transport.releaseArena(arena) }
        }
        #expect(device.state.mmu.mappings.count == 1)
        #expect(rig.bus.memory.all.count == regions)
        #expect(try client.echo([1]) == [1])
    }
}
