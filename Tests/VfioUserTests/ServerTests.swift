import GuestMemory
import HostSystem
import PCI
import Testing
import VfioUser

@Suite struct ServerTests {
    private let read = message(
        .regionRead,
        id: 9,
        RegionAccess(offset: 0, region: 7, count: 4).encoded
    )

    /// Sends one end of a new pair away; the other end sees when nobody holds the first any more.
    private func sendAway(_ send: (FileDescriptor) throws -> Void) throws -> UnixSocket {
        let (ours, theirs) = try UnixSocket.pair()
        try send(theirs.descriptor)
        return ours
    }

    private func isAtEnd(_ socket: UnixSocket) throws -> Bool {
        guard let received = try socket.receive(limit: 1) else { return false }
        return received.bytes.isEmpty
    }

    @Test func `VFU-H-10: messages in pieces and several in one are the same`() throws {
        let rig = try ServerRig()
        let caller = try rig.connect()
        for byte in message(.version, id: 1, SessionRig.proposal) {
            try caller.say([byte])
            try rig.turns(2)
        }
        #expect(MessageHeader(try #require(try caller.hear()))?.flags == .reply)
        try caller.say(read + read + read.prefix(20))
        #expect(try caller.hear()?.count == 36 && caller.hear()?.count == 36)
        #expect(try caller.hear() == nil)
        try caller.say(Array(read.dropFirst(20)))
        #expect(try caller.hear()?.suffix(4) == [0xf4, 0x1a, 0x7f, 0x10])
    }

    @Test func `VFU-H-10, VFU-H-09: descriptors belong to the message they came with`() throws {
        let rig = try ServerRig()
        let caller = try rig.negotiated()
        let file = try MemoryFile(name: "m", size: 0x2000)
        let map = DMAMap(flags: [.readable, .writable], address: 0, length: 0x1000).encoded
        let event = try EventFD()
        let set = InterruptSet(flags: [.eventDescriptors, .trigger], index: .msix, count: 1)
        // Sent in one go after another, read whenever the server comes to it.
        try caller.say(message(.dmaMap, id: 1, map), [file.descriptor])
        try caller.say(message(.deviceSetIRQs, id: 2, set.encoded), [event.descriptor])
        try caller.say(message(.deviceReset, id: 3))
        for id in 1...3 as ClosedRange<UInt16> {
            let header = MessageHeader(try #require(try caller.hear()))
            #expect(header?.identifier == id && header?.flags == .reply)
        }
        #expect(rig.server.memory.covers(0, 0x1000, .readWrite))
        rig.function.fire(0)
        #expect(event.drain() == 1)
    }

    @Test func `VFU-H-11, HI-E21: a thousand commands at once are answered in order`() throws {
        let rig = try ServerRig()
        let caller = try rig.negotiated()
        for batch in 0..<10 as Range<UInt16> {
            var bytes: [UInt8] = []
            for number in 0..<100 as Range<UInt16> {
                let access = RegionAccess(offset: 0, region: 0, count: 2).encoded
                let id = 100 * batch + number
                let value = [UInt8(truncatingIfNeeded: id), UInt8(truncatingIfNeeded: id >> 8)]
                bytes += message(.regionWrite, id: id, access + value)
            }
            try caller.say(bytes)
            for number in 0..<100 as Range<UInt16> {
                let header = MessageHeader(try #require(try caller.hear()))
                #expect(header?.identifier == 100 * batch + number && header?.flags == .reply)
            }
        }
        #expect(rig.function.writes.map(\.value) == Array(0..<1000))
    }

    @Test func `VFU-H-05, HI-E4: an impossible size is answered, then the socket closes`() throws {
        for size in [0, 15, UInt32(MessageHeader.largestMessage) + 1, .max] {
            let rig = try ServerRig()
            let caller = try rig.negotiated()
            let header = MessageHeader(identifier: 77, command: 9, messageSize: size)
            try caller.say(header.encoded)
            let reply = MessageHeader(try #require(try caller.hear()))
            #expect(reply?.identifier == 77 && reply?.error == 22)
            #expect(try caller.isClosed() && rig.server.refusals[.size] == 1)
            #expect(!rig.server.isConnected)
        }
    }

    @Test func `VFU-S-01, HI-E1: what is no VERSION closes the socket, and the next is served`()
        throws
    {
        let rig = try ServerRig()
        for bytes in [read, message(.version, id: 0), [UInt8](repeating: 0xff, count: 64)] {
            let caller = try rig.connect()
            try caller.say(bytes)
            #expect(try caller.isClosed())
        }
        #expect(try rig.negotiated().ask(.deviceGetInfo, DeviceInfo().encoded).count == 16)
        #expect(rig.server.connectionCount == 4)
    }

    @Test func `VFU-H-12, HI-E7: descriptors that the kernel cut close the socket`() throws {
        let rig = try ServerRig()
        let caller = try rig.negotiated()
        let event = try EventFD().descriptor
        let set = InterruptSet(flags: [.eventDescriptors, .trigger], index: .msix, count: 40)
        let bytes = message(.deviceSetIRQs, id: 5, set.encoded)
        let ours = try sendAway { first in
            let rest = [Int32](repeating: event.rawValue, count: 39)
            let sent = sendMany(bytes, [first.rawValue] + rest, over: caller.socket)
            #expect(sent == bytes.count)
        }
        let header = MessageHeader(try #require(try caller.hear()))
        #expect(header?.identifier == 5 && header?.error == 22)
        #expect(try caller.isClosed() && rig.server.refusals[.truncated] == 1)
        #expect(try isAtEnd(ours))
    }

    @Test func `VFU-S-61, HI-E23: a second client is turned away, the first notices nothing`()
        throws
    {
        let rig = try ServerRig()
        let first = try rig.negotiated()
        for _ in 0..<20 {
            let second = try rig.connect()
            #expect(try second.isClosed())
        }
        #expect(rig.server.refusals[.busy] == 20 && rig.server.connectionCount == 1)
        #expect(try first.ask(.deviceGetInfo, DeviceInfo().encoded).count == 16)
    }

    @Test func `VFU-S-61: a second client that has asked already learns that we are busy`() throws {
        let rig = try ServerRig()
        let first = try rig.negotiated()
        for id in 1...20 as ClosedRange<UInt16> {
            let second = Caller(try UnixSocket.connect(to: rig.path), rig)
            try second.say(message(.version, id: id, SessionRig.proposal))
            let header = MessageHeader(try #require(try second.hear()))
            #expect(header?.identifier == id && header?.command == 1)
            #expect(header?.flags == [.reply, .error] && header?.error == 16)
            #expect(try second.isClosed())
        }
        #expect(rig.server.refusals == [.busy: 20])
        #expect(try first.ask(.deviceGetInfo, DeviceInfo().encoded).count == 16)
    }

    @Test func `VFU-H-13: a client that sent on sees an end, and no reset`() throws {
        let rig = try ServerRig()
        let event = try EventFD()
        for early in [true, false] {
            let caller = try early ? rig.connect() : rig.negotiated()
            let bad = MessageHeader(identifier: 77, command: 9, messageSize: 3).encoded
            try caller.say(bad + [UInt8](repeating: 0, count: 50_000))
            try caller.say([1, 2, 3], [event.descriptor])
            #expect(MessageHeader(try #require(try caller.hear()))?.identifier == 77)
            // A reset would be thrown.
            #expect(try caller.isClosed() && !rig.server.isConnected)
        }
    }

    @Test func `VFU-S-62, VFU-S-60: clients come and go, the state stays`() throws {
        let rig = try ServerRig()
        let file = try MemoryFile(name: "m", size: 0x2000)
        for round in 0..<20 as Range<UInt8> {
            var caller: Caller? = try rig.negotiated()
            let map = DMAMap(flags: [.readable, .writable], address: 0, length: 0x1000).encoded
            #expect(try caller?.ask(.dmaMap, map, [file.descriptor]).isEmpty == true)
            let access = RegionAccess(offset: 0x20, region: 0, count: 1).encoded
            let before = try caller?.ask(.regionRead, access).last
            #expect(before == (round == 0 ? 0 : round - 1))
            #expect(try caller?.ask(.regionWrite, access + [round]) == access)
            caller = nil
            try rig.turns()
            #expect(!rig.server.isConnected && rig.server.memory.all.isEmpty)
            #expect(rig.function.farewells == Int(round) + 1)
        }
        #expect(rig.function.resets == 0 && rig.lastEnd == "closed by the client")
    }

    @Test func `VFU-S-62: a client that was started again need not wait for its own end`() throws {
        let rig = try ServerRig()
        var first: Caller? = try rig.negotiated()
        #expect(first != nil)
        first = nil
        // The end of the first and the second connection are seen in one turn.
        let second = Caller(try UnixSocket.connect(to: rig.path), rig)
        #expect(try second.ask(.version, SessionRig.proposal).count > 4)
        #expect(rig.server.connectionCount == 2)
    }

    @Test func `HI-E22: a client that goes in mid-message lets everything go`() throws {
        for cut in [1, 15, 16, 17, 31] {
            let rig = try ServerRig()
            var caller: Caller? = try rig.negotiated()
            let ours = try sendAway { try caller?.say(Array(read.prefix(cut)), [$0]) }
            try rig.turns()
            #expect(try !isAtEnd(ours))
            caller = nil
            try rig.turns()
            #expect(try isAtEnd(ours))
            #expect(!rig.server.isConnected && rig.server.refusals[.cutMessage] == 1)
            #expect(rig.function.farewells == 1)
            #expect(try rig.negotiated().ask(.deviceGetInfo, DeviceInfo().encoded).count == 16)
        }
    }

    @Test func `VFU-H-09: a descriptor in a message that never ends is closed`() throws {
        let rig = try ServerRig()
        let caller = try rig.negotiated()
        let ours = try sendAway { try caller.say(Array(read.prefix(20)), [$0]) }
        try rig.turns()
        #expect(try !isAtEnd(ours))
        rig.server.disconnect("enough")
        #expect(try caller.isClosed() && rig.lastEnd == "enough")
        #expect(try isAtEnd(ours))
    }

    @Test func `HI-E24, VFU-S-47: half a message closes the socket at the deadline`() throws {
        let limits = ServerLimits(deadlines: .init(halfMessage: 30, unread: 30))
        for cut in [1, 16, 31] {
            let rig = try ServerRig(limits: limits)
            let other = try ServerRig()
            let neighbour = try other.negotiated()
            let caller = try rig.negotiated()
            try caller.say(Array(read.prefix(cut)))
            let deadline = Deadline(milliseconds: 5000)
            while rig.server.isConnected, !deadline.hasPassed {
                try rig.turns(1, milliseconds: 5)
                #expect(try neighbour.ask(.deviceGetInfo, DeviceInfo().encoded).count == 16)
            }
            #expect(rig.server.refusals[.stall] == 1)
            #expect(try caller.isClosed())
        }
    }

    @Test func `HI-E24: a client that says nothing does not keep the socket`() throws {
        let rig = try ServerRig(limits: ServerLimits(negotiationMilliseconds: 100))
        let silent = try rig.connect()
        let deadline = Deadline(milliseconds: 5000)
        try rig.turns(1, milliseconds: 5)
        #expect(rig.server.isConnected)
        while rig.server.isConnected, !deadline.hasPassed { try rig.turns(1, milliseconds: 5) }
        #expect(rig.server.refusals[.stall] == 1)
        #expect(try silent.isClosed())
        #expect(try rig.negotiated().ask(.deviceGetInfo, DeviceInfo().encoded).count == 16)
    }

    @Test func `VFU-S-47: replies that nobody reads close the socket at the deadline`() throws {
        let limits = ServerLimits(deadlines: .init(halfMessage: 30, unread: 30))
        let rig = try ServerRig(limits: limits)
        let caller = try rig.negotiated()
        let all = message(
            .regionRead,
            id: 9,
            RegionAccess(offset: 0, region: 2, count: 0x10000).encoded
        )
        let deadline = Deadline(milliseconds: 5000)
        while rig.server.isConnected, !deadline.hasPassed {
            _ = try? caller.socket.send(all[...])
            try rig.turns(1, milliseconds: 5)
        }
        #expect(rig.server.refusals[.stall] == 1 && !rig.server.isConnected)
        #expect(try rig.negotiated().ask(.deviceGetInfo, DeviceInfo().encoded).count == 16)
    }

    @Test func `VFU-S-46: both ends ask at once and neither waits for the other`() throws {
        let rig = try ServerRig()
        let caller = try rig.negotiated()
        let map = DMAMap(flags: [.readable, .writable], address: 0, length: 0x10000).encoded
        #expect(try caller.ask(.dmaMap, map).isEmpty)
        var result: Result<[UInt8], DMAError>?
        // The device asks while it is accessed: the reply comes first.
        rig.function.onWrite = { [unowned rig] in
            rig.server.readDMA(0x40, 3) { result = $0 }
        }
        let access = RegionAccess(offset: 0, region: 0, count: 1).encoded
        #expect(try caller.ask(.regionWrite, access + [1]) == access)
        let question = try #require(try caller.hear())
        let header = try #require(MessageHeader(question))
        #expect(header.isCommand && header.command == 11 && result == nil)
        #expect(try caller.ask(.deviceGetInfo, DeviceInfo().encoded).count == 16)
        #expect(try caller.ask(.regionRead, access).last == 1)
        let answer = DMAAccess(address: 0x40, count: 3).encoded + [7, 8, 9]
        try caller.say(message(.dmaRead, id: header.identifier, answer, flags: .reply))
        try rig.turns()
        #expect(result == .success([7, 8, 9]))
    }

    @Test func `VFU-S-46: an access of the device outside any command is sent at once`() throws {
        let rig = try ServerRig()
        let caller = try rig.negotiated()
        let map = DMAMap(flags: [.readable, .writable], address: 0, length: 0x10000).encoded
        #expect(try caller.ask(.dmaMap, map).isEmpty)
        var result: Result<[UInt8], DMAError>?
        rig.server.writeDMA(0x1000, [1, 2]) { result = $0 }
        #expect(result == nil)
        let question = try #require(try caller.hear())
        #expect(question.count == 34 && question.suffix(2) == [1, 2])
        rig.server.disconnect("enough")
        #expect(result == .failure(.disconnected))
        rig.server.readDMA(0, 1) { result = $0 }
        result = nil
        try rig.turns()
        #expect(result == .failure(.disconnected))
    }

    @Test func `VFU-S-45: a client that does not answer costs the access, not the connection`()
        throws
    {
        let rig = try ServerRig(limits: ServerLimits(replyMilliseconds: 10))
        let caller = try rig.negotiated()
        let map = DMAMap(flags: [.readable, .writable], address: 0, length: 0x10000).encoded
        #expect(try caller.ask(.dmaMap, map).isEmpty)
        var result: Result<[UInt8], DMAError>?
        rig.server.readDMA(0, 1) { result = $0 }
        let deadline = Deadline(milliseconds: 5000)
        while result == nil, !deadline.hasPassed { try rig.turns(1, milliseconds: 5) }
        #expect(result == .failure(.noReply) && rig.server.isConnected)
        #expect(try caller.hear()?.count == 32)
        #expect(try caller.ask(.deviceGetInfo, DeviceInfo().encoded).count == 16)
    }

    @Test func `VFU-H-04, HI-E20: posted writes take effect before the read behind them`() throws {
        let rig = try ServerRig()
        let caller = try rig.negotiated()
        let access = RegionAccess(offset: 4, region: 0, count: 1).encoded
        var bytes: [UInt8] = []
        for value in 1...200 as ClosedRange<UInt8> {
            bytes += message(.regionWrite, id: 0, access + [value], flags: .noReply)
        }
        let bad = RegionAccess(offset: .max, region: 0, count: 1).encoded
        bytes += message(.regionWrite, id: 0, bad + [1], flags: .noReply)
        try caller.say(bytes)
        #expect(try caller.ask(.regionRead, access).last == 200)
        #expect(rig.server.refusals == [.regionRange: 1])
        #expect(rig.function.writes.count == 200)
    }

    @Test func `VFU-S-23: the file of a region arrives, and its pages are the device's`() throws {
        let rig = try ServerRig()
        try rig.function.shareWindow([0..<0x4000])
        let caller = try rig.negotiated()
        let reply = try caller.ask(
            .deviceGetRegionInfo,
            RegionInfo(argumentSize: 80, index: 2).encoded
        )
        #expect(RegionInfo(reply)?.flags.contains(.mappable) == true)
        let file = try #require(caller.descriptors.first)
        #expect(caller.descriptors.count == 1)
        let mapping = try Mapping.file(file, offset: 0, length: 0x4000)
        unsafe mapping.address.storeBytes(of: 0x33, as: UInt8.self)
        #expect(rig.function.readRegister(2, 0, .byte) == 0x33)
    }

    @Test func `VFU-S-60: a closed server lets go of client and path`() throws {
        let rig = try ServerRig()
        let caller = try rig.negotiated()
        rig.server.close()
        #expect(try caller.isClosed() && rig.function.farewells == 1)
        #expect(throws: SystemError.self) { try UnixSocket.connect(to: rig.path) }
    }

    @Test func `VFU-S-47: a device may end the connection from inside a command`() throws {
        let rig = try ServerRig()
        let caller = try rig.negotiated()
        rig.function.onWrite = { [unowned rig] in rig.server.disconnect("the peer left") }
        let access = RegionAccess(offset: 4, region: 0, count: 1).encoded
        try caller.say(message(.regionWrite, id: 0, access + [1]) + read)
        #expect(try caller.isClosed() && rig.lastEnd == "the peer left")
        rig.function.onWrite = nil
        #expect(try rig.negotiated().ask(.deviceGetInfo, DeviceInfo().encoded).count == 16)
    }

    @Test func `VFU-S-11: memory that no ring can be in is named, once`() throws {
        let rig = try ServerRig()
        let caller = try rig.negotiated()
        #expect(rig.server.memory.all.isEmpty && rig.server.refusals.isEmpty)
        let map = DMAMap(flags: [.readable, .writable], address: 0, length: 0x10000).encoded
        #expect(try caller.ask(.dmaMap, map).isEmpty)
        for _ in 0..<3 { #expect(rig.server.memory.all.isEmpty) }
        // It may be back at once.
        #expect(rig.server.refusals.isEmpty)
        let deadline = Deadline(milliseconds: 5000)
        while rig.server.refusals.isEmpty, !deadline.hasPassed {
            try rig.turns(1, milliseconds: 20)
        }
        for _ in 0..<3 { #expect(rig.server.memory.all.isEmpty) }
        #expect(rig.server.refusals == [.memoryNotShared: 1])
        #expect(rig.server.lastRefusal?.detail.hasPrefix("not supported") == true)
        let file = try MemoryFile(name: "m", size: 0x1000)
        let shared = DMAMap(flags: [.readable, .writable], address: 1 << 20, length: 0x1000).encoded
        #expect(try caller.ask(.dmaMap, shared, [file.descriptor]).isEmpty)
        #expect(rig.server.memory.all.count == 1)
    }
}
