import GuestMemory
import HostSystem
import Testing
import VfioUser

@Suite struct DMAExchangeTests {
    /// What became of an access.
    private final class Outcome {
        var result: Result<[UInt8], DMAError>?
        var calls = 0
        var then: DMACompletion {
            { result in
                self.result = result
                self.calls += 1
            }
        }
    }

    private struct Question: Equatable {
        var identifier: UInt16
        var command: UInt16
        var access: DMAAccess
        var bytes: [UInt8]
    }

    private func question(_ rig: SessionRig) throws -> Question? {
        guard let message = rig.session.nextDMA() else { return nil }
        let header = try #require(MessageHeader(message.header))
        try #require(header.isCommand && !header.flags.contains(.noReply))
        try #require(Int(header.messageSize) == message.header.count + message.payload.count)
        let access = try #require(DMAAccess(Array(message.header.dropFirst(16))))
        return Question(
            identifier: header.identifier,
            command: header.command,
            access: access,
            bytes: message.payload
        )
    }

    private func reply(_ rig: SessionRig, _ question: Question, _ bytes: [UInt8] = [])
        -> ServerSession.Step
    {
        rig.send(
            question.command,
            question.access.encoded + bytes,
            flags: .reply,
            id: question.identifier
        )
    }

    private func refuse(_ rig: SessionRig, _ question: Question, _ number: UInt32) {
        var frame = Frame()
        frame.header =
            MessageHeader(
                identifier: question.identifier,
                command: question.command,
                messageSize: 16,
                flags: [.reply, .error],
                error: number
            ).encoded
        _ = rig.session.accept(frame)
    }

    @Test func `VFU-S-45: memory without a file is read and written by message`() throws {
        let rig = try SessionRig()
        #expect(try rig.map(nil, at: 0x10000, length: 0x2000) == nil)
        let read = Outcome()
        rig.session.readDMA(0x10010, 4, then: read.then)
        let first = try #require(try question(rig))
        #expect(first.command == 11 && first.access == DMAAccess(address: 0x10010, count: 4))
        #expect(first.bytes.isEmpty && read.result == nil)
        #expect(try question(rig) == nil)
        #expect(reply(rig, first, [1, 2, 3, 4]).refused == nil)
        #expect(try question(rig) == nil)
        #expect(read.result == .success([1, 2, 3, 4]) && read.calls == 1)
        let write = Outcome()
        rig.session.writeDMA(0x10020, [9, 8], then: write.then)
        let second = try #require(try question(rig))
        #expect(second.command == 12 && second.bytes == [9, 8])
        #expect(second.access == DMAAccess(address: 0x10020, count: 2))
        _ = reply(rig, second)
        #expect(try question(rig) == nil && write.result == .success([]))
    }

    @Test func `VFU-S-45: no message is longer than the client takes`() throws {
        var small = Capabilities()
        small.transferSize = 1000
        let rig = try SessionRig(proposal: Version(capabilities: small).encoded)
        #expect(try rig.map(nil, at: 0, length: 0x10000) == nil)
        let bytes = (0..<2500).map { UInt8(truncatingIfNeeded: $0) }
        let write = Outcome()
        rig.session.writeDMA(100, bytes, then: write.then)
        var sent: [UInt8] = []
        for (address, count) in [(100, 1000), (1100, 1000), (2100, 500)] as [(UInt64, UInt64)] {
            let next = try #require(try question(rig))
            #expect(next.access == DMAAccess(address: address, count: count))
            sent += next.bytes
            _ = reply(rig, next)
        }
        #expect(try question(rig) == nil && write.result == .success([]) && sent == bytes)
        let read = Outcome()
        rig.session.readDMA(100, 2500, then: read.then)
        while let next = try question(rig) {
            let from = Int(next.access.address) - 100
            _ = reply(rig, next, Array(bytes[from..<(from + Int(next.access.count))]))
        }
        #expect(read.result == .success(bytes))
    }

    @Test func `VFU-S-45: a refused message is an error of the access, and not sent again`() throws
    {
        let rig = try SessionRig()
        #expect(try rig.map(nil, at: 0, length: 0x10000) == nil)
        for (number, seen) in [(19, 19), (7, 7), (0, 22), (5000, 22), (.max, 22)]
            as [(UInt32, Int32)]
        {
            let read = Outcome()
            rig.session.readDMA(0, 4, then: read.then)
            refuse(rig, try #require(try question(rig)), number)
            #expect(try question(rig) == nil)
            #expect(read.result == .failure(.refused(Errno(seen))) && read.calls == 1)
        }
    }

    @Test func `VFU-S-45: an answer of another length or place is an error`() throws {
        let rig = try SessionRig()
        #expect(try rig.map(nil, at: 0, length: 0x10000) == nil)
        for kind in 0..<3 {
            let read = Outcome()
            rig.session.readDMA(0, 4, then: read.then)
            var next = try #require(try question(rig))
            if kind == 0 { next.access.address = 1 }
            let step = reply(rig, next, [[1, 2, 3, 4], [1, 2, 3], [1, 2, 3, 4, 5]][kind])
            #expect(step.refused?.id == .reply && step.reply == nil)
            #expect(try question(rig) == nil)
            #expect(read.result == .failure(.refused(.ioFailure)))
        }
    }

    @Test func `VFU-S-14, VFU-S-17: what is not there, or not for this, is not asked for`() throws {
        let rig = try SessionRig()
        #expect(try rig.map(nil, at: 0x1000, length: 0x1000, flags: .readable) == nil)
        #expect(try rig.map(nil, at: 0x2000, length: 0x1000, flags: .writable) == nil)
        #expect(try rig.map(nil, at: 0x4000, length: 0x1000) == nil)
        for (address, count) in [
            (0, 1), (0xfff, 2), (0x1fff, 2), (0x2000, 1), (0x4fff, 2), (.max, 2), (.max, 1),
        ] as [(UInt64, Int)] {
            let read = Outcome()
            rig.session.readDMA(address, count, then: read.then)
            #expect(try question(rig) == nil && read.result == .failure(.notMapped))
        }
        let write = Outcome()
        rig.session.writeDMA(0x1000, [1], then: write.then)
        #expect(try question(rig) == nil && write.result == .failure(.notMapped))
        let nothing = Outcome()
        rig.session.readDMA(0, 0, then: nothing.then)
        #expect(try question(rig) == nil && nothing.result == .success([]))
    }

    @Test func `VFU-S-17: an access over a mapped and a message range takes both ways`() throws {
        let rig = try SessionRig()
        let file = try MemoryFile(name: "m", size: 0x1000)
        #expect(try rig.map(file, at: 0x1000, length: 0x1000) == nil)
        #expect(try rig.map(nil, at: 0x2000, length: 0x1000) == nil)
        let write = Outcome()
        rig.session.writeDMA(0x1ffe, [1, 2, 3, 4], then: write.then)
        let next = try #require(try question(rig))
        #expect(next.access == DMAAccess(address: 0x2000, count: 2) && next.bytes == [3, 4])
        _ = reply(rig, next)
        #expect(try question(rig) == nil && write.result == .success([]))
        #expect(rig.memory.read(0x1ffe, 2) == [1, 2])
        let read = Outcome()
        rig.session.readDMA(0x1ffe, 4, then: read.then)
        _ = reply(rig, try #require(try question(rig)), [7, 8])
        #expect(try question(rig) == nil && read.result == .success([1, 2, 7, 8]))
    }

    @Test func `VFU-S-11: a range of file access is read and written as a file`() throws {
        let rig = try SessionRig()
        let file = try MemoryFile(name: "m", size: 0x3000)
        let flags: DMAMap.Flags = [.readable, .writable, .fileAccess]
        #expect(try rig.map(file, at: 0x1000, length: 0x2000, offset: 0x1000, flags: flags) == nil)
        #expect(rig.memory.read(0x1000, 1) == nil && rig.function.memoryChanges == 0)
        let write = Outcome()
        rig.session.writeDMA(0x1002, [5, 6], then: write.then)
        #expect(try question(rig) == nil && write.result == .success([]))
        #expect(try file.descriptor.read(at: 0x1002, count: 2) == [5, 6])
        let read = Outcome()
        rig.session.readDMA(0x1001, 4, then: read.then)
        #expect(try question(rig) == nil && read.result == .success([0, 5, 6, 0]))
    }

    @Test func `VFU-S-16: memory that goes between two messages is not asked for`() throws {
        var small = Capabilities()
        small.transferSize = 2
        let rig = try SessionRig(proposal: Version(capabilities: small).encoded)
        #expect(try rig.map(nil, at: 0, length: 0x1000) == nil)
        let read = Outcome()
        rig.session.readDMA(0, 4, then: read.then)
        let first = try #require(try question(rig))
        #expect(try rig.unmap(0, 0x1000) == nil)
        _ = reply(rig, first, [1, 2])
        #expect(try question(rig) == nil && read.result == .failure(.notMapped))
    }

    @Test func `VFU-S-46: commands are served while an answer is awaited`() throws {
        let rig = try SessionRig()
        #expect(try rig.map(nil, at: 0, length: 0x1000) == nil)
        let read = Outcome()
        rig.session.readDMA(0, 2, then: read.then)
        let next = try #require(try question(rig))
        #expect(try rig.answer(.deviceGetInfo, DeviceInfo().encoded).count == 16)
        #expect(try rig.answer(.deviceReset).isEmpty)
        #expect(try question(rig) == nil && read.result == nil)
        _ = reply(rig, next, [1, 2])
        #expect(try question(rig) == nil && read.result == .success([1, 2]))
    }

    @Test func `VFU-S-46: a device may ask from inside a command`() throws {
        let rig = try SessionRig()
        #expect(try rig.map(nil, at: 0, length: 0x1000) == nil)
        let read = Outcome()
        rig.function.onWrite = { [unowned rig] in rig.session.readDMA(0, 1, then: read.then) }
        let access = RegionAccess(offset: 0, region: 0, count: 1).encoded
        #expect(try rig.answer(.regionWrite, access + [1]) == access)
        #expect(read.result == nil)
        #expect(try question(rig)?.command == 11)
    }

    @Test func `VFU-S-45: an answer that does not come, and one that comes late`() throws {
        let rig = try SessionRig(limits: ServerLimits(replyMilliseconds: 1))
        #expect(try rig.map(nil, at: 0, length: 0x1000) == nil)
        let read = Outcome()
        rig.session.readDMA(0, 1, then: read.then)
        let first = try #require(try question(rig))
        while rig.session.replyDeadline?.hasPassed == false {}
        #expect(try question(rig) == nil && read.result == .failure(.noReply))
        #expect(reply(rig, first, [1]).refused == nil)
        // A second time it answers nothing.
        #expect(reply(rig, first, [1]).refused?.id == .command)
        #expect(read.calls == 1)
    }

    @Test func `VFU-S-60: what is under way ends with the client`() throws {
        let rig = try SessionRig()
        #expect(try rig.map(nil, at: 0, length: 0x1000) == nil)
        let one = Outcome()
        let two = Outcome()
        rig.session.readDMA(0, 1, then: one.then)
        rig.session.writeDMA(0, [1], then: two.then)
        _ = try question(rig)
        rig.session.end()
        #expect(one.result == .failure(.disconnected) && two.result == .failure(.disconnected))
        let three = Outcome()
        rig.session.readDMA(0, 1, then: three.then)
        #expect(three.result == .failure(.disconnected))
        #expect(rig.session.nextDMA() == nil && one.calls == 1)
    }

    @Test func `VFU-S-60, HI-E22: memory and eventfds go with the client, the state stays`() throws
    {
        let rig = try SessionRig()
        let file = try MemoryFile(name: "m", size: 0x1000)
        #expect(try rig.map(file, at: 0, length: 0x1000) == nil)
        var event: EventFD? = try EventFD()
        let held = Held(descriptor: try #require(event).descriptor)
        #expect(try rig.connect([try #require(event)]) == nil)
        let access = RegionAccess(offset: 0x10, region: 0, count: 1).encoded
        #expect(try rig.answer(.regionWrite, access + [0x77]) == access)
        event = nil
        rig.session.end()
        rig.session.end()
        #expect(rig.memory.all.isEmpty && held.descriptor == nil)
        #expect(rig.function.farewells == 1 && rig.function.resets == 0)
        #expect(rig.function.registers[0x10] == 0x77)
        rig.function.fire(0)
        #expect(rig.function.isPending(0))
    }
}
