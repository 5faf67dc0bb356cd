internal import Glibc
public import HostSystem

/// A socket as a stream of whole messages, either role: partial reads and writes are continued where
/// they stopped, nothing blocks, and nothing the other end does makes it hold more than one message
/// each way (VU-H-02 … VU-H-05).
///
/// A message is read header first, then exactly its payload, so that descriptors, which travel with
/// the first byte of a message, are never mistaken for those of the next one.
public final class Connection {
    /// How long the other end may take.
    public struct Deadlines: Sendable {
        /// Milliseconds from the first byte of a message to its last.
        public var halfMessage: UInt64
        /// Milliseconds that bytes of ours may wait to be read.
        public var unread: UInt64

        /// Sets both, in milliseconds.
        public init(halfMessage: UInt64 = 5000, unread: UInt64 = 5000) {
            self.halfMessage = halfMessage
            self.unread = unread
        }
    }

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

    /// The socket, to register with epoll or poll.
    public var descriptor: FileDescriptor { socket.descriptor }

    /// Most bytes that wait to be sent; a caller that answers one message at a time never gets there.
    public static let unsentLimit = 65536

    private struct Outgoing {
        var bytes: ArraySlice<UInt8>
        var descriptors: [FileDescriptor]
    }

    private let socket: UnixSocket
    private let deadlines: Deadlines
    private var head: [UInt8] = []
    private var header: MessageHeader?
    private var payload: [UInt8] = []
    private var descriptors: [FileDescriptor] = []
    private var hadLateDescriptors = false
    private var messageDeadline: Deadline?
    private var outgoing: [Outgoing] = []
    private var unsentDeadline: Deadline?

    /// Takes over a connected socket.
    public init(_ socket: UnixSocket, deadlines: Deadlines = Deadlines()) {
        self.socket = socket
        self.deadlines = deadlines
    }

    /// Bytes of ours that the socket did not take yet.
    public var unsentCount: Int { outgoing.reduce(0) { $0 + $1.bytes.count } }

    /// True while bytes of ours wait.
    public var hasUnsent: Bool { !outgoing.isEmpty }

    /// When the other end has stalled: half a message came, or a reply is not read.
    public var stallDeadline: Deadline? {
        guard let first = messageDeadline else { return unsentDeadline }
        guard let second = unsentDeadline else { return first }
        return first.nanoseconds < second.nanoseconds ? first : second
    }

    /// The fault of a stalled other end, once its deadline has passed.
    public var stall: Violation? {
        if let deadline = messageDeadline, deadline.hasPassed {
            let have = head.count + payload.count
            return Violation(.stall, "\(have) bytes of a message, and no more for too long")
        }
        if let deadline = unsentDeadline, deadline.hasPassed {
            return Violation(.stall, "\(unsentCount) bytes of replies are not read")
        }
        return nil
    }

    /// True when the other end is gone, whatever is still to be read.
    public var isHungUp: Bool {
        var entry = pollfd(fd: descriptor.rawValue, events: 0, revents: 0)
        guard unsafe poll(&entry, 1, 0) == 1 else { return false }
        return entry.revents & Int16(POLLHUP | POLLERR) != 0
    }

    /// Reads on, at most to the end of one message.
    public func receive() -> Event {
        while header == nil {
            switch read(MessageHeader.size - head.count) {
            case .stopped(let event): return event
            case .progress(let bytes): head += bytes
            }
            guard head.count == MessageHeader.size, let new = MessageHeader(head) else { continue }
            guard new.payloadSize <= UInt32(MessageHeader.largestPayload) else {
                return .violation(
                    Violation(.oversize, "request \(new.request) states \(new.payloadSize) bytes")
                )
            }
            header = new
        }
        guard let header else { return .waiting }
        let size = Int(header.payloadSize)
        while payload.count < size {
            switch read(size - payload.count) {
            case .stopped(let event): return event
            case .progress(let bytes): payload += bytes
            }
        }
        let message = Message(
            header: header,
            payload: payload,
            descriptors: descriptors,
            hadLateDescriptors: hadLateDescriptors
        )
        forgetMessage()
        return .message(message)
    }

    private enum Read {
        case progress([UInt8])
        case stopped(Event)
    }

    /// Reads at most `count` bytes of the present message.
    private func read(_ count: Int) -> Read {
        let received: UnixSocket.Received
        do throws(SystemError) {
            guard let some = try socket.receive(limit: count) else {
                return .stopped(.waiting)
            }
            received = some
        } catch {
            return .stopped(Connection.event(of: error))
        }
        if received.isTruncated {
            let detail = "the kernel delivered only \(received.descriptors.count) descriptors"
            return .stopped(.violation(Violation(.truncated, detail)))
        }
        guard !received.bytes.isEmpty else {
            if let header {
                let detail = "\(payload.count) of \(header.payloadSize) bytes"
                return .stopped(.violation(Violation(.shortPayload, detail)))
            }
            guard !head.isEmpty else { return .stopped(.closed) }
            return .stopped(.violation(Violation(.shortHeader, "\(head.count) of 12 bytes")))
        }
        if head.isEmpty {
            descriptors = received.descriptors
            messageDeadline = Deadline(milliseconds: deadlines.halfMessage)
        } else if !received.descriptors.isEmpty {
            hadLateDescriptors = true
        }
        return .progress(received.bytes)
    }

    private func forgetMessage() {
        head = []
        header = nil
        payload = []
        descriptors = []
        hadLateDescriptors = false
        messageDeadline = nil
    }

    /// Queues a message and sends what the socket takes; `nil` when all is well so far.
    public func send(_ bytes: [UInt8], descriptors: [FileDescriptor] = []) -> Event? {
        guard unsentCount + bytes.count <= Connection.unsentLimit else {
            return .violation(Violation(.stall, "\(unsentCount) bytes of replies are not read"))
        }
        outgoing.append(Outgoing(bytes: bytes[...], descriptors: descriptors))
        return flush()
    }

    /// Sends what the socket takes of the bytes that wait.
    public func flush() -> Event? {
        while var next = outgoing.first {
            let sent: Int
            do throws(SystemError) {
                sent = try socket.send(next.bytes, descriptors: next.descriptors)
            } catch {
                return Connection.event(of: error)
            }
            guard sent > 0 else {
                if unsentDeadline == nil {
                    unsentDeadline = Deadline(milliseconds: deadlines.unread)
                }
                return nil
            }
            next.bytes = next.bytes.dropFirst(sent)
            next.descriptors = []
            if next.bytes.isEmpty {
                outgoing.removeFirst()
            } else {
                outgoing[0] = next
            }
        }
        unsentDeadline = nil
        return nil
    }

    private static func event(of error: SystemError) -> Event {
        switch error.errno {
        case .connectionReset, .brokenPipe: .closed
        default: .violation(Violation(.transfer, error.description))
        }
    }
}
