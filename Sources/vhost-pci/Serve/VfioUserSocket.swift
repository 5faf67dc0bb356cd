import HostSystem
import PCI
import VfioUser

/// The vfio-user socket of a device of the daemon: one client at a time, over which functions come
/// and go.
final class VfioUserSocket {
    /// Called when a client can see the function (true), and when one goes (false).
    var onChange: ((Bool) -> Void)?

    private let name: String
    private let path: String
    private let context: ServeContext
    private let events: ServedEvents
    /// Outlives the function that is presented.
    private var listener: UnixListener?
    private var server: Server?
    private var earlierConnections: UInt64 = 0

    /// Names a socket; nothing is opened yet.
    init(_ name: String, _ path: String, _ context: ServeContext, _ events: ServedEvents) {
        self.name = name
        self.path = path
        self.events = events
        self.context = context
    }

    /// Presents a function, in the place of the one before, whose client is sent away.
    func open(_ endpoint: any PCIEndpoint) throws {
        earlierConnections += server?.connectionCount ?? 0
        server?.close()
        server = nil
        let listener = try self.listener ?? context.listener(name, "vfio-user", path: path)
        self.listener = listener
        server = try Server(endpoint: endpoint, listener: listener, loop: context.loop) {
            [weak self] event in self?.follow(event)
        }
        context.tellListening(name, path)
    }

    private func follow(_ event: ServerEvent) {
        let source = "\(name) vfio-user"
        switch event {
        case .connected(let process):
            let who = process.map { ": process \($0)" } ?? ""
            events.tell("client connected\(who)", from: source)
        case .negotiated(let negotiation):
            // Before that a client has seen nothing of the function.
            onChange?(true)
            events.tell(
                "agreed on at most \(negotiation.transferSize) bytes a message",
                from: source
            )
        case .refused(let refusal):
            events.tell("\(refusal)", from: source, id: refusal.id.rawValue)
        case .disconnected(let why):
            events.tell("client gone: \(why)", from: source)
            onChange?(false)
        }
    }

    /// How the socket stands.
    var report: ServedDeviceReport.Socket {
        ServedDeviceReport.Socket(
            end: "vfio-user",
            path: path,
            state: server.map { $0.isConnected ? .connected : .listening } ?? .waiting,
            connections: earlierConnections + (server?.connectionCount ?? 0)
        )
    }

    /// Sends the client away and closes the socket.
    func close() {
        onChange = nil
        server?.close()
        server = nil
        listener = nil
    }
}
