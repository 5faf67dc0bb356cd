import HostSystem
import Testing
import VfioUser

/// A server on a socket of its own, and what it reported.
final class ServerRig {
    let loop: EventLoop
    let function: FakeFunction
    let server: Server
    let path: String
    private(set) var events: [ServerEvent] = []

    init(limits: ServerLimits = ServerLimits(), vectors: Int = 4) throws {
        path = "/tmp/vfu-\(UInt64.random(in: 0 ... .max)).sock"
        loop = try EventLoop()
        function = try FakeFunction(vectorCount: vectors)
        var report: (ServerEvent) -> Void = { _ in }
        server = try Server(endpoint: function, path: path, loop: loop, limits: limits) {
            report($0)
        }
        report = { [unowned self] in self.events.append($0) }
    }

    func turns(_ count: Int = 6, milliseconds: Int32 = 0) throws {
        for _ in 0..<count { try loop.turn(limitMilliseconds: milliseconds) }
    }

    func connect() throws -> Caller {
        let caller = Caller(try UnixSocket.connect(to: path), self)
        try turns()
        return caller
    }

    func negotiated() throws -> Caller {
        let caller = try connect()
        _ = try caller.ask(.version, SessionRig.proposal)
        return caller
    }

    var lastEnd: String? {
        for case .disconnected(let why) in events.reversed() { return why }
        return nil
    }
}

/// A client that says what a test wants, and waits for nobody.
final class Caller {
    let socket: UnixSocket
    private unowned let rig: ServerRig
    private var received: [UInt8] = []
    var descriptors: [FileDescriptor] = []
    private var identifier: UInt16 = 0

    init(_ socket: UnixSocket, _ rig: ServerRig) {
        self.socket = socket
        self.rig = rig
    }

    func say(_ bytes: [UInt8], _ descriptors: [FileDescriptor] = []) throws {
        let sent = try socket.send(bytes[...], descriptors: descriptors)
        try #require(sent == bytes.count)
    }

    /// The next message; `nil` when there is none, an empty one at the end of the stream.
    func hear() throws -> [UInt8]? {
        for _ in 0..<20 {
            if let size = MessageHeader(received)?.messageSize, received.count >= Int(size) {
                defer { received.removeFirst(Int(size)) }
                return Array(received.prefix(Int(size)))
            }
            if let more = try receive() {
                if more.isEmpty { return [] }
                received += more
            } else {
                try rig.turns(1)
            }
        }
        return nil
    }

    func isClosed() throws -> Bool {
        while let message = try hear() {
            if message.isEmpty { return true }
        }
        return false
    }

    /// Bytes that are there; `nil` for none, empty at the end of the stream.
    private func receive() throws -> [UInt8]? {
        guard let more = try socket.receive(limit: 1 << 21) else { return nil }
        descriptors += more.descriptors
        return more.bytes
    }

    /// The payload of the reply.
    func ask(_ command: Command, _ payload: [UInt8] = [], _ descriptors: [FileDescriptor] = [])
        throws -> [UInt8]
    {
        identifier &+= 1
        try say(message(command, id: identifier, payload), descriptors)
        let reply = try #require(try hear())
        let header = try #require(MessageHeader(reply))
        try #require(header.identifier == identifier && header.isReply)
        try #require(!header.flags.contains(.error))
        return Array(reply.dropFirst(MessageHeader.size))
    }
}
