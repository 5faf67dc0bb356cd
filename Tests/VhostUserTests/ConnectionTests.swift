import Glibc
import HostSystem
import Testing

@testable import VhostUser

@Suite struct ConnectionTests {
    private func pair(
        _ deadlines: Connection.Deadlines = Connection.Deadlines()
    ) throws -> (Connection, UnixSocket) {
        let (near, far) = try UnixSocket.pair()
        return (Connection(near, deadlines: deadlines), far)
    }

    private func violation(_ event: Connection.Event) -> ViolationID? {
        guard case .violation(let violation) = event else { return nil }
        return violation.id
    }

    private func message(_ event: Connection.Event) -> Message? {
        guard case .message(let message) = event else { return nil }
        return message
    }

    private func isWaiting(_ event: Connection.Event) -> Bool {
        if case .waiting = event { true } else { false }
    }

    private func isClosed(_ event: Connection.Event?) -> Bool {
        if case .closed = event { true } else { false }
    }

    private let kick = Message(
        .setVringKick,
        needsReply: true,
        payload: VringDescriptor(index: 1, hasDescriptor: true).encoded
    )

    @Test func `VU-H-05: a message that comes byte by byte is put together`() throws {
        let (connection, far) = try pair()
        for byte in kick.encoded.dropLast() {
            #expect(try far.send([byte][...]) == 1)
            #expect(isWaiting(connection.receive()))
        }
        _ = try far.send(kick.encoded.suffix(1))
        let whole = try #require(message(connection.receive()))
        #expect(whole.header == kick.header)
        #expect(whole.payload == kick.payload)
        #expect(isWaiting(connection.receive()))
    }

    @Test func `VU-H-02: exactly the stated bytes are read, so that messages do not mix`() throws {
        let (connection, far) = try pair()
        _ = try far.send((kick.encoded + Message(.getFeatures).encoded + [1, 2])[...])
        #expect(message(connection.receive())?.payload == kick.payload)
        #expect(message(connection.receive())?.header.request == 1)
        #expect(isWaiting(connection.receive()))
        #expect(connection.stallDeadline != nil)
    }

    @Test func `VU-H-03: descriptors belong to the message whose first byte they came with`() throws
    {
        let (connection, far) = try pair()
        let event = try EventFD()
        _ = try far.send(Message(.getFeatures).encoded[...])
        _ = try far.send(kick.encoded[...], descriptors: [event.descriptor])
        _ = try far.send(Message(.setOwner).encoded[...])
        #expect(message(connection.receive())?.descriptors.isEmpty == true)
        let second = try #require(message(connection.receive()))
        #expect(second.descriptors.count == 1)
        #expect(second.descriptors[0].isEventFD)
        #expect(message(connection.receive())?.descriptors.isEmpty == true)
    }

    @Test(arguments: [1, 11, 12, 19])
    func `HI-D7, VU-H-03: descriptors that come later are closed and noted`(_ split: Int) throws {
        let (connection, far) = try pair()
        let event = try EventFD()
        _ = try far.send(kick.encoded.prefix(split))
        #expect(isWaiting(connection.receive()))
        _ = try far.send(kick.encoded.dropFirst(split), descriptors: [event.descriptor])
        let whole = try #require(message(connection.receive()))
        #expect(whole.hadLateDescriptors)
        #expect(whole.descriptors.isEmpty)
        #expect(openCount(sharing: event.descriptor) == 1)
    }

    @Test func `VU-H-04: received descriptors are close-on-exec`() throws {
        let (connection, far) = try pair()
        let event = try EventFD()
        _ = try far.send(kick.encoded[...], descriptors: [event.descriptor, event.descriptor])
        let received = try #require(message(connection.receive())).descriptors
        #expect(received.count == 2)
        for descriptor in received {
            #expect(fcntl(descriptor.rawValue, F_GETFD) & FD_CLOEXEC != 0)
        }
    }

    @Test func `HI-D9, VU-H-04: descriptors that the kernel cut end the stream`() throws {
        let (connection, far) = try pair()
        let event = try EventFD()
        let sent = sendManyDescriptors(kick.encoded, event.descriptor, count: 33, over: far)
        try #require(sent == kick.encoded.count)
        #expect(violation(connection.receive()) == .truncated)
        #expect(openCount(sharing: event.descriptor) == 1)
    }

    @Test func `VU-H-03: 32 descriptors are taken with one message`() throws {
        let (connection, far) = try pair()
        let event = try EventFD()
        let sent = sendManyDescriptors(kick.encoded, event.descriptor, count: 32, over: far)
        try #require(sent == kick.encoded.count)
        let received = message(connection.receive())
        #expect(received?.descriptors.count == 32)
    }

    @Test(arguments: [4097, 0x10000, 0x7fff_ffff, 0xffff_ffff] as [UInt32])
    func `HI-D2, VU-H-02: a stated payload above 4096 ends the stream`(_ size: UInt32) throws {
        let (connection, far) = try pair()
        let header = MessageHeader(request: 5, flags: 1, payloadSize: size)
        _ = try far.send(header.encoded[...])
        #expect(violation(connection.receive()) == .oversize)
    }

    @Test func `the largest payload passes`() throws {
        let (connection, far) = try pair()
        let payload = [UInt8](repeating: 7, count: 4096)
        _ = try far.send(Message(.setConfiguration, payload: payload).encoded[...])
        #expect(message(connection.receive())?.payload == payload)
    }

    @Test(arguments: [1, 4, 11])
    func `HI-D1: the end of the stream inside a header is a fault`(_ count: Int) throws {
        let (connection, far) = try pair()
        _ = try far.send(kick.encoded.prefix(count))
        #expect(isWaiting(connection.receive()))
        try #require(shutdown(far.descriptor.rawValue, Int32(SHUT_WR)) == 0)
        #expect(violation(connection.receive()) == .shortHeader)
    }

    @Test func `HI-D41: the end of the stream inside a payload is a fault`() throws {
        let (connection, far) = try pair()
        _ = try far.send(kick.encoded.dropLast())
        #expect(isWaiting(connection.receive()))
        try #require(shutdown(far.descriptor.rawValue, Int32(SHUT_WR)) == 0)
        #expect(violation(connection.receive()) == .shortPayload)
    }

    @Test func `the end of the stream between messages is the end`() throws {
        let (connection, far) = try pair()
        _ = try far.send(kick.encoded[...])
        try #require(shutdown(far.descriptor.rawValue, Int32(SHUT_WR)) == 0)
        #expect(message(connection.receive()) != nil)
        #expect(isClosed(connection.receive()))
    }

    @Test func `HI-D1, HI-D61: progress byte by byte does not move the deadline`() throws {
        let (connection, far) = try pair(Connection.Deadlines(halfMessage: 30, unread: 30))
        #expect(connection.stallDeadline == nil)
        _ = try far.send(kick.encoded.prefix(1))
        _ = connection.receive()
        let first = try #require(connection.stallDeadline)
        #expect(connection.stall == nil)
        for byte in kick.encoded.dropFirst().prefix(8) {
            usleep(4000)
            _ = try far.send([byte][...])
            _ = connection.receive()
        }
        #expect(connection.stallDeadline?.nanoseconds == first.nanoseconds)
        while !first.hasPassed { usleep(1000) }
        #expect(connection.stall?.id == .stall)
        _ = try far.send(kick.encoded.dropFirst(9))
        #expect(message(connection.receive()) != nil)
        #expect(connection.stall == nil)
    }

    @Test func `HI-D39, VU-H-05: what a full socket does not take is sent later, in order`() throws
    {
        let (connection, far) = try pair(Connection.Deadlines(halfMessage: 30, unread: 20))
        var sent: [UInt8] = []
        var counter: UInt8 = 0
        while !connection.hasUnsent {
            counter &+= 1
            let chunk = [UInt8](repeating: counter, count: 4000)
            #expect(connection.send(chunk) == nil)
            sent += chunk
        }
        let deadline = try #require(connection.stallDeadline)
        while !deadline.hasPassed { usleep(1000) }
        #expect(connection.stall?.id == .stall)
        var received: [UInt8] = []
        while received.count < sent.count {
            while let some = try far.receive(limit: 60000) { received += some.bytes }
            #expect(connection.flush() == nil)
        }
        #expect(received == sent)
        #expect(!connection.hasUnsent)
        #expect(connection.stall == nil)
    }

    @Test func `HI-D39: what waits to be sent is bounded`() throws {
        let (connection, _far) = try pair()
        var refused: ViolationID?
        for _ in 0..<1000 where refused == nil {
            if let event = connection.send([UInt8](repeating: 0, count: 4000)) {
                refused = violation(event)
            }
        }
        #expect(refused == .stall)
        #expect(connection.unsentCount <= Connection.unsentLimit)
        withExtendedLifetime(_far) {}
    }

    @Test func `sending to an end that is gone is the end`() throws {
        let (near, far) = try UnixSocket.pair()
        let connection = Connection(near)
        #expect(!connection.isHungUp)
        try #require(shutdown(far.descriptor.rawValue, Int32(SHUT_RDWR)) == 0)
        #expect(connection.isHungUp)
        #expect(isClosed(connection.send([1, 2, 3])))
    }
}
