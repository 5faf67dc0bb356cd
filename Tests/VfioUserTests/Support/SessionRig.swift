import GuestMemory
import HostSystem
import PCI
import Testing
import VfioUser

/// A session and its function, fed with messages.
final class SessionRig: PCIHost {
    let function: FakeFunction
    let session: ServerSession
    private var identifier: UInt16 = 100

    /// What a client usually proposes.
    static let proposal: [UInt8] = {
        var capabilities = Capabilities()
        capabilities.messageDescriptors = 16
        capabilities.transferSize = 1 << 20
        capabilities.writesMultiple = true
        capabilities.migrationPageSize = 4096
        return Version(capabilities: capabilities).encoded
    }()

    init(
        vectors: Int = 4,
        limits: ServerLimits = ServerLimits(),
        proposal: [UInt8]? = SessionRig.proposal
    ) throws {
        function = try FakeFunction(vectorCount: vectors)
        session = ServerSession(endpoint: function, limits: limits)
        function.attach(self)
        guard let proposal else { return }
        let step = send(.version, proposal)
        try #require(step.refused == nil && session.negotiation != nil)
    }

    func raise(_ vector: Int) { _ = session.raise(vector) }
    var memory: MemoryTable { session.memory }

    /// Sends a message.
    @discardableResult
    func send(
        _ command: UInt16,
        _ payload: [UInt8] = [],
        _ descriptors: [FileDescriptor] = [],
        flags: MessageHeader.Flags = [],
        id: UInt16? = nil,
        late: Bool = false
    ) -> ServerSession.Step {
        identifier &+= 1
        let header = MessageHeader(
            identifier: id ?? identifier,
            command: command,
            messageSize: UInt32(MessageHeader.size + payload.count),
            flags: flags
        )
        var frame = Frame()
        frame.header = header.encoded
        frame.payload = payload
        frame.descriptors = descriptors
        frame.hadLateDescriptors = late
        return session.accept(frame)
    }

    @discardableResult
    func send(
        _ command: Command,
        _ payload: [UInt8] = [],
        _ descriptors: [FileDescriptor] = [],
        flags: MessageHeader.Flags = []
    ) -> ServerSession.Step {
        send(command.rawValue, payload, descriptors, flags: flags)
    }

    /// The payload of a good reply; fails the test on an error.
    func answer(
        _ command: Command,
        _ payload: [UInt8] = [],
        _ descriptors: [FileDescriptor] = []
    ) throws -> [UInt8] {
        let step = send(command, payload, descriptors)
        let reply = try #require(step.reply)
        let header = try #require(MessageHeader(reply))
        try #require(header.isReply && !header.flags.contains(.error))
        try #require(header.command == command.rawValue && header.identifier == identifier)
        try #require(Int(header.messageSize) == reply.count)
        return Array(reply.dropFirst(MessageHeader.size))
    }

    /// The error number and the id of a refusal; `nil` when the message was carried out.
    func refusal(
        _ command: Command,
        _ payload: [UInt8] = [],
        _ descriptors: [FileDescriptor] = []
    ) throws -> Refused? {
        try Refused(send(command, payload, descriptors))
    }

    /// A refusal as its sender and its counter see it.
    struct Refused: Equatable {
        let id: FaultID
        let errno: UInt32

        init(_ id: FaultID, _ errno: UInt32 = 22) {
            self.id = id
            self.errno = errno
        }

        init?(_ step: ServerSession.Step) throws {
            guard let refusal = step.refused else { return nil }
            let reply = try #require(step.reply)
            let header = try #require(MessageHeader(reply))
            try #require(reply.count == MessageHeader.size && header.messageSize == 16)
            try #require(header.flags == [.reply, .error])
            id = refusal.id
            errno = header.error
        }
    }

    /// Announces memory of a file.
    func map(
        _ file: MemoryFile?,
        at address: UInt64,
        length: UInt64,
        offset: UInt64 = 0,
        flags: DMAMap.Flags = [.readable, .writable]
    ) throws -> Refused? {
        let request = DMAMap(flags: flags, offset: offset, address: address, length: length)
        return try refusal(.dmaMap, request.encoded, file.map { [$0.descriptor] } ?? [])
    }

    func unmap(_ address: UInt64, _ length: UInt64) throws -> Refused? {
        try refusal(.dmaUnmap, DMAUnmap(address: address, length: length).encoded)
    }

    /// Connects eventfds to vectors.
    func connect(_ events: [EventFD], from start: UInt32 = 0) throws -> Refused? {
        let set = InterruptSet(
            flags: [.eventDescriptors, .trigger],
            index: .msix,
            start: start,
            count: UInt32(events.count)
        )
        return try refusal(.deviceSetIRQs, set.encoded, events.map(\.descriptor))
    }
}

/// A file that tells whether it is still held.
struct Held {
    weak var descriptor: FileDescriptor?

    /// A new eventfd, of which this holds nothing.
    static func event() throws -> (FileDescriptor, Held) {
        let descriptor = try EventFD().descriptor
        return (descriptor, Held(descriptor: descriptor))
    }
}
