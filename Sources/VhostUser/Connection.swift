public import HostSystem

/// A socket as a stream of vhost-user messages, either role (VU-H-02 … VU-H-05): see `FramedStream`.
public final class Connection {
    /// How long the other end may take.
    public typealias Deadlines = FramedStream.Deadlines

    /// What reading led to.
    public enum Event {
        /// No whole message is there yet.
        case waiting
        /// A message.
        case message(Message)
        /// The other end closed between two messages.
        case closed
        /// The stream cannot be continued.
        case violation(Violation)
    }

    /// Most bytes that wait to be sent; a caller that answers one message at a time never gets there.
    public static let unsentLimit = 65536

    private static let format = FrameFormat(
        headerSize: MessageHeader.size,
        unsentLimit: unsentLimit
    ) { bytes in
        guard let header = MessageHeader(bytes),
            header.payloadSize <= UInt32(MessageHeader.largestPayload)
        else { return nil }
        return Int(header.payloadSize)
    }

    private let stream: FramedStream

    /// Takes over a connected socket.
    public init(_ socket: UnixSocket, deadlines: Deadlines = Deadlines()) {
        stream = FramedStream(socket, format: Connection.format, deadlines: deadlines)
    }

    /// The socket, to register with epoll or poll.
    public var descriptor: FileDescriptor { stream.descriptor }

    /// Bytes of ours that the socket did not take yet.
    public var unsentCount: Int { stream.unsentCount }

    /// True while bytes of ours wait.
    public var hasUnsent: Bool { stream.hasUnsent }

    /// When the other end has stalled: half a message came, or a reply is not read.
    public var stallDeadline: Deadline? { stream.stallDeadline }

    /// The fault of a stalled other end, once its deadline has passed.
    public var stall: Violation? { stream.stall.map(Violation.init) }

    /// True when the other end is gone, whatever is still to be read.
    public var isHungUp: Bool { stream.isHungUp }

    /// Reads on, at most to the end of one message.
    public func receive() -> Event { Connection.event(of: stream.receive()) }

    /// Queues a message and sends what the socket takes; `nil` when all is well so far.
    public func send(_ bytes: [UInt8], descriptors: [FileDescriptor] = []) -> Event? {
        stream.send(bytes, descriptors: descriptors).map(Connection.event)
    }

    /// Sends what the socket takes of the bytes that wait.
    public func flush() -> Event? { stream.flush().map(Connection.event) }

    /// Waits until something can be read or sent.
    func wait(
        toSend: Bool,
        until deadline: Deadline,
        cancel: FileDescriptor?
    ) -> FramedStream.Wait {
        stream.wait(toSend: toSend, until: deadline, cancel: cancel)
    }

    private static func event(of event: FramedStream.Event) -> Event {
        switch event {
        case .waiting: return .waiting
        case .closed: return .closed
        case .fault(let fault): return .violation(Violation(fault))
        case .message(let frame):
            guard let header = MessageHeader(frame.header) else {
                return .violation(Violation(.shortHeader, "\(frame.header.count) of 12 bytes"))
            }
            return .message(
                Message(
                    header: header,
                    payload: frame.payload,
                    descriptors: frame.descriptors,
                    hadLateDescriptors: frame.hadLateDescriptors
                )
            )
        }
    }
}

extension Violation {
    /// Names what ended the stream.
    init(_ fault: FrameFault) {
        switch fault {
        case .shortHeader(let count): self.init(.shortHeader, "\(count) of 12 bytes")
        case .shortPayload(let count, let size):
            self.init(.shortPayload, "\(count) of \(size) bytes")
        case .refused(let bytes):
            let header = MessageHeader(bytes)
            let size = header?.payloadSize ?? 0
            self.init(.oversize, "request \(header?.request ?? 0) states \(size) bytes")
        case .truncated(let count, _):
            self.init(.truncated, "the kernel delivered only \(count) descriptors")
        case .stalled(let count):
            self.init(.stall, "\(count) bytes of a message, and no more for too long")
        case .unread(let count): self.init(.stall, "\(count) bytes of replies are not read")
        case .transfer(let error): self.init(.transfer, error.description)
        }
    }
}
