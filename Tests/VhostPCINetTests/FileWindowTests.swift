import FunctionSupport
import GuestMemory
import HostSystem
import PCI
import Testing
import VhostUser
import Virtio
import VirtioSpec
import Virtqueue

@testable import VhostPCINet

/// Windows by rule F, from a peer's first message to a driver that works in its memory.
@Suite struct FileWindowTests {
    private func second(size: Int = 1 << 16, at guest: UInt64 = 0x100_0000) throws
        -> ScriptedPeer.Region
    {
        ScriptedPeer.Region(
            guestAddress: guest,
            file: try MemoryFile(name: "second", size: size).descriptor,
            size: size
        )
    }

    @Test func `VPN-D-27: the function is made when the memory of a peer is known`() throws {
        let rig = try FileRig()
        #expect(rig.function == nil)
        let peer = try rig.peer()
        try peer.negotiate()
        #expect(rig.function == nil)
        try peer.setMemory()
        // More may come, until a ring is started.
        #expect(rig.function == nil)
        try peer.startAll()
        try rig.wait("windows") { rig.function != nil }
        let function = try #require(rig.function)
        #expect(rig.device.phase == .waitDriver)
        #expect(function.barSize(2) == UInt64(ScriptedPeer.memorySize))
        #expect(function.barSize(4) == 0)
        let file = try #require(function.windowFile(2))
        #expect(file.identity == (try peer.file.status().identity))
        #expect(file.offset == 0)
        #expect(file.areas == [0..<UInt64(ScriptedPeer.memorySize)])
        #expect(function.windowFile(4) == nil)
        #expect(function.windowFile(0) == nil)
    }

    @Test func `VPN-D-27, VPN-D-13: what the file has at an offset the BAR has there`() throws {
        let rig = try FileRig()
        let peer = try rig.connected()
        peer[0x12345] = 0x5a
        let bar = rig.device.peerWindow
        #expect(unsafe bar.address.load(fromByteOffset: 0x12345, as: UInt8.self) == 0x5a)
        let memory = try #require(rig.host.connection).memory
        #expect(memory.read(peer.guestAddress(0x12345), 1) == [0x5a])
        #expect(memory.write([0xa5], at: peer.guestAddress(0x12345)))
        #expect(peer[0x12345] == 0xa5)
    }

    @Test func `VPN-D-28, VPN-M-19: a second file is BAR 4 and is reached through it`() throws {
        let rig = try FileRig()
        let other = try second()
        let peer = try rig.connected(more: [other])
        let function = try #require(rig.function)
        #expect(function.barSize(4) == 1 << 16)
        #expect(try function.windowFile(4)?.identity == other.file.status().identity)
        let shared = try #require(rig.transport).sharedMemory
        #expect(shared[0]?.bar == 2)
        #expect(shared[1]?.bar == 4)
        #expect(shared[1]?.length == 1 << 16)
        let memory = try #require(rig.host.connection).memory
        #expect(memory.write([1, 2, 3], at: other.guestAddress + 0x100))
        let theirs = try Mapping.file(other.file, offset: 0, length: other.size)
        #expect(unsafe theirs.address.load(fromByteOffset: 0x102, as: UInt8.self) == 3)
        peer[0] = 9
        #expect(memory.read(ScriptedPeer.guestBase, 1) == [9])
    }

    @Test func `VPN-D-27: memory that comes in pieces is laid out once`() throws {
        let rig = try FileRig()
        let peer = try rig.peer()
        try peer.negotiate()
        try peer.setMemory()
        peer.regions.append(try second())
        try peer.setMemory()
        #expect(rig.layouts == 0)
        try peer.startAll()
        try rig.wait("windows") { rig.function != nil }
        #expect(rig.layouts == 1)
        #expect(rig.function?.barSize(4) == 1 << 16)
    }

    @Test func `VPN-D-28: a peer with three files is disconnected by name`() throws {
        let rig = try FileRig()
        let peer = try rig.peer(more: [second(), second(at: 0x200_0000)])
        try peer.negotiate()
        try peer.setMemory()
        try? peer.startAll()
        try rig.wait("the end") { try peer.sawClose() }
        #expect(rig.refusals == ["mem/files"])
        #expect(rig.function == nil)
        #expect(rig.device.phase == .reset)
    }

    @Test func `VPN-D-26: a peer that needs a longer window than is made is disconnected`() throws {
        var options = VhostPCINetDevice.Options()
        options.largestWindow = UInt64(ScriptedPeer.memorySize / 2)
        let rig = try FileRig(options: options)
        let peer = try rig.peer()
        try peer.negotiate()
        try peer.setMemory()
        try? peer.startAll()
        try rig.wait("the end") { try peer.sawClose() }
        #expect(rig.refusals == ["mem/window"])
    }

    @Test func `VPN-D-29: a peer that comes back with its file is shown again`() throws {
        let rig = try FileRig()
        let file = try rig.connectAndLeave()
        for round in 0..<3 as Range<UInt8> {
            let peer = try rig.connected(file: file)
            peer[0x20000] = round
            let memory = try #require(rig.host.connection).memory
            #expect(memory.read(peer.guestAddress(0x20000), 1) == [round])
            rig.device.backend?.disconnect("the end of a round")
            try rig.wait("OFF") { rig.host.connection == nil }
        }
        #expect(rig.layouts == 1)
        #expect(rig.refusals.isEmpty)
    }

    @Test func `VPN-D-29: while a client has seen the windows, other files are refused`() throws {
        let rig = try FileRig()
        let file = try rig.connectAndLeave()
        let stranger = try rig.peer()
        try stranger.negotiate()
        try stranger.setMemory()
        try? stranger.startAll()
        try rig.wait("the end") { try stranger.sawClose() }
        #expect(rig.refusals == ["mem/file"])
        #expect(rig.layouts == 1)
        // What it had mapped is what a client is told of still.
        #expect(try rig.function?.windowFile(2)?.identity == file.status().identity)
        let again = try rig.connected(file: file)
        withExtendedLifetime(again) {}
    }

    @Test func `VPN-D-29: without a client the windows are laid out anew`() throws {
        let rig = try FileRig()
        _ = try rig.connectAndLeave()
        try rig.loseDriver()
        let other = try second()
        let stranger = try rig.connected(more: [other])
        #expect(rig.layouts == 2)
        #expect(rig.function?.barSize(4) == 1 << 16)
        stranger[0] = 3
        let memory = try #require(rig.host.connection).memory
        #expect(memory.read(ScriptedPeer.guestBase, 1) == [3])
    }

    @Test func `VPN-D-24: a lost driver lets the peer go, and both can come again`() throws {
        let rig = try FileRig()
        let peer = try rig.connected()
        try rig.loseDriver()
        try rig.wait("the end") { try peer.sawClose() }
        #expect(rig.device.phase == .reset)
        // The front-end is back first and negotiates everything with nobody to work for.
        let again = try rig.peer(file: peer.file)
        try again.connect()
        try rig.wait("peer") { rig.device.phase == .waitDriver }
        #expect(again.offered.contains(ScriptedPeer.allFeatures))
        try rig.startDriver()
        try rig.wait("ON") { rig.isOn }
        #expect(rig.layouts == 1)
        again[0x20001] = 7
        let memory = try #require(rig.host.connection).memory
        #expect(memory.read(again.guestAddress(0x20001), 1) == [7])
    }

    @Test
    func `VPN-D-13, VFU-S-43: an access that is trapped reaches the peer's byte at any width`()
        throws
    {
        let rig = try FileRig()
        let peer = try rig.connected()
        let bus = try #require(rig.bus)
        for (offset, bytes) in [
            (0x30000, 4), (0x30001, 4), (0x30006, 2), (0x30009, 2), (0x3000b, 1),
        ] {
            let width = try #require(AccessWidth(rawValue: bytes))
            let value = UInt32(0xdead_beef) >> UInt32(32 - 8 * bytes)
            try bus.writeRegister(2, UInt64(offset), width, value)
            #expect(try bus.readRegister(2, UInt64(offset), width) == value)
            let seen = (0..<bytes).reduce(UInt32(0)) {
                $0 | UInt32(peer[offset + $1]) << UInt32(8 * $1)
            }
            #expect(seen == value)
        }
    }

    @Test func `HI-I11: a trapped access to memory that was cut short reads zero`() throws {
        let rig = try FileRig()
        let peer = try rig.connected(isSealed: false)
        let bus = try #require(rig.bus)
        peer[0x30000] = 1
        #expect(try bus.readRegister(2, 0x30000, .long) == 1)
        try PeerMemory.truncate(peer.file, to: 0)
        #expect(try bus.readRegister(2, 0x30000, .long) == 0)
        try bus.writeRegister(2, 0x30003, .long, .max)
        try rig.wait("the end") { try peer.sawClose() }
        #expect(rig.refusals.contains("mem/truncated"))
    }

    @Test func `HI-I11: a file that only the client touches takes the link down when it is cut`()
        throws
    {
        let rig = try FileRig()
        let peer = try rig.connected(isSealed: false)
        try PeerMemory.truncate(peer.file, to: 0x1000)
        try rig.wait("the end") { try peer.sawClose() }
        try rig.wait("OFF") { rig.host.connection == nil }
        #expect(rig.refusals == ["mem/truncated"])
        let told = rig.events.map(\.description).filter { $0.contains("mem/truncated") }
        #expect(told.contains { $0.contains("inode") && $0.contains("0x") })
        // As long as it was, the same memory is welcome again.
        try PeerMemory.truncate(peer.file, to: UInt64(ScriptedPeer.memorySize))
        _ = try rig.connected(file: peer.file)
        #expect(rig.refusals == ["mem/truncated"])
    }

    @Test func `HI-I11: a driver whose messages lie in memory that was cut has to begin anew`()
        throws
    {
        let rig = try FileRig()
        let peer = try rig.connected()
        let function = try #require(rig.function)
        let host = CutHost(try #require(rig.bus))
        function.attach(host)
        try host.cut()
        try rig.wait("NEEDS_RESET") { function.fault != nil }
        #expect(function.fault?.id == "mem/truncated")
        #expect(function.incidents["mem/truncated"] == 1)
        #expect(rig.refusals == ["mem/truncated"])
        withExtendedLifetime(peer) {}
    }

    @Test func `VPN-D-26: a given window takes what fits and is never exchanged`() throws {
        var options = VhostPCINetDevice.Options()
        options.placement = .file
        let rig = try LoopRig(windowSize: ScriptedPeer.memorySize, options: options)
        var peer: ScriptedPeer? = try rig.connected()
        #expect(rig.device.peerWindowFile(2)?.areas == [0..<UInt64(ScriptedPeer.memorySize)])
        peer?[5] = 5
        #expect(unsafe rig.window.address.load(fromByteOffset: 5, as: UInt8.self) == 5)
        peer = nil
        try rig.wait("OFF") { rig.host.connection == nil }
        let large = try rig.peer()
        large.regions = [
            ScriptedPeer.Region(
                guestAddress: 0,
                file: try MemoryFile(name: "large", size: 1 << 20).descriptor,
                size: 1 << 20
            )
        ]
        try large.negotiate()
        try large.setMemory()
        try? large.startAll()
        try rig.wait("the end") { try large.sawClose() }
        #expect(rig.refusals() == ["mem/window"])
    }

    @Test func `a window that is part of a BAR has no file that a client could map`() throws {
        var options = VhostPCINetDevice.Options()
        options.placement = .file
        let rig = try LoopRig(slice: 0x10000, options: options)
        let peer = try rig.connected()
        #expect(rig.device.peerWindowFile(2) == nil)
        peer[1] = 8
        let memory = try #require(rig.host.connection).memory
        #expect(memory.read(peer.guestAddress(1), 1) == [8])
    }
}
