internal import HostSystem
internal import VirtioSpec

/// One front-end that is being served: its socket, its session, and the device's answers in between.
final class ServedFrontend {
    private unowned let backend: Backend
    private let loop: EventLoop
    private let limits: BackendLimits
    private let connection: Connection
    private var session: BackendSession

    private var watch: EventLoop.Source?
    private var timer: EventLoop.Source?
    /// Counts quiesce requests, so that a late `resume` of an earlier one does nothing.
    private var quiesceNumber = 0
    private var quiesceDeadline: Deadline?
    private var isServing = false
    private(set) var hasEnded = false

    init(
        backend: Backend,
        socket: UnixSocket,
        offer: BackendOffer,
        limits: BackendLimits,
        loop: EventLoop
    ) {
        self.backend = backend
        self.loop = loop
        self.limits = limits
        connection = Connection(socket, deadlines: limits.deadlines)
        session = BackendSession(offer: offer)
    }

    deinit {
        release()
    }

    /// Tells the device and begins to read.
    func start() {
        backend.delegate?.backendConnected(backend)
        finishTurn()
    }

    /// True when the front-end is gone, though the loop may not have said so yet.
    var isHungUp: Bool { connection.isHungUp }

    func offer(_ features: FeatureBits) -> Bool {
        session.offer(features)
    }

    // MARK: - One turn

    private func serve() {
        guard !isServing else { return }
        isServing = true
        var budget = limits.messagesPerTurn
        while budget > 0, !hasEnded, !session.isWaiting, !connection.hasUnsent {
            budget -= 1
            switch connection.receive() {
            case .message(let message): perform(session.accept(message))
            case .waiting: budget = 0
            case .closed: end(.closed)
            case .violation(let violation): end(violation)
            }
        }
        isServing = false
        finishTurn()
    }

    private func perform(_ step: BackendSession.Step) {
        guard !hasEnded else { return }
        if let refused = step.refused { backend.count(refused) }
        for descriptor in step.errorSignals { signal(descriptor) }
        guard !hasEnded else { return }
        if let reply = step.reply { react(connection.send(reply)) }
        if let violation = step.close {
            end(.fault(id: violation.id.rawValue, detail: violation.detail))
        } else if step.needsQuiesce {
            quiesce()
        }
    }

    private func quiesce() {
        quiesceNumber += 1
        quiesceDeadline = Deadline(milliseconds: limits.quiesce)
        let number = quiesceNumber
        guard let delegate = backend.delegate else { return resume(number) }
        delegate.backend(backend, quiesce: { [weak self] in self?.resume(number) })
    }

    private func resume(_ number: Int) {
        guard !hasEnded, session.isWaiting, number == quiesceNumber else { return }
        quiesceDeadline = nil
        let backend = backend
        // On a copy: the device may call back into this object while it is asked.
        var next = session
        let step = next.resume { ring in
            backend.delegate?.backend(backend, nextAvailableOf: ring)
        }
        guard !hasEnded else { return }
        session = next
        perform(step)
        serve()
    }

    /// What follows once no message is half-way and nothing more is to be read now.
    private func finishTurn() {
        guard !hasEnded else { return }
        publish()
        guard !hasEnded else { return }
        arrangeWatch()
        arrangeTimer()
    }

    private func publish() {
        let news = session.publish()
        if let snapshot = news.snapshot {
            backend.delegate?.backend(backend, changed: snapshot)
        }
        for (ring, call) in news.calls where !hasEnded {
            backend.delegate?.backend(backend, callChanged: ring, to: call)
        }
        guard !hasEnded else { return }
        for call in news.signals where !hasEnded { signal(call) }
    }

    /// A front-end that makes us wait for its own eventfd is gone for us (HI-D25).
    private func signal(_ event: FileDescriptor) {
        guard !hasEnded, EventFD.signal(event.rawValue) == .blocked else { return }
        end(
            .fault(
                id: "notify/blocked",
                detail: "a call or error eventfd blocks whoever signals it"
            )
        )
    }

    /// Reads only while there is somewhere for the next message to go: the kernel's socket buffer is
    /// the bound for a front-end that does not wait.
    private func arrangeWatch() {
        let wanted = !session.isWaiting && !connection.hasUnsent
        if wanted, watch == nil {
            do throws(SystemError) {
                watch = try loop.watch(connection.descriptor) { [weak self] in self?.serve() }
            } catch {
                end(Violation(.transfer, error.description))
            }
        } else if !wanted, let source = watch {
            loop.remove(source)
            watch = nil
        }
    }

    // MARK: - Time

    private func arrangeTimer() {
        if let source = timer { loop.remove(source) }
        timer = nil
        let due = [connection.stallDeadline, quiesceDeadline].compactMap { $0 }
        guard let first = due.map(\.remainingMilliseconds).min() else { return }
        let wait = connection.hasUnsent ? min(limits.retry, UInt64(first)) : UInt64(first)
        timer = loop.after(milliseconds: wait) { [weak self] in self?.timeCame() }
    }

    private func timeCame() {
        timer = nil
        if quiesceDeadline?.hasPassed == true {
            return end(Violation(.quiesce, "not quiet after \(limits.quiesce) ms"))
        }
        react(connection.flush())
        guard !hasEnded else { return }
        if let stall = connection.stall { return end(stall) }
        finishTurn()
    }

    // MARK: - The end

    private func react(_ event: Connection.Event?) {
        switch event {
        case .closed: end(.closed)
        case .violation(let violation): end(violation)
        case .waiting, .message, nil: break
        }
    }

    private func end(_ violation: Violation) {
        guard !hasEnded else { return }
        backend.count(violation)
        end(.fault(id: violation.id.rawValue, detail: violation.detail))
    }

    /// Ends the connection: the device stops first, then files and socket are let go (VU-B-21).
    func end(_ reason: DisconnectReason) {
        guard !hasEnded else { return }
        abandon()
        // The device may let go of the back-end when it hears of this.
        let backend = backend
        backend.delegate?.backend(backend, disconnected: reason)
        backend.forget(self)
    }

    /// Stops serving without telling anybody.
    func abandon() {
        hasEnded = true
        release()
    }

    private func release() {
        if let source = watch { loop.remove(source) }
        if let source = timer { loop.remove(source) }
        watch = nil
        timer = nil
    }
}
