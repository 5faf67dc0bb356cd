public import HostSystem
public import VirtioSpec

/// A vhost-user back-end at one socket path: it listens, serves one front-end at a time, and tells
/// a device (its delegate) what there is to work on. Front-ends come, go and come back for ever.
///
/// Everything happens on the thread of the event loop; nothing here blocks. The delegate is not
/// retained: it owns the back-end.
public final class Backend {
    /// Where it listens.
    public let path: String
    /// Front-ends that were served so far, the present one included.
    public private(set) var connectionCount: UInt64 = 0
    /// How often each rule was broken, over all connections.
    public private(set) var violations: [ViolationID: UInt64] = [:]
    /// The latest broken rule, with its values.
    public private(set) var lastViolation: Violation?

    weak var delegate: (any BackendDelegate)?

    private let loop: EventLoop
    private let limits: BackendLimits
    private var offer: BackendOffer
    private var acceptor: Acceptor?
    private var frontend: ServedFrontend?

    /// Listens at `path`, replacing a socket that nobody serves any more.
    ///
    /// Throws when the path cannot be listened at, for example since another process answers there;
    /// the error names it.
    public convenience init(
        path: String,
        loop: EventLoop,
        offer: BackendOffer,
        delegate: any BackendDelegate,
        limits: BackendLimits = BackendLimits()
    ) throws(SystemError) {
        try self.init(
            listener: try UnixListener(path: path),
            loop: loop,
            offer: offer,
            delegate: delegate,
            limits: limits
        )
    }

    /// Takes front-ends from a socket that is there already.
    public init(
        listener: UnixListener,
        loop: EventLoop,
        offer: BackendOffer,
        delegate: any BackendDelegate,
        limits: BackendLimits = BackendLimits()
    ) throws(SystemError) {
        path = listener.path
        self.loop = loop
        self.offer = offer
        self.limits = limits
        self.delegate = delegate
        acceptor = try Acceptor(
            listener,
            loop: loop,
            pause: limits.acceptPause,
            onConnection: { [weak self] socket in self?.serve(socket) },
            onFailure: { [weak self] error in self?.acceptFailed(error) }
        )
    }

    deinit {
        frontend?.abandon()
        acceptor?.close()
    }

    /// True while a front-end is served.
    public var isConnected: Bool { frontend != nil }

    /// The features offered. A change counts for a front-end that has not asked yet, and for all
    /// that come later; to make the present one ask again, disconnect it.
    public var offeredFeatures: FeatureBits {
        get { offer.features }
        set {
            offer.features = newValue
            _ = frontend?.offer(newValue)
        }
    }

    /// Ends the present connection, if there is one; the delegate is told, with `why`.
    public func disconnect(_ why: String) {
        frontend?.end(.requested(why))
    }

    /// Ends the present connection and stops listening; the path is removed.
    public func close() {
        disconnect("the back-end is closed")
        acceptor?.close()
    }

    /// Counts a broken rule and tells the delegate.
    func count(_ violation: Violation) {
        violations[violation.id, default: 0] &+= 1
        lastViolation = violation
        delegate?.backend(self, refused: violation)
    }

    /// Lets go of a connection that has ended.
    func forget(_ ended: ServedFrontend) {
        if frontend === ended { frontend = nil }
    }

    // MARK: - Accepting

    private func serve(_ socket: UnixSocket) {
        // A front-end that was killed and started again may be here before the loop has seen the
        // end of its first connection; it must not be turned away for that.
        if let present = frontend, present.isHungUp { present.end(.closed) }
        // The device may have closed the back-end when it heard of that end.
        guard acceptor?.isOpen == true else { return }
        guard frontend == nil else {
            // Closing is the only refusal that the protocol has before its first message.
            let who = socket.peerProcess.map { "process \($0)" } ?? "another process"
            return count(Violation(.busy, "\(who) connects while a front-end is served"))
        }
        connectionCount &+= 1
        let served = ServedFrontend(
            backend: self,
            socket: socket,
            offer: offer,
            limits: limits,
            loop: loop
        )
        frontend = served
        served.start()
    }

    private func acceptFailed(_ error: SystemError) {
        let id: ViolationID = error.errno == .tooManyDescriptors ? .noDescriptors : .transfer
        count(Violation(id, error.description))
    }
}
