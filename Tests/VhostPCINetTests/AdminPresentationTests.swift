import GuestMemory
import HostSystem
import Testing
import Virtio
import VirtioSpec
import Virtqueue

@testable import AdminQueue
@testable import VhostPCINet

/// vhost-pci-net as a virtual device: the same device and the same driver as over PCI.
@Suite struct AdminPresentationTests {
    /// Takes the packets of a peer's transmit ring and says so.
    private func receive(_ connection: PeerConnection) throws -> [[UInt8]] {
        let ring = connection.rings[1]
        var queue = try SplitDeviceQueue(ring.configuration, memory: connection.memory)
        var burst = ChainBurst()
        _ = queue.takeReadable(into: &burst, limit: 32)
        var packets: [[UInt8]] = []
        for index in 0..<burst.count {
            let entry = unsafe burst.entries[index]
            let segment = unsafe burst.segments[Int(entry.firstSegment)]
            packets.append(
                unsafe [UInt8](
                    UnsafeRawBufferPointer(start: segment.pointer, count: Int(segment.length))
                )
            )
        }
        queue.releaseTaken(burst)
        ring.doorbell.ring()
        return packets
    }

    @Test func `a peer's packet arrives through a device that the admin queue made`() throws {
        let rig = try AdminRig()
        let line = try rig.line()
        #expect(line.transport.deviceType == .vhostPCINet)
        let peer = try rig.peer(of: line)
        peer.post(1, bytes: Array(0..<100))
        let packets = try receive(#require(line.host.connection))
        #expect(packets == [Array(0..<100)])
        #expect(peer.usedIndex(1) == 1)
        #expect(peer.calls[1].drain() == 1)
        #expect(peer.calls[0].drain() == 0)
        line.driver.stop()
        #expect(line.host.connection == nil)
    }

    @Test func `a peer's kick reaches the driver as an event of the management device`() throws {
        let rig = try AdminRig()
        let line = try rig.line()
        let peer = try rig.peer(of: line)
        let wakeup = try #require(line.host.connection?.rings[1].wakeup)
        _ = wakeup.drain()
        peer.kicks[1].signal()
        try rig.wait("wake-up") { wakeup.drain() > 0 }
    }

    @Test func `two virtual devices have a slice each, and neither sees the other's peer`() throws {
        let rig = try AdminRig()
        let lines = [try rig.line(), try rig.line()]
        let peers = try lines.map { try rig.peer(of: $0) }
        let connections = try lines.map { try #require($0.host.connection) }
        for index in 0..<2 {
            peers[index][0x100] = UInt8(index + 1)
            let address = peers[index].guestAddress(0x100)
            #expect(connections[index].memory.read(address, 1) == [UInt8(index + 1)])
            connections[index].rings[1].doorbell.ring()
            #expect(peers.map { $0.calls[1].drain() } == (index == 0 ? [1, 0] : [0, 1]))
        }
        // Beyond a slice there is nothing, not the next device's peer.
        let end = peers[0].guestAddress(ScriptedPeer.memorySize)
        #expect(connections[0].memory.read(end, 1) == nil)
        #expect(throws: VirtioError.self) { _ = try rig.manager.create(type: .vhostPCINet) }
    }

    @Test func `HI-F62: a device destroyed by force takes its peer off, and its slice is free`()
        throws
    {
        let rig = try AdminRig()
        let first = try rig.line()
        let other = try rig.line()
        let peer = try rig.peer(of: first)
        let witness = try rig.peer(of: other)
        #expect(throws: VirtioError.self) { try rig.manager.destroy(first.id) }
        #expect(first.host.connection != nil)
        try rig.manager.destroy(first.id, force: true)
        try rig.wait("OFF") { first.host.connection == nil }
        first.driver.stop()
        let next = try rig.line()
        #expect(next.id > other.id)
        let newPeer = try rig.peer(of: next)
        newPeer.post(1, bytes: [1, 2, 3])
        #expect(try receive(#require(next.host.connection)) == [[1, 2, 3]])
        witness.post(1, bytes: [4])
        #expect(try receive(#require(other.host.connection)) == [[4]])
        withExtendedLifetime(peer) {}
    }

    @Test func `AVQ-D-323: a device whose memory was unmapped is reset, and connects again`() throws
    {
        let rig = try AdminRig()
        let line = try rig.line()
        var peer: ScriptedPeer? = try rig.peer(of: line)
        _ = try rig.manager.execute(.unmapAll, for: line.id, room: 8)
        // The peer goes, and the device has nowhere to say so.
        withExtendedLifetime(peer) {}
        peer = nil
        try rig.wait("the driver's reset") { line.host.connection == nil }
        try rig.wait("a new start") {
            try line.transport.status().contains(.driverOK)
                && !line.transport.status().contains(.needsReset)
        }
        let next = try rig.peer(of: line)
        next.post(1, bytes: [5, 6])
        #expect(try receive(#require(line.host.connection)) == [[5, 6]])
    }
}
