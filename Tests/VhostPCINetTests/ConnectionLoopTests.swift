import GuestMemory
import HostSystem
import PCI
import Testing
import Virtio
import VirtioSpec
import Virtqueue

@testable import VhostPCINet

/// Device and driver against each other, with a scripted peer.
@Suite struct ConnectionLoopTests {
    @Test
    func `VPN-M-06, VPN-M-08: a peer connects and its rings are handed over, each its own way`()
        throws
    {
        let rig = try LoopRig()
        let peer = try rig.connected()
        let connection = try #require(rig.host.connection)
        #expect(connection.rings.map(\.index) == [0, 1])
        #expect(connection.rings.map(\.isPeerTransmit) == [false, true])
        #expect(connection.rings.allSatisfy { $0.isStarted && $0.isEnabled })
        #expect(connection.features == ScriptedPeer.allFeatures)
        #expect(connection.generation == 1)
        #expect(connection.rings[1].configuration.size == ScriptedPeer.ringSize)
        #expect(rig.host.refusals.isEmpty)
        withExtendedLifetime(peer) {}
    }

    @Test func `VPN-D-13, VPN-M-09: an address of the peer leads to the peer's byte`() throws {
        let rig = try LoopRig(slice: 0x10_0000)
        let peer = try rig.connected()
        let memory = try #require(rig.host.connection).memory
        peer[0x12345] = 0x5a
        #expect(memory.read(peer.guestAddress(0x12345), 1) == [0x5a])
        #expect(memory.write([0xa5], at: peer.guestAddress(0x12345)))
        #expect(peer[0x12345] == 0xa5)
        #expect(memory.read(ScriptedPeer.guestBase - 1, 1) == nil)
        #expect(memory.read(peer.guestAddress(ScriptedPeer.memorySize), 1) == nil)
    }

    @Test func `a packet that the peer transmits is taken from its ring and announced`() throws {
        let rig = try LoopRig()
        let peer = try rig.connected(features: [.version1])
        peer.post(1, bytes: Array(0..<100))
        let ring = try #require(rig.host.connection).rings[1]
        let memory = try #require(rig.host.connection).memory
        var queue = try SplitDeviceQueue(ring.configuration, memory: memory)
        var burst = ChainBurst()
        #expect(queue.takeReadable(into: &burst, limit: 32) == 1)
        let length = unsafe burst.entries[0].byteCount
        #expect(length == 100)
        queue.releaseTaken(burst)
        #expect(peer.usedIndex(1) == 1)
        ring.doorbell.ring()
        #expect(peer.calls[1].drain() == 1)
        #expect(peer.calls[0].drain() == 0)
    }

    @Test func `a host that cannot work the rings lets the peer go, and gets the next one`() throws
    {
        let rig = try LoopRig()
        rig.host.failures = 1
        try rig.driver.start()
        let peer = try rig.peer()
        try? peer.connect()
        try rig.wait("the end") { try peer.sawClose() }
        #expect(rig.host.refusals == ["port/attach"])
        #expect(rig.host.connection == nil)
        let next = try rig.connected()
        #expect(rig.host.refusals == ["port/attach"])
        #expect(rig.host.connects == 1)
        withExtendedLifetime(next) {}
    }

    @Test func `VPN-D-05: a kick of a transmit queue wakes its own receive queue and no other`()
        throws
    {
        let rig = try LoopRig(pairs: 2)
        let peer = try rig.connected(rings: 4)
        let connection = try #require(rig.host.connection)
        let wakeups = connection.rings.map(\.wakeup)
        #expect(wakeups.map { $0 == nil } == [true, false, true, false])
        try rig.run(milliseconds: 20)
        _ = wakeups.map { $0?.drain() }
        peer.kicks[3].signal()
        peer.kicks[0].signal()
        try rig.run(milliseconds: 20)
        #expect(wakeups[3]?.drain() == 1)
        #expect(wakeups[1]?.drain() == 0)
    }

    @Test func `VPN-D-02: a store to a slot signals that queue's call descriptor once`() throws {
        let rig = try LoopRig()
        let peer = try rig.connected()
        let notify = try #require(rig.transport.peerNotify)
        // Slot 1 is the first of this device: ring 0.
        for (slot, expected) in [(1, [1, 0]), (2, [0, 1])] as [(UInt64, [UInt64])] {
            try rig.bus.writeRegister(
                Int(notify.bar),
                notify.offset + slot * 4,
                .word,
                UInt32(slot)
            )
            #expect(peer.calls.map { $0.drain() } == expected)
        }
    }

    @Test func `VPN-D-03, HI-G36: stores elsewhere, of other widths, or without a peer do nothing`()
        throws
    {
        let rig = try LoopRig()
        let peer = try rig.connected()
        let notify = try #require(rig.transport.peerNotify)
        let bar = Int(notify.bar)
        try rig.bus.writeRegister(bar, notify.offset, .word, 0)
        try rig.bus.writeRegister(bar, notify.offset + 5, .word, 1)
        try rig.bus.writeRegister(bar, notify.offset + 4, .byte, 1)
        try rig.bus.writeRegister(bar, notify.offset + 40, .word, 10)
        #expect(peer.calls.map { $0.drain() } == [0, 0])
        rig.driver.stop()
        _ = peer.calls.map { $0.drain() }
        try rig.bus.writeRegister(bar, notify.offset + 4, .word, 1)
        #expect(peer.calls.map { $0.drain() } == [0, 0])
    }

    @Test func `VU-B-14: a call descriptor that is replaced is signalled once and takes over`()
        throws
    {
        let rig = try LoopRig()
        let peer = try rig.connected()
        let old = peer.calls[1]
        try peer.replaceCall(1)
        try rig.run(milliseconds: 20)
        #expect(peer.calls[1].drain() == 1)
        try #require(rig.host.connection).rings[1].doorbell.ring()
        #expect(peer.calls[1].drain() == 1)
        #expect(old.drain() == 0)
        #expect(rig.host.connects == 1)
    }

    @Test func `VPN-D-01, VPN-D-04, VPN-D-08, VPN-D-09: identity, structures, queues and features`()
        throws
    {
        let rig = try LoopRig(pairs: 3)
        #expect(rig.transport.deviceType == .vhostPCINet)
        #expect(try rig.transport.queueCount() == 5)
        let notify = try #require(rig.transport.peerNotify)
        #expect(notify.offset % 2 == 0)
        #expect(notify.length >= UInt64(rig.doorbells.count) * 4)
        #expect(rig.transport.sharedMemory[0]?.bar == 2)
        #expect(try rig.transport.deviceFeatures().contains(.version1))
        #expect(rig.device.configuration.isEmpty)
        let structures = try capabilityTypes(rig)
        #expect(structures.count { $0 == 0xf0 } == 1)
        #expect(structures.contains(2))
    }

    private func capabilityTypes(_ rig: LoopRig) throws -> [UInt32] {
        var types: [UInt32] = []
        var at = Int(try rig.bus.readConfiguration(0x34, .byte))
        while at != 0, types.count < 48 {
            if try rig.bus.readConfiguration(at, .byte) == 9 {
                types.append(try rig.bus.readConfiguration(at + 3, .byte))
            }
            at = Int(try rig.bus.readConfiguration(at + 1, .byte))
        }
        return types
    }

    // MARK: table change

    @Test func `VPN-D-10, VPN-D-18: a table change is OFF, the next generation, ON`() throws {
        let rig = try LoopRig()
        let peer = try rig.connected()
        let more = try MemoryFile(name: "more", size: 0x10000)
        peer.regions.append(
            .init(guestAddress: 0x4000_0000, file: more.descriptor, size: more.size)
        )
        let mapped = try more.map()
        unsafe mapped.address.storeBytes(of: 7, as: UInt8.self)
        try peer.setMemory()
        try rig.wait("ON again") { rig.host.connects == 2 }
        #expect(rig.host.disconnects == 1)
        let connection = try #require(rig.host.connection)
        #expect(connection.generation == 2)
        #expect(connection.memory.read(0x4000_0000, 1) == [7])
        #expect(connection.memory.read(peer.guestAddress(0), 1) != nil)
    }

    @Test func `HI-I15: memory added under way keeps ring positions, a hundred times`() throws {
        let rig = try LoopRig()
        let peer = try rig.connected(features: [.version1])
        let more = try MemoryFile(name: "more", size: 0x1000)
        for change in 0..<100 as Range<UInt16> {
            peer.post(1, bytes: [UInt8(change)])
            let connection = try #require(rig.host.connection)
            #expect(connection.rings[1].configuration.nextAvailable == change)
            var queue = try SplitDeviceQueue(
                connection.rings[1].configuration,
                memory: connection.memory
            )
            var burst = ChainBurst()
            #expect(queue.takeReadable(into: &burst, limit: 32) == 1)
            queue.releaseTaken(burst)
            let extra = ScriptedPeer.Region(
                guestAddress: 0x4000_0000,
                file: more.descriptor,
                size: more.size
            )
            peer.regions = [peer.regions[0]] + (change % 2 == 0 ? [extra] : [])
            try peer.setMemory()
            // A slow machine may see a table announced twice, so ON is not counted.
            try rig.wait("ON with the new table") {
                guard rig.isOn(), let now = rig.host.connection else { return false }
                return now.generation > connection.generation
                    && now.memory.covers(0x4000_0000, 1, .read) == (change % 2 == 0)
            }
        }
        #expect(peer.usedIndex(1) == 100)
    }

    @Test func `VU-R-02: GET_VRING_BASE tells how far a ring was worked, in order`() throws {
        let rig = try LoopRig()
        let peer = try rig.connected(features: [.version1])
        for _ in 0..<5 { peer.post(1, bytes: [1]) }
        let connection = try #require(rig.host.connection)
        rig.host.whileDisconnecting = {
            // The last burst ends while OFF is being handled (HI-G7).
            guard
                var queue = try? SplitDeviceQueue(
                    connection.rings[1].configuration,
                    memory: connection.memory
                )
            else { return }
            var burst = ChainBurst()
            #expect(queue.takeReadable(into: &burst, limit: 3) == 3)
            queue.releaseTaken(burst)
        }
        #expect(try peer.stop(1) == 3)
        #expect(rig.host.disconnects == 1)
        rig.host.whileDisconnecting = nil
        try rig.wait("ON with the other ring") { rig.host.connects == 2 }
        #expect(try #require(rig.host.connection).rings.map(\.isStarted) == [true, false])
        #expect(try peer.stop(0) == 0)
        #expect(try peer.stop(1) == 3)
    }

    @Test func `VU-R-06: a ring that starts again goes on where the front-end says`() throws {
        let rig = try LoopRig()
        let peer = try rig.connected()
        _ = try peer.stop(0)
        _ = try peer.stop(1)
        try rig.wait("OFF") { rig.host.connection == nil && rig.device.phase == .waitPeer }
        try peer.start(0, base: 7)
        try peer.start(1, base: 9)
        try rig.wait("ON again") { rig.isOn() }
        let rings = try #require(rig.host.connection).rings
        #expect(rings.map(\.configuration.nextAvailable) == [7, 9])
    }

    @Test func `VU-R-04: a ring that is not enabled is handed over as such`() throws {
        let rig = try LoopRig()
        let peer = try rig.connected()
        try peer.enable(1, false)
        try rig.wait("ON again") { rig.isOn(rings: 1) }
        #expect(try #require(rig.host.connection).rings.map(\.isEnabled) == [true, false])
        try peer.enable(1, true)
        try rig.wait("ON again") { rig.isOn() }
        #expect(rig.host.connects == 3)
    }

    // MARK: features

    @Test func `VPN-D-07: the peer is offered what the driver accepted`() throws {
        let rig = try LoopRig()
        try rig.driver.start()
        let peer = try rig.peer()
        try peer.negotiate()
        #expect(peer.offered.subtracting(.vhostUserProtocol) == rig.driver.features)
        #expect(rig.driver.features == ScriptedPeer.allFeatures)
    }

    @Test func `VPN-D-06: a driver that comes after its peer is offered what the peer agreed to`()
        throws
    {
        let rig = try LoopRig()
        let peer = try rig.peer()
        try peer.connect(features: [.version1, .eventIndex])
        try rig.run(milliseconds: 20)
        #expect(rig.device.phase == .waitDriver)
        #expect(try !rig.transport.deviceFeatures().contains(.netMergeableBuffers))
        try rig.driver.start()
        try rig.wait("ON") { rig.host.connection != nil }
        #expect(try #require(rig.host.connection).features == [.version1, .eventIndex])
        #expect(try !peer.sawClose())
    }

    @Test func `VPN-D-07: a driver that takes less than its peer uses makes the peer come again`()
        throws
    {
        let rig = try LoopRig()
        let peer = try rig.peer()
        try peer.connect()
        try rig.transport.reset()
        try rig.transport.setStatus([.acknowledge, .driver])
        try rig.transport.setDriverFeatures(.version1)
        try rig.transport.setStatus([.acknowledge, .driver, .featuresOK])
        #expect(try rig.transport.status().contains(.featuresOK))
        try rig.wait("the end of the connection") { try peer.sawClose() }
        let again = try rig.peer()
        try again.negotiate()
        #expect(again.offered.subtracting(.vhostUserProtocol) == .version1)
    }

    @Test func `HI-G12: a peer that agreed to less is served with less, without a new driver`()
        throws
    {
        let rig = try LoopRig()
        var peer: ScriptedPeer? = try rig.connected(features: ScriptedPeer.allFeatures)
        #expect(peer != nil)
        peer = nil
        try rig.wait("OFF") { rig.host.connection == nil && rig.device.phase == .waitPeer }
        let next = try rig.connected(features: [.version1])
        let connection = try #require(rig.host.connection)
        #expect(connection.features == [.version1])
        #expect(connection.rings.allSatisfy { $0.configuration.features.isEmpty })
        withExtendedLifetime(next) {}
    }
}
