public import HostSystem
public import VirtioSpec

/// The back-end's half of one vhost-user connection as a state machine: messages go in, steps come
/// out. It has no socket, no thread and no clock, so a test can drive it message by message.
///
/// A request is carried out on a copy of the state. Where the result would take away something that
/// the device may be using (memory, a working ring), the copy waits until the device has stopped:
/// `accept` answers `needsQuiesce`, and `resume` puts the copy in force. A refused request therefore
/// never disturbs traffic.
///
///     var step = session.accept(message)
///     if step.needsQuiesce { stop the rings; step = session.resume { ring in positions[ring] } }
///     send step.reply; signal step.errorSignals; close on step.close
///     … and once no more messages are there:
///     tell the device what session.publish() says
public struct BackendSession: Sendable {
    /// What one message led to.
    public struct Step: Sendable {
        /// Bytes to send.
        public var reply: [UInt8]?
        /// The device has to stop using the last snapshot; call `resume` then, and nothing before.
        public var needsQuiesce = false
        /// Error descriptors to signal: their rings cannot be worked on (VU-B-17).
        public var errorSignals: [FileDescriptor] = []
        /// A request was not carried out; for counters and logs.
        public var refused: Violation?
        /// The connection has to end.
        public var close: Violation?
    }

    /// What the device has to be told at the end of a turn.
    public struct Publication: Sendable {
        /// The snapshot to use from now on; `nil` when the last one still holds.
        public var snapshot: PeerDescription?
        /// Working rings whose call descriptor alone was replaced (VU-B-14).
        public var calls: [(ring: Int, call: FileDescriptor?)] = []
        /// New call descriptors of rings that went on working: each is to be signalled once after
        /// the device has taken it over, for used buffers that the old one may not have announced.
        public var signals: [FileDescriptor] = []
    }

    /// All the front-end has said, as far as it is in force.
    public private(set) var state: BackendState

    private struct Pending {
        var state: BackendState
        var answer: BackendState.Answer
        var header: MessageHeader
    }

    private var pending: Pending?
    /// What the device was last told.
    private var published = PeerDescription(features: [], regions: [], rings: [])
    /// The device was asked to stop using what it was last told.
    private var isWithdrawn = false
    private var unresolvable: [Int] = []

    /// Starts with a front-end that has said nothing.
    public init(offer: BackendOffer) {
        state = BackendState(offer: offer)
    }

    /// True while a request waits for the device to stop.
    public var isWaiting: Bool { pending != nil }

    /// Changes the features offered, unless the front-end has asked for them already.
    ///
    /// - Returns: false when it is too late for this connection.
    public mutating func offer(_ features: FeatureBits) -> Bool {
        guard !state.wasAskedForFeatures else { return false }
        state.offer.features = features
        return true
    }

    /// Takes one message.
    public mutating func accept(_ message: Message) -> Step {
        precondition(pending == nil, "a message was given while another one waits for the device")
        let header = message.header
        guard header.isWellFormed, !header.isReply else {
            return closing(
                Violation(
                    .header,
                    "request \(header.request) has flags \(hex(UInt64(header.flags)))"
                )
            )
        }
        guard let rule = MessageTable.rule(header.request) else {
            let refusal = RequestRefusal(
                .request,
                "request \(header.request) is unknown",
                otherwise: .goOn
            )
            return refused(refusal, header)
        }
        do throws(RequestRefusal) {
            try check(message, rule)
            var next = state
            let answer = try next.perform(rule.request, message.payload, message.descriptors)
            return propose(Pending(state: next, answer: answer, header: header))
        } catch {
            if rule.request == .setFeatures { state.refusedFeatures = true }
            return refused(error, header, ownAnswer: isAwaited(rule))
        }
    }

    /// Puts the waiting request in force, once the device has stopped.
    ///
    /// `nextAvailable` gives the position of a ring that the device worked on, and `nil` for a ring
    /// that it never touched (VU-R-02).
    public mutating func resume(nextAvailable: (Int) -> UInt16?) -> Step {
        guard var request = pending else { return Step() }
        pending = nil
        // From here on positions are known exactly, also for the rings that will go on.
        for ring in published.rings where ring.isStarted {
            guard let position = nextAvailable(ring.index) else { continue }
            request.state.rings[ring.index].base = position
        }
        isWithdrawn = true
        return commit(request)
    }

    /// Tells what the device has to learn of the messages since the last call.
    public mutating func publish() -> Publication {
        guard pending == nil else { return Publication() }
        let old = published
        let new = state.description
        published = new
        var news = Publication()
        let swapped = new.rings.filter { ring in
            let before = old.rings.first { $0.index == ring.index }
            return ring.isStarted && before?.isStarted == true && before?.call !== ring.call
        }
        news.signals = swapped.compactMap(\.call)
        if isWithdrawn || !new.isSameButForCalls(as: old) {
            news.snapshot = new
        } else {
            news.calls = swapped.map { ($0.index, $0.call) }
        }
        isWithdrawn = false
        return news
    }

    // MARK: - Steps

    /// Gate, size and descriptors, in the order in which a refusal says most.
    private func check(_ message: Message, _ rule: MessageRule) throws(RequestRefusal) {
        guard state.isOpen(rule.gate) else {
            throw RequestRefusal(
                .notNegotiated,
                "\(rule.name) needs a feature that was not negotiated",
                otherwise: .goOn
            )
        }
        guard rule.payload.allows(message.payload.count) else {
            throw RequestRefusal(.size, "\(rule.name) with \(message.payload.count) payload bytes")
        }
        guard !message.hadLateDescriptors else {
            throw RequestRefusal(.descriptors, "\(rule.name): descriptors behind its first byte")
        }
        guard rule.descriptors.allows(message.descriptors.count) else {
            throw RequestRefusal(
                .descriptors,
                "\(rule.name) with \(message.descriptors.count) descriptors"
            )
        }
    }

    /// True for a request whose sender waits for a reply that cannot say no.
    private func isAwaited(_ rule: MessageRule) -> Bool {
        guard case .own = rule.answer else { return false }
        return state.isOpen(rule.gate)
    }

    private mutating func propose(_ request: Pending) -> Step {
        guard !isWithdrawn, published.mustStop(for: request.state.description) else {
            return commit(request)
        }
        pending = request
        return Step(needsQuiesce: true)
    }

    private mutating func commit(_ request: Pending) -> Step {
        state = request.state
        var step = Step(errorSignals: newlyUnresolvable())
        switch request.answer {
        case .acknowledgement:
            step.reply = acknowledgement(of: request.header, 0)
        case .number(let value):
            step.reply = Message.reply(
                to: request.header.request,
                payload: NumberPayload.encode(value)
            )
        case .base(let ring):
            let base = VringState(
                index: UInt32(clamping: ring),
                number: UInt32(state.rings[ring].base)
            )
            step.reply = Message.reply(to: request.header.request, payload: base.encoded)
        }
        return step
    }

    private mutating func newlyUnresolvable() -> [FileDescriptor] {
        let now = state.unresolvable()
        let new = now.filter { !unresolvable.contains($0) }
        unresolvable = now
        return new.compactMap { state.rings[$0].error }
    }

    /// A reply to a request that asked for one, where that was negotiated (vhost-user: REPLY_ACK).
    private func acknowledgement(of header: MessageHeader, _ value: UInt64) -> [UInt8]? {
        guard header.needsReply, state.protocolFeatures.contains(.replyAcknowledge) else {
            return nil
        }
        return Message.reply(to: header.request, payload: NumberPayload.encode(value))
    }

    private func refused(
        _ refusal: RequestRefusal,
        _ header: MessageHeader,
        ownAnswer: Bool = false
    ) -> Step {
        var step = Step(refused: refusal.violation)
        let acknowledgement = ownAnswer ? nil : acknowledgement(of: header, 1)
        if refusal.alwaysCloses || ownAnswer
            || (acknowledgement == nil && refusal.otherwise == .close)
        {
            step.close = refusal.violation
        } else {
            step.reply = acknowledgement
        }
        return step
    }

    private func closing(_ violation: Violation) -> Step {
        Step(refused: violation, close: violation)
    }
}
