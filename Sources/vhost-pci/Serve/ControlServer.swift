import HostSystem

/// What clients of the control socket may take (HI-J25).
enum ControlLimits {
    /// Clients at a time.
    static let clients = 16
    /// Milliseconds without a request after which a client may lose its place to another.
    static let idleMilliseconds: UInt64 = 60_000
    /// Bytes of one request.
    static let requestBytes = 64 << 10
    /// Requests of one batch.
    static let batch = 16
    /// Bytes of answers that a client has not read: above that no request of it is read.
    static let unreadBytes = 256 << 10
    /// Milliseconds from the first byte of a request to its last.
    static let requestMilliseconds: UInt64 = 10_000
    /// Milliseconds in which a client reads at least something of what waits for it.
    static let unreadMilliseconds: UInt64 = 10_000
    /// Milliseconds that a client has to read why it is sent away.
    static let departureMilliseconds: UInt64 = 1000
    /// Bytes that it may send meanwhile.
    static let departureBytes = 1 << 20
    /// Milliseconds that nobody is let in where there is no descriptor for one.
    static let pauseMilliseconds: UInt64 = 100
    /// Clients that are being sent away, at a time.
    static let leaving = 16
    /// Requests of one client that are carried out in one turn of the loop.
    static let perTurn = 8
}

/// The control socket: JSON-RPC 2.0, one request or batch a line, any number of requests a
/// connection. Everything runs on the thread of the loop; nothing here waits for a client.
final class ControlServer {
    /// Carries out a request.
    typealias Handler = (RPCRequest) throws -> RPCValue

    private let loop: EventLoop
    private let handler: Handler
    private let idleMilliseconds: UInt64
    private var acceptor: Acceptor?
    private var clients: [ObjectIdentifier: ControlClient] = [:]
    /// Clients that were told why they are not served, the longest there first.
    private var leaving: [ControlClient] = []

    /// Serves `listener` until closed. `onFailure` is told why a client has to wait.
    init(
        _ listener: UnixListener,
        loop: EventLoop,
        idleMilliseconds: UInt64 = ControlLimits.idleMilliseconds,
        onFailure: @escaping (SystemError) -> Void = { _ in },
        handler: @escaping Handler
    ) throws {
        self.idleMilliseconds = idleMilliseconds
        self.loop = loop
        self.handler = handler
        acceptor = try Acceptor(
            listener,
            loop: loop,
            pause: ControlLimits.pauseMilliseconds,
            // Who cannot be watched is gone at once.
            onConnection: { [weak self] socket in try? self?.admit(socket) },
            onFailure: onFailure
        )
    }

    deinit {
        close()
    }

    /// How many clients there are.
    var clientCount: Int { clients.count }

    /// Ends all connections, sending what can be sent at once.
    func close() {
        acceptor?.close()
        acceptor = nil
        for client in clients.values { client.end() }
        clients = [:]
        for client in leaving { client.end() }
        leaving = []
    }

    /// Ends the client that was silent longest, if that is long enough.
    private func makeRoom() {
        let longest = clients.values.max { $0.idleMilliseconds < $1.idleMilliseconds }
        if let longest, longest.idleMilliseconds >= idleMilliseconds { longest.end() }
    }

    private func admit(_ socket: UnixSocket) throws {
        if clients.count >= ControlLimits.clients { makeRoom() }
        let client = try ControlClient(
            socket,
            loop: loop,
            answer: { [handler] line in Self.answer(line, handler) },
            moved: { [weak self] client, step in self?.follow(client, step) }
        )
        guard clients.count < ControlLimits.clients else {
            return client.turnAway(RPCError(.busy))
        }
        clients[ObjectIdentifier(client)] = client
    }

    private func follow(_ client: ControlClient, _ step: ControlClient.Step) {
        clients[ObjectIdentifier(client)] = nil
        switch step {
        case .leaving:
            leaving.append(client)
            if leaving.count > ControlLimits.leaving { leaving[0].end() }
        case .gone:
            leaving.removeAll { $0 === client }
        }
    }

    /// The answer to one line; empty when there is none to give.
    static func answer(_ line: [UInt8], _ handler: Handler) -> [UInt8] {
        let value: RPCValue
        do throws(RPCError) {
            value = try RPCValue.parse(line)
        } catch {
            return RPCRequest.response(.null, error).line
        }
        guard case .list(let batch) = value else { return answer(value, handler)?.line ?? [] }
        guard (1...ControlLimits.batch).contains(batch.count) else {
            let text = "a batch has 1 to \(ControlLimits.batch) requests"
            return RPCRequest.response(.null, RPCError(.request, text)).line
        }
        let answers = batch.compactMap { answer($0, handler) }
        return answers.isEmpty ? [] : RPCValue.list(answers).line
    }

    private static func answer(_ value: RPCValue, _ handler: Handler) -> RPCValue? {
        let request: RPCRequest
        do throws(RPCError) {
            request = try RPCRequest(value)
        } catch {
            return RPCRequest.response(RPCRequest.id(of: value), error)
        }
        do {
            let result = try handler(request)
            return request.id.map { RPCRequest.response($0, result) }
        } catch {
            return request.id.map { RPCRequest.response($0, RPCError(error)) }
        }
    }
}
