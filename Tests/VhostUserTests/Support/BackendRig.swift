import HostSystem
import Testing
import VirtioSpec

@testable import VhostUser

/// A device that writes down what its back-end tells it.
final class LoggingDevice: BackendDelegate {
    var connectionCount = 0
    var snapshots: [PeerDescription] = []
    var calls: [(ring: Int, call: FileDescriptor?)] = []
    var ends: [DisconnectReason] = []
    var refusals: [Violation] = []
    var quiesceCount = 0
    /// Where the rings stand.
    var positions: [Int: UInt16] = [:]
    /// Keeps the next resume closures instead of calling them.
    var holdsQuiesce = false
    var heldResumes: [() -> Void] = []
    /// Runs inside `callChanged`.
    var onCall: (() -> Void)?
    /// Runs inside `changed`.
    var onChange: ((Backend) -> Void)?
    /// Runs inside `disconnected`.
    var onEnd: ((Backend) -> Void)?

    func backendConnected(_ backend: Backend) { connectionCount += 1 }

    func backend(_ backend: Backend, quiesce resume: @escaping () -> Void) {
        quiesceCount += 1
        if holdsQuiesce { heldResumes.append(resume) } else { resume() }
    }

    func backend(_ backend: Backend, changed description: PeerDescription) {
        snapshots.append(description)
        onChange?(backend)
    }

    func backend(_ backend: Backend, callChanged ring: Int, to call: FileDescriptor?) {
        calls.append((ring, call))
        onCall?()
    }

    func backend(_ backend: Backend, disconnected reason: DisconnectReason) {
        ends.append(reason)
        snapshots = []
        calls = []
        heldResumes = []
        onEnd?(backend)
    }

    func backend(_ backend: Backend, nextAvailableOf ring: Int) -> UInt16? { positions[ring] }

    func backend(_ backend: Backend, refused violation: Violation) { refusals.append(violation) }

    /// Error id of the latest end of a connection.
    var lastFault: String? {
        guard case .fault(let id, _) = ends.last else { return nil }
        return id
    }
}

/// A back-end on a path of its own, with a device and the loop that serves them.
final class BackendRig {
    let loop: EventLoop
    let device = LoggingDevice()
    let backend: Backend

    init(
        offer: BackendOffer = BackendOffer(features: SessionRig.features),
        limits: BackendLimits = BackendLimits()
    ) throws {
        loop = try EventLoop()
        backend = try Backend(
            path: uniquePath(),
            loop: loop,
            offer: offer,
            delegate: device,
            limits: limits
        )
    }

    /// Serves whatever is ready, until nothing is, or for `milliseconds`.
    func turn(milliseconds: Int32 = 0) throws {
        for _ in 0..<4 { try loop.turn(limitMilliseconds: milliseconds) }
    }

    /// Serves until `condition` holds; false after two seconds.
    func turn(until condition: () -> Bool) throws -> Bool {
        let deadline = Deadline(milliseconds: 2000)
        while !condition() {
            guard !deadline.hasPassed else { return false }
            try loop.turn(limitMilliseconds: 5)
        }
        return true
    }

    func connect() throws -> Puppet {
        let puppet = Puppet(try UnixSocket.connect(to: backend.path))
        try turn()
        return puppet
    }

    /// Sends a request and serves until its reply is there.
    func ask(
        _ puppet: Puppet,
        _ request: Request,
        _ payload: [UInt8] = [],
        _ descriptors: [FileDescriptor] = []
    ) throws -> UInt64 {
        try puppet.send(request, payload, descriptors, needsReply: true)
        try turn()
        return try #require(try puppet.reply(to: request))
    }

    /// Connects and brings up both rings in `memory`.
    func connectWorking(_ memory: TestMemory) throws -> Puppet {
        let puppet = try connect()
        try puppet.negotiate()
        try puppet.send(.setMemoryTable, memory.table.encoded, [memory.file.descriptor])
        for ring in [0, 1] as [UInt32] { try puppet.start(ring, in: memory) }
        try turn()
        try puppet.discardReplies()
        return puppet
    }
}

/// A path in the temporary folder that no other test uses.
func uniquePath() -> String {
    "/tmp/vhost-user-test-\(MonotonicClock.now)-\(UInt32.random(in: 0...UInt32.max))"
}

/// A front-end that does exactly what a test tells it.
final class Puppet {
    let socket: UnixSocket

    init(_ socket: UnixSocket) {
        self.socket = socket
    }

    @discardableResult
    func send(_ bytes: [UInt8], _ descriptors: [FileDescriptor] = []) throws -> Int {
        try socket.send(bytes[...], descriptors: descriptors)
    }

    func send(
        _ request: Request,
        _ payload: [UInt8] = [],
        _ descriptors: [FileDescriptor] = [],
        needsReply: Bool = false
    ) throws {
        let message = Message(request, needsReply: needsReply, payload: payload)
        try send(message.encoded, descriptors)
    }

    /// The number in the next reply; `nil` when none is there.
    func reply(to request: Request) throws -> UInt64? {
        guard let received = try socket.receive(limit: 20), received.bytes.count == 20 else {
            return nil
        }
        let header = try #require(MessageHeader(received.bytes))
        #expect(header == MessageHeader(request: request.rawValue, flags: 5, payloadSize: 8))
        return NumberPayload.decode(Array(received.bytes.dropFirst(12)))
    }

    func discardReplies() throws {
        while let received = try socket.receive(limit: 4096), !received.bytes.isEmpty {}
    }

    /// True once the other end has closed.
    func isClosed() throws -> Bool {
        while let received = try socket.receive(limit: 4096) {
            if received.bytes.isEmpty { return true }
        }
        return false
    }

    func negotiate() throws {
        try send(.setProtocolFeatures, NumberPayload.encode(ProtocolFeatures.served.rawValue))
        try send(.setOwner)
        let features = SessionRig.features.union(.vhostUserProtocol).rawValue
        try send(.setFeatures, NumberPayload.encode(features))
    }

    func start(_ ring: UInt32, in memory: TestMemory) throws {
        try send(.setVringSize, VringState(index: ring, number: 256).encoded)
        try send(.setVringBase, VringState(index: ring, number: 0).encoded)
        try send(.setVringAddress, memory.ring(ring).encoded)
        let marked = VringDescriptor(index: UInt64(ring), hasDescriptor: true).encoded
        try send(.setVringKick, marked, [try EventFD().descriptor])
        try send(.setVringCall, marked, [try EventFD().descriptor])
        try send(.setVringEnable, VringState(index: ring, number: 1).encoded)
    }
}
