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

/// The device side: what becomes of the rings when memory changes, and when nobody can work them.
@Suite struct NetDeviceMemoryTests {
    private static let good: DeviceStatus = [.acknowledge, .driver, .featuresOK, .driverOK]

    @Test func `other memory takes the rings away and gives them back where they were`() throws {
        let rig = try NetDeviceRig()
        try rig.client.start()
        for round in 0..<20 as Range<UInt8> {
            try rig.expectEcho(round)
            let arena = try rig.transport.makeArena(size: 4096)
            try rig.expectEcho(round &+ 100)
            try rig.transport.releaseArena(arena)
        }
        #expect(rig.host.connects == 41)
        #expect(rig.faults.isEmpty)
    }

    @Test func `memory that leaves the rings where they are changes nothing for who works them`()
        throws
    {
        let rig = try NetDeviceRig()
        rig.host.follows = 0
        try rig.client.start()
        for round in 0..<20 as Range<UInt8> {
            try rig.expectEcho(round)
            let arena = try rig.transport.makeArena(size: 4096)
            try rig.expectEcho(round &+ 100)
            try rig.transport.releaseArena(arena)
        }
        #expect(rig.host.follows == 40)
        #expect(rig.host.connects == 1 && rig.host.disconnects == 0)
        #expect(rig.faults.isEmpty)
        // Without the rings there is nothing to follow to, and a host that cannot is asked to let go.
        let arena = try #require(rig.client.memory)
        try rig.function.unmapDMA(arena)
        #expect(rig.host.connection == nil)
        try rig.function.mapDMA(arena)
        try rig.expectEcho()
        rig.host.refusals = 1
        _ = try rig.transport.makeArena(size: 4096)
        #expect(rig.function.endpoint.isFormerMemoryInUse)
        try rig.wait("the thread") { rig.device.isAttached }
        try rig.expectEcho()
    }

    @Test func `rings that nobody can work take the link down, and are handed over again`() throws {
        let rig = try NetDeviceRig()
        rig.host.failures = 2
        let interrupt = try rig.transport.interrupt(0)
        try rig.client.start()
        #expect(!rig.device.isAttached && !rig.device.isLinkUp)
        #expect(rig.device.failure?.id == "port/attach")
        #expect(
            rig.events.count {
                if case .refused("port/attach", _) = $0 { true } else { false }
            } == 1
        )
        // It is nothing that a reset of the device would cure.
        #expect(try rig.transport.status() == Self.good)
        #expect(try rig.transport.readConfiguration(6, 2) == [0, 0])
        try rig.transport.bindConfigurationVector(0)
        let arena = try rig.transport.makeArena(size: 4096)
        #expect(!rig.device.isAttached)
        try rig.transport.releaseArena(arena)
        #expect(rig.device.isAttached && rig.device.isLinkUp && rig.device.failure == nil)
        #expect(try rig.transport.readConfiguration(6, 2) == [1, 0])
        #expect(interrupt.drain() > 0)
        try rig.expectEcho()
        // Nobody changes anything: a while later it is tried all the same.
        rig.host.failures = 1
        try rig.client.start()
        #expect(!rig.device.isAttached)
        try rig.wait("another try") { rig.device.isAttached }
        try rig.expectEcho()
        // What the operator wants of the link counts besides.
        rig.device.setLink(up: false)
        #expect(!rig.device.isLinkUp)
        rig.host.failures = 1
        try rig.client.start()
        rig.device.setLink(up: true)
        #expect(!rig.device.isLinkUp)
        try rig.wait("another try") { rig.device.isAttached }
        #expect(rig.device.isLinkUp)
    }

    @Test func `rings that are out of reach are waited for, then NEEDS_RESET says where`() throws {
        let rig = try NetDeviceRig()
        try rig.client.start()
        try rig.expectEcho()
        let other = try rig.transport.makeArena(size: 4096)
        let arena = try #require(rig.client.memory)
        try rig.function.unmapDMA(arena)
        #expect(rig.host.connection == nil)
        try rig.function.mapDMA(arena)
        #expect(rig.faults.isEmpty)
        try rig.expectEcho()
        try rig.function.unmapDMA(arena)
        try rig.wait("NEEDS_RESET") { !rig.faults.isEmpty }
        #expect(rig.faults == ["ring/area"])
        #expect(try rig.transport.status().contains(.needsReset))
        // The rest of this driver's life changes nothing.
        try rig.function.mapDMA(arena)
        #expect(rig.host.connection == nil)
        try rig.client.start()
        try rig.expectEcho()
        #expect(rig.faults.count == 1)
        try rig.transport.releaseArena(other)
    }

    @Test func `HI-I11: memory that was cut is a fault by name until there is other memory`() throws
    {
        let rig = try NetDeviceRig()
        try rig.client.start()
        try rig.expectEcho()
        let host = CutHost(rig.function.base)
        rig.function.endpoint.attach(host)
        try host.cut()
        // What the host sees of zeros is a broken ring: the cause is named, not that.
        let ring = try #require(rig.host.connection).rings[1].configuration
        let memory = try #require(rig.host.connection).memory
        #expect(memory.write([0xff, 0x7f], at: ring.driverArea + 2))
        rig.host.echo()
        try rig.wait("NEEDS_RESET") { !rig.faults.isEmpty }
        #expect(rig.faults == ["mem/truncated"])
        #expect(try rig.transport.status().contains(.needsReset))
        #expect(rig.host.connection == nil)
        let address = try #require(rig.client.memory).deviceAddress
        #expect(rig.function.endpoint.fault?.address == address)
        #expect(rig.function.endpoint.incidents["mem/truncated"] == 1)
        // A driver that comes back without other memory hears of it at once.
        try? rig.client.start()
        #expect(rig.faults == ["mem/truncated", "mem/truncated"])
        #expect(rig.host.connects == 1)
        host.mend()
        try rig.client.start()
        try rig.expectEcho()
        #expect(rig.faults.count == 2)
    }
}
