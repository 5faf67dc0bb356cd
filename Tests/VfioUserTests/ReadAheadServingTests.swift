import HostSystem
import PCI
import Synchronization
import Testing

@testable import VfioUser

/// Messages that are read together with others, which the socket does not tell of any more.
@Suite struct ReadAheadServingTests {
    private let access = RegionAccess(offset: 0, region: 0, count: 4).encoded

    @Test func `VFU-H-10: more commands than a turn takes are all answered, in order`() throws {
        let rig = try ServerRig(limits: ServerLimits(messagesPerTurn: 4))
        let caller = try rig.negotiated()
        var bytes: [UInt8] = []
        for id in 0..<100 as Range<UInt16> { bytes += message(.regionRead, id: id, access) }
        try caller.say(bytes)
        for id in 0..<100 as Range<UInt16> {
            #expect(MessageHeader(try #require(try caller.hear()))?.identifier == id)
        }
        #expect(rig.server.refusals.isEmpty)
    }

    @Test func `VFU-S-47: commands behind replies that were not read at first are answered`() throws
    {
        let rig = try ServerRig()
        let caller = try rig.negotiated()
        // More replies than the socket holds, so that the server stops with commands in its hands.
        let long = RegionAccess(offset: 0, region: 2, count: 4096).encoded
        var sent: UInt16 = 0
        for _ in 0..<20 {
            var bytes: [UInt8] = []
            for _ in 0..<60 {
                bytes += message(.regionRead, id: sent, long)
                sent += 1
            }
            guard try caller.socket.send(bytes[...]) == bytes.count else {
                Issue.record("the socket is full of commands")
                return
            }
            try rig.turns(5)
        }
        let deadline = Deadline(milliseconds: 20_000)
        var heard: UInt16 = 0
        while heard < sent, !deadline.hasPassed {
            // What did not fit is sent when the server looks again.
            guard let reply = try caller.hear() else {
                try rig.turns(1, milliseconds: 5)
                continue
            }
            try #require(MessageHeader(reply)?.identifier == heard)
            heard += 1
        }
        #expect(heard == sent)
        #expect(rig.server.refusals.isEmpty && rig.server.isConnected)
    }

    @Test func `VFU-H-12: what the kernel cut ends the connection after the commands before it`()
        throws
    {
        let rig = try ServerRig()
        let caller = try rig.negotiated()
        let event = try EventFD().descriptor
        let set = InterruptSet(flags: [.eventDescriptors, .trigger], index: .msix, count: 40)
        let cut = message(.deviceSetIRQs, id: 6, set.encoded)
        try caller.say(message(.regionRead, id: 5, access))
        let sent = sendMany(cut, [Int32](repeating: event.rawValue, count: 40), over: caller.socket)
        #expect(sent == cut.count)
        let first = MessageHeader(try #require(try caller.hear()))
        #expect(first?.identifier == 5 && first?.error == 0)
        let second = MessageHeader(try #require(try caller.hear()))
        #expect(second?.identifier == 6 && second?.error == 22)
        #expect(try caller.isClosed() && rig.server.refusals == [.truncated: 1])
    }

    @Test func `VFU-C-06: what the server asks right behind its reply is answered`() throws {
        let server = try ScriptedServer { message in
            guard message.command == .regionRead, RegionAccess(message.payload)?.region == 0 else {
                return nil
            }
            let reply = ScriptedServer.header(message, 20).encoded + message.payload + [1, 2, 3, 4]
            let ask = DMAAccess(address: 0x1000, count: 4).encoded
            let command = MessageHeader(
                identifier: 0x7000,
                command: Command.dmaRead.rawValue,
                messageSize: UInt32(MessageHeader.size + ask.count)
            )
            // One piece, which the client reads at once.
            return [.raw(reply + command.encoded + ask), .hear]
        }
        let client = try server.client()
        #expect(try client.readRegister(0, 0, .long) == 0x0403_0201)
        #expect(client.counters.refusedCommands == 1, "there is no memory at that address")
        #expect(try client.readConfiguration(0, .long) == 0x107e_1af4)
        #expect(server.heard.map(\.header.identifier) == [0x7000])
    }

    @Test func `VFU-C-06: what the server asks right behind an error is answered`() throws {
        let server = try ScriptedServer { message in
            guard message.command == .regionRead, RegionAccess(message.payload)?.region == 0 else {
                return nil
            }
            let error = ScriptedServer.header(message, 0, error: 5).encoded
            let ask = DMAAccess(address: 0x1000, count: 4).encoded
            let command = MessageHeader(
                identifier: 0x7000,
                command: Command.dmaRead.rawValue,
                messageSize: UInt32(MessageHeader.size + ask.count)
            )
            return [.raw(error + command.encoded + ask), .hear]
        }
        let client = try server.client()
        #expect(throws: PCIError.self) { try client.readRegister(0, 0, .long) }
        #expect(client.counters.refusedCommands == 1 && client.fault == nil)
        #expect(try client.readConfiguration(0, .long) == 0x107e_1af4)
        #expect(server.heard.map(\.header.identifier) == [0x7000])
    }

    @Test func `VFU-C-07: a server that asks without end instead of answering is given up`() throws
    {
        let server = try ScriptedServer { message in
            guard message.command == .regionRead, RegionAccess(message.payload)?.region == 0 else {
                return nil
            }
            // Posted accesses of a length that no read ends with, for much longer than the limit.
            let ask =
                DMAAccess(address: 0x1000, count: 23).encoded + [UInt8](repeating: 0, count: 23)
            let command = MessageHeader(
                identifier: 0x7000,
                command: Command.dmaWrite.rawValue,
                messageSize: UInt32(MessageHeader.size + ask.count),
                flags: .noReply
            )
            let piece = (0..<400).flatMap { _ in command.encoded + ask }
            return [ScriptedServer.Step](repeating: .flood(piece), count: 1)
        }
        var limits = ClientLimits()
        limits.reply = 300
        let client = try server.client(limits)
        let start = MonotonicClock.now
        #expect(refusal { _ = try client.readRegister(0, 0, .long) } == "vfu/stall")
        #expect(MonotonicClock.now - start < 5_000_000_000)
        #expect(client.fault?.id == "vfu/stall")
    }

    @Test func `HI-E40: a second reply right behind the first ends the connection`() throws {
        let server = try ScriptedServer { message in
            guard message.command == .regionRead, RegionAccess(message.payload)?.region == 0 else {
                return nil
            }
            let reply = ScriptedServer.header(message, 20).encoded + message.payload + [1, 2, 3, 4]
            return [.raw(reply + reply)]
        }
        let client = try server.client()
        #expect(try client.readRegister(0, 0, .long) == 0x0403_0201)
        #expect(client.fault?.id == "vfu/reply")
        #expect(refusal { _ = try client.readConfiguration(0, .long) } == "vfu/reply")
    }
}
