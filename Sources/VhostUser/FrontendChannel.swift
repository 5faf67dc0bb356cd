internal import Glibc
internal import HostSystem

/// The front-end's end of a connection: one request at a time, and where there is an answer it is
/// waited for, but not longer than the deadline (VU-F-05).
final class FrontendChannel {
    /// The socket, to watch for the back-end's end.
    var descriptor: FileDescriptor { connection.descriptor }
    /// Protocol features in force: they decide whether an acknowledgement can be asked for.
    var protocolFeatures: ProtocolFeatures = []

    /// When everything that is waited for must be over, whatever one reply may take.
    var limit: Deadline?

    private let connection: Connection
    private let replyMilliseconds: UInt64
    private let cancel: FileDescriptor?
    private(set) var isOpen = true

    init(_ socket: UnixSocket, replyMilliseconds: UInt64, cancel: FileDescriptor?) {
        let deadlines = Connection.Deadlines(
            halfMessage: replyMilliseconds,
            unread: replyMilliseconds
        )
        connection = Connection(socket, deadlines: deadlines)
        self.replyMilliseconds = replyMilliseconds
        self.cancel = cancel
    }

    /// Sends a request that has no answer of its own. Where acknowledgements were negotiated it is
    /// waited for and a refusal is thrown; otherwise this returns once the bytes are sent.
    func tell(
        _ request: Request,
        _ payload: [UInt8] = [],
        _ descriptors: [FileDescriptor] = []
    ) throws(FrontendError) {
        let isAcknowledged = protocolFeatures.contains(.replyAcknowledge)
        try send(request, payload, descriptors, needsReply: isAcknowledged)
        guard isAcknowledged else { return }
        let answer = try number(try reply(to: request), of: request)
        guard answer == 0 else {
            throw FrontendError.refused(request: MessageTable.rule(request).name, answer: answer)
        }
    }

    /// Sends a request and waits for the number that answers it.
    func ask(_ request: Request) throws(FrontendError) -> UInt64 {
        try send(request, [], [], needsReply: false)
        return try number(try reply(to: request), of: request)
    }

    /// Sends GET_VRING_BASE, whose number is 0 (VU-F-06), and waits for the index.
    func askBase(of ring: UInt32) throws(FrontendError) -> UInt32 {
        let payload = VringState(index: ring, number: 0).encoded
        try send(.getVringBase, payload, [], needsReply: false)
        let answer = try reply(to: .getVringBase)
        guard let state = VringState(answer), state.index == ring else {
            throw fail(Violation(.reply, "GET_VRING_BASE of ring \(ring) answered for another"))
        }
        return state.number
    }

    /// True while the back-end has not closed. What it may have sent unasked is a fault.
    func check() -> Bool {
        guard isOpen else { return false }
        switch connection.receive() {
        case .waiting: return !connection.isHungUp
        case .message, .closed, .violation:
            isOpen = false
            return false
        }
    }

    /// Ends the connection.
    func close() {
        isOpen = false
        _ = shutdown(connection.descriptor.rawValue, Int32(SHUT_RDWR))
    }

    // MARK: - Bytes

    private var replyDeadline: Deadline {
        let own = Deadline(milliseconds: replyMilliseconds)
        guard let limit, limit.nanoseconds < own.nanoseconds else { return own }
        return limit
    }

    private func send(
        _ request: Request,
        _ payload: [UInt8],
        _ descriptors: [FileDescriptor],
        needsReply: Bool
    ) throws(FrontendError) {
        let name = MessageTable.rule(request).name
        guard isOpen else { throw FrontendError.closed(during: name) }
        let message = Message(request, needsReply: needsReply, payload: payload)
        try react(connection.send(message.encoded, descriptors: descriptors), name)
        let deadline = replyDeadline
        while connection.hasUnsent {
            try wait(toSend: true, until: deadline, name)
            try react(connection.flush(), name)
        }
    }

    private func react(_ event: Connection.Event?, _ name: String) throws(FrontendError) {
        switch event {
        case nil, .waiting: return
        case .violation(let violation): throw fail(violation)
        case .closed, .message: throw gone(name)
        }
    }

    /// The payload of the reply to `request`; anything else closes the connection (HI-D60).
    private func reply(to request: Request) throws(FrontendError) -> [UInt8] {
        let name = MessageTable.rule(request).name
        let deadline = replyDeadline
        while true {
            switch connection.receive() {
            case .waiting: try wait(toSend: false, until: deadline, name)
            case .closed: throw gone(name)
            case .violation(let violation): throw fail(violation)
            case .message(let message):
                let header = message.header
                guard header.request == request.rawValue, header.isReply, header.isWellFormed,
                    message.descriptors.isEmpty, !message.hadLateDescriptors
                else {
                    throw fail(
                        Violation(
                            .reply,
                            "\(name) answered by request \(header.request), flags \(header.flags),"
                                + " \(message.descriptors.count) descriptors"
                        )
                    )
                }
                return message.payload
            }
        }
    }

    private func number(
        _ payload: [UInt8],
        of request: Request
    ) throws(FrontendError) -> UInt64 {
        guard let value = NumberPayload.decode(payload) else {
            let name = MessageTable.rule(request).name
            throw fail(Violation(.reply, "\(name) answered with \(payload.count) bytes"))
        }
        return value
    }

    /// Waits until the socket is ready, the deadline has passed, or the caller gives up.
    private func wait(
        toSend: Bool,
        until deadline: Deadline,
        _ name: String
    ) throws(FrontendError) {
        switch connection.wait(toSend: toSend, until: deadline, cancel: cancel) {
        case .ready: return
        case .late:
            let isOwn = limit?.hasPassed != true
            let when = isOwn ? "in \(replyMilliseconds) ms" : "before the connect deadline"
            throw fail(Violation(.stall, "\(name) is not answered \(when)"))
        case .cancelled:
            close()
            throw FrontendError.cancelled
        }
    }

    /// Closes the connection for a fault of the back-end.
    func fail(_ violation: Violation) -> FrontendError {
        close()
        return .violation(violation)
    }

    private func gone(_ name: String) -> FrontendError {
        isOpen = false
        return .closed(during: name)
    }
}
