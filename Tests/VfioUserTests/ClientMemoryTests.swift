import GuestMemory
import HostSystem
import PCI
import Testing

@testable import VfioUser

@Suite struct ClientMemoryTests {
    /// A server that does this when BAR 0 is read, then answers the read.
    private func server(
        _ steps: @escaping @Sendable (ScriptedServer.Message) -> [ScriptedServer.Step]
    ) throws -> ScriptedServer {
        try ScriptedServer { message in
            guard message.command == .regionRead, RegionAccess(message.payload)?.region == 0 else {
                return nil
            }
            return steps(message) + [.reply(message.payload + [1, 2, 3, 4])]
        }
    }

    /// What the client answers to a command of the server that comes instead of its reply.
    private func answer(
        _ command: UInt16,
        _ payload: [UInt8],
        _ descriptors: [FileDescriptor] = []
    ) throws -> (ScriptedServer.Message, DMABuffer, Client) {
        let server = try server { _ in [.command(command, payload, descriptors), .hear] }
        let client = try server.client()
        let arena = try client.makeArena(size: 8192)
        #expect(arena.deviceAddress == Self.address)
        let buffer = try #require(arena.allocate(4096))
        #expect(buffer.deviceAddress == Self.address)
        buffer.write((0..<64).map { UInt8($0) })
        #expect(try client.readRegister(0, 0, .long) == 0x0403_0201)
        return (try #require(server.heard.first), buffer, client)
    }

    /// Where the first arena is.
    private static let address: UInt64 = 1 << 32

    private func access(_ address: UInt64, _ count: UInt64) -> [UInt8] {
        DMAAccess(address: address, count: count).encoded
    }

    @Test func `VFU-C-05: the server reads memory while a reply is awaited`() throws {
        let asked = access(Self.address + 8, 16)
        let (reply, _, client) = try answer(11, asked)
        #expect(reply.header.flags == .reply)
        #expect(reply.header.identifier == 0x7000)
        #expect(reply.header.command == 11)
        #expect(reply.payload == asked + (8..<24).map { UInt8($0) })
        #expect(client.counters.servedAccesses == 1)
        #expect(client.counters.refusedCommands == 0)
    }

    @Test func `VFU-C-05: the server writes memory while a reply is awaited`() throws {
        let asked = access(Self.address + 4, 3)
        let (reply, buffer, _) = try answer(12, asked + [0xa, 0xb, 0xc])
        #expect(reply.header.flags == .reply)
        #expect(reply.payload == asked)
        #expect(buffer.read(count: 8) == [0, 1, 2, 3, 0xa, 0xb, 0xc, 7])
    }

    @Test func `VFU-C-05: commands of the server are served between commands, too`() throws {
        let server = try ScriptedServer { message in
            guard message.command == .regionWrite else { return nil }
            let access = RegionAccess(message.payload)?.encoded ?? []
            let read = DMAAccess(address: Self.address, count: 4).encoded
            return [.reply(access), .pause(20), .command(11, read), .hear]
        }
        let client = try server.client()
        let arena = try client.makeArena(size: 4096)
        try client.writeRegister(0, 0, .long, 0)
        let deadline = Deadline(milliseconds: 5000)
        while server.heard.isEmpty, !deadline.hasPassed { pauseMilliseconds(5) }
        #expect(server.heard.first?.payload.count == 20)
        withExtendedLifetime((client, arena)) {}
    }

    private static let unmapped: [(UInt64, UInt64)] = [
        (0, 4), (1, 4), (address - 1, 1), (address - 2, 4), (address + 8192, 1),
        (address + 8190, 4), (.max, 1), (.max, 2), (.max - 1, 4),
    ]

    @Test(arguments: unmapped)
    func `VFU-C-06, HI-E43: what is not mapped is refused with ENODEV`(
        _ address: UInt64,
        _ count: UInt64
    ) throws {
        let (read, _, client) = try answer(11, access(address, count))
        #expect(read.header.flags == [.reply, .error])
        #expect(read.header.error == 19)
        #expect(read.payload.isEmpty)
        #expect(client.counters.refusedCommands == 1)
        let bytes = [UInt8](repeating: 0xff, count: Int(count))
        let (write, buffer, _) = try answer(12, access(address, count) + bytes)
        #expect(write.header.error == 19)
        #expect(buffer.read(count: 64) == (0..<64).map { UInt8($0) })
    }

    @Test(arguments: [(1 << 20) + 1, 1 << 32, .max] as [UInt64])
    func `VFU-C-06, HI-E43: more than the limit is refused with E2BIG`(_ count: UInt64) throws {
        #expect(try answer(11, access(Self.address, count)).0.header.error == 7)
        #expect(try answer(12, access(Self.address, count) + [1]).0.header.error == 7)
    }

    @Test func `VFU-C-06: a malformed command is refused with EINVAL`() throws {
        let good = access(Self.address, 4)
        #expect(try answer(11, Array(good.dropLast(4))).0.header.error == 22)
        #expect(try answer(11, []).0.header.error == 22)
        #expect(try answer(11, good + [1]).0.header.error == 22)
        #expect(try answer(12, good).0.header.error == 22)
        #expect(try answer(12, good + [1, 2, 3]).0.header.error == 22)
        #expect(try answer(12, good + [1, 2, 3, 4, 5]).0.header.error == 22)
    }

    @Test func `VFU-C-06: a command with descriptors is refused with EINVAL`() throws {
        let event = try EventFD()
        let (reply, _, client) = try answer(11, access(Self.address, 4), [event.descriptor])
        #expect(reply.header.error == 22)
        #expect(client.fault == nil)
    }

    @Test(arguments: [0, 1, 9, 13, 14, 15, 99, 0xffff] as [UInt16])
    func `VFU-C-06: an unknown command is refused with ENOSYS`(_ command: UInt16) throws {
        #expect(try answer(command, access(Self.address, 4)).0.header.error == 38)
    }

    @Test func `HI-E43: memory that was taken back is no longer reached`() throws {
        let read = access(Self.address, 4)
        let server = try server { _ in [.command(11, read), .hear] }
        let client = try server.client()
        let arena = try client.makeArena(size: 4096)
        _ = try client.readRegister(0, 0, .long)
        try client.releaseArena(arena)
        _ = try client.readRegister(0, 0, .long)
        #expect(server.heard.map(\.header.error) == [0, 19])
    }

    @Test func `VFU-C-05: a server that asks without end is bounded by the deadline`() throws {
        let read = access(Self.address, 4)
        var limits = ClientLimits()
        limits.reply = 200
        let server = try server { _ in
            (0..<100_000).flatMap { _ in [.command(11, read), .hear] as [ScriptedServer.Step] }
        }
        let client = try server.client(limits)
        let start = MonotonicClock.now
        #expect(refusal { _ = try client.readRegister(0, 0, .long) } == "vfu/stall")
        #expect(MonotonicClock.now - start < 3_000_000_000)
    }

    @Test func `an arena is handed over as a file, and taken back`() throws {
        let server = try ScriptedServer()
        let client = try server.client()
        let arena = try client.makeArena(size: 5000)
        #expect(arena.mapping.length == 8192)
        let message = try #require(server.messages(.dmaMap).first)
        let map = try #require(DMAMap(message.payload))
        #expect(map.address == arena.deviceAddress)
        #expect(map.length == 8192)
        #expect(map.flags == [.readable, .writable])
        let file = try #require(message.descriptors.first)
        let pages = try Mapping.file(file, offset: 0, length: 8192)
        unsafe pages.address.storeBytes(of: 0x77, toByteOffset: 100, as: UInt8.self)
        #expect(unsafe arena.mapping.address.load(fromByteOffset: 100, as: UInt8.self) == 0x77)
        let second = try client.makeArena(size: 4096)
        #expect(second.deviceAddress > arena.deviceAddress)
        try client.releaseArena(arena)
        let unmap = try #require(DMAUnmap(server.messages(.dmaUnmap)[0].payload))
        #expect(unmap.address == arena.deviceAddress)
        #expect(unmap.length == 8192)
        let third = try client.makeArena(size: 4096)
        #expect(third.deviceAddress == arena.deviceAddress)
        try client.unmapDMA(arena)
        #expect(server.messages(.dmaUnmap).count == 1)
    }

    @Test func `VFU-C-02: a server that takes no descriptors gets memory without`() throws {
        let answer = ScriptedServer.version(#"{"capabilities":{"max_msg_fds":0}}"#)
        let server = try ScriptedServer { $0.command == .version ? [.reply(answer)] : nil }
        let client = try server.client()
        _ = try client.makeArena(size: 4096)
        #expect(server.messages(.dmaMap).first?.descriptors.isEmpty == true)
        #expect(throws: PCIError.self) { try client.connectInterrupt(0, to: EventFD()) }
    }

    @Test func `memory that is not to be shared is reached by messages only`() throws {
        let server = try ScriptedServer()
        var limits = ClientLimits()
        limits.sharesMemory = false
        let client = try server.client(limits)
        _ = try client.makeArena(size: 4096)
        #expect(server.messages(.dmaMap).first?.descriptors.isEmpty == true)
        try client.connectInterrupt(0, to: EventFD())
    }

    @Test func `more arenas than the server takes are refused`() throws {
        let answer = ScriptedServer.version(
            #"{"capabilities":{"max_msg_fds":8,"max_dma_maps":2}}"#
        )
        let server = try ScriptedServer { $0.command == .version ? [.reply(answer)] : nil }
        let client = try server.client()
        let arenas = [try client.makeArena(size: 4096), try client.makeArena(size: 4096)]
        #expect(throws: PCIError.self) { try client.makeArena(size: 4096) }
        try client.releaseArena(arenas[0])
        _ = try client.makeArena(size: 4096)
    }

    @Test func `an arena that the server refuses leaves nothing behind`() throws {
        let server = try ScriptedServer { $0.command == .dmaMap ? [.refuse(28)] : nil }
        let client = try server.client()
        #expect(errorNumber { _ = try client.makeArena(size: 4096) } == 28)
        #expect(errorNumber { _ = try client.makeArena(size: 4096) } == 28)
        let maps = server.messages(.dmaMap).compactMap { DMAMap($0.payload) }
        #expect(maps.map(\.address) == [Self.address, Self.address])
        #expect(client.fault == nil)
    }

    @Test(arguments: [0, -1, .max])
    func `an arena of impossible size is refused`(_ size: Int) throws {
        let client = try ScriptedServer().client()
        #expect(throws: PCIError.self) { try client.makeArena(size: size) }
    }

    @Test func `HI-E40: another range given back than asked for ends the connection`() throws {
        let server = try ScriptedServer { message in
            guard message.command == .dmaUnmap else { return nil }
            return [.reply(DMAUnmap(address: 0, length: 4096).encoded)]
        }
        let client = try server.client()
        let arena = try client.makeArena(size: 4096)
        #expect(refusal { try client.releaseArena(arena) } == "vfu/reply")
    }
}
