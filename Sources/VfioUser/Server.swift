public import GuestMemory
public import HostSystem
public import PCI

/// What happens at a server; for logs.
public enum ServerEvent: Sendable {
    /// A client connected; its process, where the kernel tells.
    case connected(process: Int32?)
    /// VERSION was agreed on.
    case negotiated(Negotiation)
    /// A client broke a rule.
    case refused(Refusal)
    /// The client is gone; why.
    case disconnected(String)
}

/// Presents one emulated function on one unix socket by vfio-user: to QEMU's `vfio-user-pci`, to any
/// other client, and to our own. One client is served at a time; clients come and go, the function
/// stays as it is until one of them resets it.
///
/// Everything happens on the thread of the event loop, and nothing here blocks.
public final class Server: PCIHost {
    /// Where it listens, or what the socket was adopted as.
    public let path: String
    /// Clients that were served so far, the present one included.
    public private(set) var connectionCount: UInt64 = 0
    /// How often each rule was broken, over all clients.
    public private(set) var refusals: [FaultID: UInt64] = [:]
    /// The latest broken rule, with its values.
    public private(set) var lastRefusal: Refusal?

    let endpoint: any PCIEndpoint
    private let loop: EventLoop
    private let limits: ServerLimits
    private let report: ((ServerEvent) -> Void)?
    private var acceptor: Acceptor?
    private var client: ServedClient?

    /// Listens at `path`, replacing a socket that nobody serves any more.
    ///
    /// Throws when the path cannot be listened at, for example since another process answers there.
    public convenience init(
        endpoint: any PCIEndpoint,
        path: String,
        loop: EventLoop,
        limits: ServerLimits = ServerLimits(),
        report: ((ServerEvent) -> Void)? = nil
    ) throws(SystemError) {
        try self.init(
            endpoint: endpoint,
            listener: try UnixListener(path: path),
            loop: loop,
            limits: limits,
            report: report
        )
    }

    /// Serves the connections of a listener.
    public init(
        endpoint: any PCIEndpoint,
        listener: UnixListener,
        loop: EventLoop,
        limits: ServerLimits = ServerLimits(),
        report: ((ServerEvent) -> Void)? = nil
    ) throws(SystemError) {
        self.endpoint = endpoint
        path = listener.path
        self.loop = loop
        self.limits = limits
        self.report = report
        endpoint.attach(self)
        acceptor = try Acceptor(
            listener,
            loop: loop,
            pause: limits.acceptPause,
            onConnection: { [weak self] socket in self?.serve(socket) },
            onFailure: { [weak self] error in self?.acceptFailed(error) }
        )
    }

    deinit {
        client?.abandon()
        acceptor?.close()
    }

    /// True while a client is served.
    public var isConnected: Bool { client != nil }

    /// Ends the present connection, if there is one.
    public func disconnect(_ why: String) {
        client?.end(why)
    }

    /// Ends the present connection and stops listening; the path is removed.
    public func close() {
        disconnect("the server is closed")
        acceptor?.close()
    }

    // MARK: - The function's host

    /// Signals whoever is connected to a vector.
    public func raise(_ vector: Int) {
        client?.raise(vector)
    }

    /// What the client lets the function reach directly; empty without a client.
    public var memory: MemoryTable { client?.memory ?? .empty }

    /// Reads the client's memory, by message where it is not mapped. `then` is called once, later,
    /// with the bytes or with the reason; never from inside this call, and never while a command of
    /// the client waits for its reply (VFU-S-45 … VFU-S-47).
    public func readDMA(_ address: UInt64, _ count: Int, then: @escaping DMACompletion) {
        guard let client else { return fail(then) }
        client.readDMA(address, count, then)
    }

    /// Writes the client's memory, by message where it is not mapped; `then` as for `readDMA`.
    public func writeDMA(_ address: UInt64, _ bytes: [UInt8], then: @escaping DMACompletion) {
        guard let client else { return fail(then) }
        client.writeDMA(address, bytes, then)
    }

    private func fail(_ then: @escaping DMACompletion) {
        loop.after(milliseconds: 0) { then(.failure(.disconnected)) }
    }

    // MARK: - What the served client tells

    /// Counts a broken rule and reports it.
    func count(_ refusal: Refusal) {
        refusals[refusal.id, default: 0] &+= 1
        lastRefusal = refusal
        report?(.refused(refusal))
    }

    /// Reports what was agreed on.
    func negotiated(_ negotiation: Negotiation) {
        report?(.negotiated(negotiation))
    }

    /// Lets go of a client that is gone.
    func forget(_ ended: ServedClient, _ why: String) {
        if client === ended { client = nil }
        report?(.disconnected(why))
    }

    // MARK: - Accepting

    private func serve(_ socket: UnixSocket) {
        // A client that was killed and started again may be here before the loop has seen the end of
        // its first connection.
        if let present = client, present.isHungUp { present.end("closed by the client") }
        guard acceptor?.isOpen == true else { return }
        guard client == nil else {
            let who = socket.peerProcess.map { "process \($0)" } ?? "another process"
            return turnAway(
                socket,
                Refusal(.busy, "\(who) connects while a client is served", .busy)
            )
        }
        connectionCount &+= 1
        let process = socket.peerProcess
        let served = ServedClient(server: self, socket: socket, limits: limits, loop: loop)
        client = served
        report?(.connected(process: process))
        served.start()
    }

    /// Nobody waits for the client's VERSION, but if it has come already it is answered.
    private func turnAway(_ socket: UnixSocket, _ refusal: Refusal) {
        let asked = socket.stopReading(keeping: MessageHeader.size)
        if let header = MessageHeader(asked), header.isCommand {
            let reply = MessageHeader(
                identifier: header.identifier,
                command: header.command,
                messageSize: UInt32(MessageHeader.size),
                flags: [.reply, .error],
                error: UInt32(refusal.errno.rawValue)
            )
            _ = try? socket.send(reply.encoded[...])
        }
        count(refusal)
    }

    private func acceptFailed(_ error: SystemError) {
        let id: FaultID = error.errno == .tooManyDescriptors ? .noDescriptors : .transfer
        count(Refusal(id, error.description))
    }
}
