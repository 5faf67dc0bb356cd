import FunctionSupport
import GuestMemory
import HostSystem
import NetSupport
import PCI
import Testing
import Virtio
import VirtioSpec
import Virtqueue

@testable import VirtioNet

/// The device side, with a driver and a host on this thread.
@Suite struct NetDeviceTests {
    private static let good: DeviceStatus = [.acknowledge, .driver, .featuresOK, .driverOK]

    @Test func `a driver finds address, MTU, link and queues, and its rings are handed over`()
        throws
    {
        let rig = try NetDeviceRig()
        let driver = NetDriver(transport: rig.transport, loop: rig.loop)
        try driver.start()
        #expect(driver.identity.macAddress == NetDeviceRig.address)
        #expect(driver.identity.mtu == 1500)
        #expect(driver.isLinkUp)
        #expect(driver.pairCount == 1)
        let connection = try #require(rig.host.connection)
        #expect(connection.rings.map(\.index) == [0, 1])
        #expect(connection.rings.map(\.isPeerTransmit) == [false, true])
        #expect(connection.features == driver.identity.features)
        #expect(connection.features.contains([.netMergeableBuffers, .eventIndex, .accessPlatform]))
        try driver.stop()
        #expect(rig.host.connection == nil)
        #expect(!rig.device.isAttached)
        #expect(rig.faults.isEmpty)
    }

    @Test func `no offload is offered, and only what was asked for`() throws {
        var options = NetDeviceOptions(
            macAddress: NetDeviceRig.address,
            mtu: nil,
            offersAccessPlatform: false
        )
        var offered = try NetDeviceRig(options).transport.deviceFeatures()
        for bit: UInt8 in [0, 1, 2, 3, 7, 8, 9, 10, 11, 12, 13, 14, 22, 33, 34] {
            #expect(!offered.contains(FeatureBits(bit: bit)))
        }
        #expect(offered.contains(.version1))
        options.queuePairs = 2
        options.offersAccessPlatform = true
        offered = try NetDeviceRig(options).transport.deviceFeatures()
        #expect(offered.contains([.netMultiqueue, .accessPlatform]))
    }

    @Test(
        arguments: [
            NetClient.wanted, [], .netMergeableBuffers, .eventIndex,
            [.indirectDescriptors, .eventIndex],
        ] as [FeatureBits]
    )
    func `frames go both ways whatever was negotiated`(wanted: FeatureBits) throws {
        let rig = try NetDeviceRig()
        try rig.client.start(wanted: wanted)
        for round in 0..<30 as Range<UInt8> { try rig.expectEcho(round) }
        #expect(rig.host.error == nil)
        rig.client.stop()
        #expect(rig.function.arenas == 0)
    }

    @Test func `a frame that came interrupts, through the loop, as suppression has it`() throws {
        let rig = try NetDeviceRig()
        let interrupt = try rig.transport.interrupt(1)
        try rig.client.start(vector: 1)
        #expect(try rig.client.send([1, 2, 3]))
        rig.host.echo()
        #expect(interrupt.drain() == 0)
        try rig.turn()
        #expect(interrupt.drain() == 1)
        #expect(try rig.client.frames() == [[1, 2, 3]])
    }

    @Test func `a notification of the transmit queue reaches whoever sleeps`() throws {
        let rig = try NetDeviceRig()
        try rig.client.start()
        let wakeups = try #require(rig.host.connection).rings.map(\.wakeup)
        #expect(wakeups[0] == nil)
        _ = wakeups[1]?.drain()
        try rig.transport.notifyQueue(0)
        #expect(wakeups[1]?.drain() == 0)
        try rig.transport.notifyQueue(1)
        #expect(wakeups[1]?.drain() == 1)
    }

    @Test func `HI-H13: a reset under traffic ends when nobody works the rings`() throws {
        let rig = try NetDeviceRig()
        for round in 0..<20 as Range<UInt8> {
            try rig.client.start()
            try rig.expectEcho(round)
            // Some are on their way.
            _ = try rig.client.send([1])
            try rig.transport.reset()
            #expect(rig.host.connection == nil)
        }
        #expect(rig.host.connects == 20)
        #expect(rig.host.disconnects == 20)
        #expect(rig.faults.isEmpty)
    }

    @Test func `HI-H24: a function reset takes the rings away first`() throws {
        let rig = try NetDeviceRig()
        try rig.client.start()
        rig.function.endpoint.reset()
        #expect(rig.host.connection == nil)
        try rig.setCommand([.memorySpace, .busMaster])
        #expect(try rig.transport.status() == [])
        try rig.client.start()
        try rig.expectEcho()
    }

    @Test(arguments: [0, 1])
    func `HI-H15, HI-A25: a ring outside memory is NEEDS_RESET, and a good one after it works`(
        queue: Int
    ) throws {
        let rig = try NetDeviceRig()
        let arena = try rig.transport.makeArena(size: 8192)
        #expect(throws: VirtioError.self) {
            try DriverHandshake.run(rig.transport, wanted: []) { (_) throws(VirtioError) in
                for index in 0...1 {
                    let base = index == queue ? 1 << 60 : arena.deviceAddress
                    try rig.transport.enableQueue(
                        index,
                        QueueConfiguration(
                            size: 8,
                            descriptorArea: base,
                            driverArea: base + 1024,
                            deviceArea: base + 2048
                        ),
                        vector: nil
                    )
                }
            }
        }
        #expect(rig.faults == ["ring/area"])
        #expect(rig.function.endpoint.fault?.queue == queue)
        #expect(rig.host.connects == 0)
        try rig.client.start()
        try rig.expectEcho()
    }

    @Test func `HI-H12: features that rest on others are refused without them`() throws {
        let rig = try NetDeviceRig(
            NetDeviceOptions(macAddress: NetDeviceRig.address, queuePairs: 2)
        )
        for bits in [FeatureBits.netMultiqueue, .netControlReceive] {
            #expect(throws: VirtioError.self) {
                try DriverHandshake.run(rig.transport, wanted: bits) { _ in }
            }
        }
        #expect(rig.events.isEmpty)
    }

    @Test func `HI-H16: a queue is reset while the other goes on`() throws {
        let rig = try NetDeviceRig()
        try rig.client.start()
        try rig.expectEcho(1)
        try rig.transport.resetQueue(0)
        #expect(rig.host.connection?.rings.map(\.index) == [1])
        #expect(rig.host.connection?.rings[0].configuration.nextAvailable == 5)
        try rig.client.restart(0)
        #expect(rig.host.connection?.rings.map(\.index) == [0, 1])
        #expect(rig.host.connection?.rings.map(\.configuration.nextAvailable) == [0, 5])
        try rig.expectEcho(2)
        try rig.transport.resetQueue(1)
        try rig.client.restart(1)
        try rig.expectEcho(3)
        #expect(rig.faults.isEmpty)
    }

    @Test func `HI-H23: bus mastering off takes the rings away without a fault`() throws {
        let rig = try NetDeviceRig()
        try rig.client.start()
        try rig.expectEcho()
        try rig.setCommand([.memorySpace])
        #expect(rig.host.connection == nil)
        try rig.setCommand([.memorySpace, .busMaster])
        try rig.expectEcho()
        #expect(rig.faults.isEmpty)
        #expect(try rig.transport.status() == Self.good)
    }

    @Test func `HI-A1: a ring that broke is a fault of the device, once`() throws {
        let rig = try NetDeviceRig()
        try rig.client.start()
        let ring = try #require(rig.host.connection).rings[1].configuration
        let memory = try #require(rig.host.connection).memory
        #expect(memory.write([0xff, 0x7f], at: ring.driverArea + 2))
        rig.host.echo()
        let error = try #require(rig.host.error)
        #expect(error == .availableJump)
        #expect(rig.faults.isEmpty)
        try rig.wait("NEEDS_RESET") { !rig.faults.isEmpty }
        #expect(rig.faults == ["ring/avail-jump"])
        #expect(try rig.transport.status().contains(.needsReset))
        #expect(rig.host.connection == nil)
        try rig.client.start()
        try rig.expectEcho()
    }

    @Test func `a used index that its driver spoils breaks its own ring and nothing else`() throws {
        let rig = try NetDeviceRig()
        try rig.client.start()
        try rig.expectEcho()
        let ring = try #require(rig.host.connection).rings[1].configuration
        let memory = try #require(rig.host.connection).memory
        #expect(memory.write([0x34, 0x12], at: ring.deviceArea + 2))
        _ = try rig.transport.makeArena(size: 4096)
        rig.host.echo()
        #expect(rig.host.error == .availableJump)
    }

    @Test func `the link is told to drivers that look, and to those that ask`() throws {
        let rig = try NetDeviceRig()
        rig.device.setLink(up: false)
        let driver = NetDriver(
            transport: rig.transport,
            loop: rig.loop,
            options: NetOptions(usesInterrupts: true)
        )
        var events: [NetEvent] = []
        driver.onEvent = { events.append($0) }
        try driver.start()
        #expect(!driver.isLinkUp)
        rig.device.setLink(up: true)
        rig.device.setLink(up: true)
        try rig.turn()
        #expect(driver.isLinkUp)
        rig.device.setLink(up: false)
        try rig.turn()
        #expect(events == [.link(isUp: true), .link(isUp: false)])
        try driver.stop()
        rig.device.setLink(up: true)
    }

    @Test func `several pairs are handed over when the driver says that it uses them`() throws {
        let rig = try NetDeviceRig(
            NetDeviceOptions(macAddress: NetDeviceRig.address, queuePairs: 4)
        )
        let driver = NetDriver(
            transport: rig.transport,
            loop: rig.loop,
            options: NetOptions(queuePairs: 3, ringSize: 16)
        )
        try driver.start()
        #expect(rig.device.activePairs == 3)
        #expect(rig.host.connection?.rings.map(\.index) == Array(0..<6))
        #expect(throws: VirtioError.self) { try driver.send(.queuePairs(0)) }
        #expect(throws: VirtioError.self) { try driver.send(.queuePairs(5)) }
        #expect(rig.device.activePairs == 3)
        try driver.send(.queuePairs(1))
        #expect(rig.host.connection?.rings.map(\.index) == [0, 1])
        try driver.send(.promiscuous(true))
        try driver.send(.allMulticast(false))
        try driver.stop()
        #expect(rig.faults.isEmpty)
    }

    @Test func `commands that nobody knows are refused, whatever their length`() throws {
        let rig = try NetDeviceRig()
        let arena = try rig.transport.makeArena(size: 1 << 16)
        var queue: DriverBufferQueue?
        _ = try DriverHandshake.run(
            rig.transport,
            wanted: [.netControlQueue, .netControlReceive]
        ) { features throws(VirtioError) in
            queue = try DriverBufferQueue(
                transport: rig.transport,
                queue: 2,
                size: 16,
                bufferSize: 512,
                arena: arena,
                features: QueueFeatures(features),
                vector: nil
            )
        }
        let control = try #require(queue)
        let commands: [([UInt8], [UInt8])] = [
            ([0, 0, 1], [0]), ([1, 0] + [UInt8](repeating: 0, count: 64), [0]),
            ([0, 0], [1]), ([0], [1]), ([4, 0, 1, 0], [1]), ([0xff, 0xff, 0], [1]),
            ([0, 0, 1, 1], [1]), ([UInt8](repeating: 9, count: 500), [1]),
        ]
        for (command, answer) in commands {
            _ = try control.submit(readable: command, writableCount: 1)
            try control.notify()
            #expect(try control.poll()?.written == answer)
        }
        // No room for an answer, and no command at all.
        _ = try control.submit(readable: [0, 0, 1], writableCount: 0)
        _ = try control.submit(readable: [], writableCount: 1)
        try control.notify()
        #expect(try control.poll()?.written == [])
        #expect(try control.poll()?.written == [1])
        #expect(try rig.transport.status() == Self.good)
    }

    @Test func `a thread that does not let go holds up no reset, and nobody else gets its rings`()
        throws
    {
        let rig = try NetDeviceRig()
        try rig.client.start()
        rig.host.refusals = 3
        #expect(!rig.function.endpoint.isFormerMemoryInUse)
        try rig.transport.reset()
        #expect(rig.function.endpoint.isFormerMemoryInUse)
        #expect(
            rig.events.contains {
                if case .refused("net/in-use", _) = $0 { true } else { false }
            }
        )
        let connects = rig.host.connects
        try rig.client.start()
        #expect(rig.host.connects == connects)
        #expect(!rig.device.isAttached)
        try rig.wait("the thread") { rig.device.isAttached }
        #expect(!rig.function.endpoint.isFormerMemoryInUse)
        #expect(rig.host.connection?.rings.map(\.configuration.nextAvailable) == [0, 0])
        try rig.expectEcho()
    }

    @Test func `a driver whose machine is gone leaves nothing in use, and another one can come`()
        throws
    {
        let rig = try NetDeviceRig()
        try rig.client.start()
        try rig.expectEcho()
        rig.function.endpoint.clientGone()
        #expect(rig.host.connection == nil)
        try rig.setCommand([.memorySpace, .busMaster])
        #expect(try rig.transport.status() == [])
        try rig.transport.notifyQueue(1)
        _ = try rig.transport.makeArena(size: 4096)
        #expect(rig.host.connection == nil)
        try rig.client.start()
        try rig.expectEcho()
    }

    @Test func `an address of a group, or of another length, is refused`() throws {
        let loop = try EventLoop()
        for address in [[1, 0, 0, 0, 0, 0], [], [2, 0, 0, 0, 0], [2, 0, 0, 0, 0, 0, 0]] {
            #expect(throws: VirtioError.self) {
                try NetDevice(
                    NetDeviceOptions(macAddress: address.map { UInt8($0) }),
                    loop: loop,
                    host: EchoHost()
                )
            }
        }
    }
}
