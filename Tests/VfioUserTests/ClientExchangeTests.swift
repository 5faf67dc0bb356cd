import GuestMemory
import HostSystem
import PCI
import Synchronization
import Testing

@testable import VfioUser

@Suite struct ClientExchangeTests {
    /// A server that answers the first register read of BAR 0 so.
    private func server(
        _ steps: @escaping @Sendable (ScriptedServer.Message) -> [ScriptedServer.Step]
    ) throws -> ScriptedServer {
        try ScriptedServer { message in
            guard message.command == .regionRead, RegionAccess(message.payload)?.region == 0 else {
                return nil
            }
            return steps(message)
        }
    }

    private func refusalOfRead(
        _ steps: @escaping @Sendable (ScriptedServer.Message) -> [ScriptedServer.Step]
    ) throws -> String? {
        let client = try server(steps).client()
        let id = refusal { _ = try client.readRegister(0, 0, .long) }
        // Whatever it was, it is the end: every call says the same.
        if id != nil {
            #expect(client.fault?.id == id)
            #expect(refusal { _ = try client.readConfiguration(0, .long) } == id)
            #expect(refusal { try client.reset() } == id)
        }
        return id
    }

    private static func good(_ message: ScriptedServer.Message) -> [UInt8] {
        message.payload + [1, 2, 3, 4]
    }

    @Test func `registers and configuration are written and read`() throws {
        let server = try ScriptedServer()
        let client = try server.client()
        for (offset, width) in [(0, AccessWidth.byte), (2, .word), (4, .long), (7, .long)] {
            try client.writeRegister(0, UInt64(offset), width, 0x8765_4321)
            let read = try client.readRegister(0, UInt64(offset), width)
            #expect(read == 0x8765_4321 & (UInt32.max >> UInt32(32 - 8 * width.rawValue)))
        }
        #expect(try client.readConfiguration(0, .long) == 0x107e_1af4)
        try client.writeConfiguration(4, .word, 6)
        #expect(try client.readConfiguration(4, .word) == 6)
        #expect(try client.barSize(0) == 4096)
        #expect(try client.barSize(1) == 0)
        #expect(try client.barSize(-1) == 0)
        #expect(try client.barSize(7) == 0)
    }

    @Test func `what lies beyond configuration space reads as ones, without a message`() throws {
        let server = try ScriptedServer()
        let client = try server.client()
        let before = server.messages.count
        #expect(try client.readConfiguration(256, .long) == UInt32.max)
        #expect(try client.readConfiguration(-4, .word) == 0xffff)
        #expect(try client.readConfiguration(.max, .byte) == 0xff)
        try client.writeConfiguration(256, .long, 0)
        #expect(server.messages.count == before)
        #expect(try client.readConfiguration(254, .long) == 0xffff_0000)
    }

    @Test(
        arguments: [(0, 4093), (0, 4096), (0, .max), (1, 0), (6, 0), (7, 0), (-1, 0)]
            as [(Int, UInt64)]
    )
    func `an access outside its BAR never leaves`(_ bar: Int, _ offset: UInt64) throws {
        let server = try ScriptedServer()
        let client = try server.client()
        let before = server.messages.count
        #expect(throws: PCIError.self) { try client.readRegister(bar, offset, .long) }
        #expect(throws: PCIError.self) { try client.writeRegister(bar, offset, .long, 0) }
        #expect(throws: PCIError.self) { try client.doorbell(bar, offset, value: 0) }
        #expect(server.messages.count == before)
    }

    @Test func `HI-E40: a reply with another id ends the connection`() throws {
        let id = try refusalOfRead { message in
            var header = ScriptedServer.header(message, 20)
            header.identifier &+= 1
            return [.raw(header.encoded + Self.good(message))]
        }
        #expect(id == "vfu/reply")
    }

    @Test(arguments: [1, 2, 3, 4, 0xe] as [UInt32])
    func `HI-E40: a reply to another command, or of no known type, ends it`(_ type: UInt32) throws {
        let id = try refusalOfRead { message in
            var header = ScriptedServer.header(message, 20)
            if type == 1 { header.command = 10 }
            header.flags = MessageHeader.Flags(rawValue: type)
            return [.raw(header.encoded + Self.good(message))]
        }
        #expect(id == "vfu/reply")
    }

    @Test(arguments: [0, 15, 16, 19, 21, 4096])
    func `HI-E40: a reply of another size ends the connection`(_ count: Int) throws {
        let id = try refusalOfRead { _ in [.reply([UInt8](repeating: 0, count: count))] }
        #expect(id == "vfu/reply")
    }

    @Test func `HI-E40: a reply for another place ends the connection`() throws {
        let id = try refusalOfRead { message in
            var bytes = Self.good(message)
            bytes[0] = 8
            return [.reply(bytes)]
        }
        #expect(id == "vfu/reply")
    }

    @Test func `HI-E40: descriptors where none belong end the connection`() throws {
        let event = try EventFD()
        let id = try refusalOfRead { [.reply(Self.good($0), [event.descriptor])] }
        #expect(id == "vfu/reply")
    }

    @Test func `HI-E40: an error with a payload ends the connection`() throws {
        let id = try refusalOfRead { message in
            var header = ScriptedServer.header(message, 4, error: 22)
            header.messageSize = 20
            return [.raw(header.encoded + [1, 2, 3, 4])]
        }
        #expect(id == "vfu/reply")
    }

    @Test(
        arguments: [(5, 5), (1, 1), (4095, 4095), (0, 22), (4096, 22), (.max, 22)]
            as [(UInt32, Int32)]
    )
    func `HI-E40: an error number is told, one that is none counts as EINVAL`(
        _ sent: UInt32,
        _ told: Int32
    ) throws {
        let client = try server { _ in [.refuse(sent)] }.client()
        #expect(errorNumber { _ = try client.readRegister(0, 0, .long) } == told)
        // The connection lives.
        #expect(try client.readConfiguration(0, .word) == 0x1af4)
        #expect(client.fault == nil)
    }

    @Test(arguments: [0, 15, 2 << 20, .max] as [UInt32])
    func `HI-E40: a message of impossible length ends the connection`(_ size: UInt32) throws {
        let id = try refusalOfRead { message in
            var header = ScriptedServer.header(message, 20)
            header.messageSize = size
            return [.raw(header.encoded)]
        }
        #expect(id == "vfu/size")
    }

    @Test func `VFU-C-07: a server that is silent makes the device count as broken`() throws {
        let server = try server { _ in [.pause(2000)] }
        var limits = ClientLimits()
        #expect(limits.reply == 5000)
        limits.reply = 50
        let client = try server.client(limits)
        let start = MonotonicClock.now
        #expect(refusal { _ = try client.readRegister(0, 0, .long) } == "vfu/stall")
        let waited = (MonotonicClock.now - start) / 1_000_000
        #expect((50..<2000).contains(waited))
        // Broken is broken: nothing waits a second time.
        let again = MonotonicClock.now
        #expect(refusal { _ = try client.readRegister(0, 0, .long) } == "vfu/stall")
        #expect((MonotonicClock.now - again) / 1_000_000 < 50)
    }

    @Test func `VFU-C-07: half a reply, and no more, is as silent`() throws {
        var limits = ClientLimits()
        limits.reply = 400
        let half = try server { message in
            [.raw(ScriptedServer.header(message, 20).encoded + [1, 2]), .pause(2000)]
        }
        let client = try half.client(limits)
        #expect(refusal { _ = try client.readRegister(0, 0, .long) } == "vfu/stall")
    }

    @Test func `VFU-C-07: a late reply is never taken for another one`() throws {
        var limits = ClientLimits()
        limits.reply = 400
        let server = try server { [.pause(900), .reply(Self.good($0))] }
        let client = try server.client(limits)
        #expect(refusal { _ = try client.readRegister(0, 0, .long) } == "vfu/stall")
        pauseMilliseconds(700)
        #expect(refusal { _ = try client.readConfiguration(0, .word) } == "vfu/stall")
    }

    @Test func `HI-E44: a server that goes is named at once`() throws {
        let client = try server { _ in [.close] }.client()
        let start = MonotonicClock.now
        #expect(refusal { _ = try client.readRegister(0, 0, .long) } == "vfu/peer-gone")
        #expect(MonotonicClock.now - start < 1_000_000_000)
    }

    @Test func `HI-E44: a server that goes in the middle of a reply is named`() throws {
        let client = try server { [.raw(ScriptedServer.header($0, 20).encoded + [1]), .close] }
            .client()
        #expect(refusal { _ = try client.readRegister(0, 0, .long) } == "vfu/peer-gone")
    }

    @Test func `HI-E44: the application is told within a second while nothing is asked`() throws {
        let server = try server { [.reply(Self.good($0)), .pause(50), .close] }
        let client = try server.client()
        let loop = try EventLoop()
        let told = Mutex<HostRefusal?>(nil)
        try client.watch(on: loop) { refusal in told.withLock { $0 = refusal } }
        _ = try client.readRegister(0, 0, .long)
        let start = MonotonicClock.now
        while told.withLock({ $0 == nil }), MonotonicClock.now - start < 2_000_000_000 {
            try loop.turn(limitMilliseconds: 100)
        }
        #expect(told.withLock { $0?.id } == "vfu/peer-gone")
        #expect(MonotonicClock.now - start < 1_000_000_000)
        #expect(client.fault?.id == "vfu/peer-gone")
    }

    @Test func `HI-E44: a server that comes again serves a new client, which begins with a reset`()
        throws
    {
        let server = try server { _ in [.close] }
        let first = try server.client()
        #expect(refusal { _ = try first.readRegister(0, 0, .long) } == "vfu/peer-gone")
        let second = try server.client()
        #expect(try second.readConfiguration(0, .word) == 0x1af4)
        #expect(server.messages(.deviceReset).count == 2)
        #expect(first.fault != nil)
        #expect(second.fault == nil)
    }

    @Test func `VFU-C-04: accesses are split at the server's limit, in order`() throws {
        let answer = ScriptedServer.version(#"{"capabilities":{"max_data_xfer_size":300}}"#)
        let server = try ScriptedServer { $0.command == .version ? [.reply(answer)] : nil }
        let client = try server.client()
        let bytes = (0..<1000).map { UInt8(truncatingIfNeeded: $0) }
        try client.writeBytes(0, 100, bytes)
        #expect(try client.readBytes(0, 100, 1000) == bytes)
        for command in [Command.regionWrite, .regionRead] {
            let accesses = server.messages(command).compactMap { RegionAccess($0.payload) }
            #expect(accesses.map(\.offset) == [100, 400, 700, 1000])
            #expect(accesses.map(\.count) == [300, 300, 300, 100])
        }
    }

    @Test func `VFU-C-04: a register is read in pieces where the server takes no more`() throws {
        let answer = ScriptedServer.version(#"{"capabilities":{"max_data_xfer_size":1}}"#)
        let server = try ScriptedServer { $0.command == .version ? [.reply(answer)] : nil }
        let client = try server.client()
        try client.writeRegister(0, 8, .long, 0x1122_3344)
        #expect(try client.readRegister(0, 8, .long) == 0x1122_3344)
        #expect(server.messages(.regionWrite).count == 4)
    }

    @Test func `VFU-C-04: descriptors are split at the server's limit`() throws {
        let server = try ScriptedServer { message in
            guard message.command == .deviceGetIRQInfo else { return nil }
            let flags: InterruptInfo.Flags = [.eventDescriptor, .noResize]
            return [.reply(InterruptInfo(flags: flags, index: 2, count: 40).encoded)]
        }
        let client = try server.client()
        try client.connectInterrupt(36, to: EventFD())
        let sets = server.messages(.deviceSetIRQs)
        #expect(sets.map(\.descriptors.count) == [0, 16, 16, 5])
        let changes = sets.compactMap { InterruptSet($0.payload) }
        #expect(changes.map(\.start) == [0, 0, 16, 32])
        #expect(changes.map(\.count) == [0, 16, 16, 5])
    }

    @Test func `VFU-C-08: every command asks for its reply, so that order is kept`() throws {
        let server = try ScriptedServer()
        let client = try server.client()
        try client.writeRegister(0, 0, .long, 7)
        #expect(try client.readRegister(0, 0, .long) == 7)
        try client.connectInterrupt(0, to: EventFD())
        let arena = try client.makeArena(size: 4096)
        try client.releaseArena(arena)
        #expect(server.messages.allSatisfy { !$0.header.flags.contains(.noReply) })
        let ids = server.messages.map(\.header.identifier)
        #expect(Set(ids).count == ids.count)
    }

    @Test func `interrupts are connected one by one, and taken away`() throws {
        let server = try ScriptedServer()
        let client = try server.client()
        #expect(try client.interruptVectorCount == ScriptedServer.vectors)
        let event = try EventFD()
        try client.connectInterrupt(5, to: event)
        try client.connectInterrupt(2, to: event)
        try client.connectInterrupt(5, to: nil)
        try client.connectInterrupt(9, to: nil)
        let sets = server.messages(.deviceSetIRQs)
        let changes = sets.compactMap { InterruptSet($0.payload) }
        #expect(changes.map(\.start) == [5, 2, 5, 9])
        #expect(changes.allSatisfy { $0.flags == [.eventDescriptors, .trigger] && $0.count == 1 })
        #expect(sets.map(\.descriptors.count) == [1, 1, 0, 0])
        sets[0].descriptors.first.map { _ = EventFD.signal($0.rawValue) }
        #expect(event.drain() == 1)
        // MSI-X is switched on, as a kernel does it.
        #expect(server.bytes(7)[0x43] & 0x80 != 0)
        for vector in [-1, ScriptedServer.vectors] {
            #expect(throws: PCIError.self) { try client.connectInterrupt(vector, to: event) }
        }
    }
}
