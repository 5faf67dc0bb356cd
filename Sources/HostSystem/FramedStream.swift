internal import Glibc

/// A socket as a stream of whole messages, either end: partial reads and writes are continued where
/// they stopped, nothing blocks, and nothing the other end does makes it hold more than one message
/// to be read or `FrameFormat.unsentLimit` bytes to be sent.
///
/// Descriptors travel with the first byte of a message and are never mistaken for those of the next
/// one (VU-H-03, VFU-H-10): a message is read header first, then exactly its payload, or, where the
/// format lets it read ahead, with as much as is there, up to the message that brings descriptors.
/// A message that is there costs one system call for its header and one for its payload, if it has
/// one; with reading ahead, one for all that came together. A message that the socket takes costs one.
public final class FramedStream {
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

    /// What reading or sending led to.
    public enum Event {
        /// No whole message is there yet.
        case waiting
        /// A message.
        case message(Frame)
        /// The other end closed between two messages.
        case closed
        /// The stream cannot be continued.
        case fault(FrameFault)
    }

    /// The socket, to register with epoll or poll.
    public var descriptor: FileDescriptor { socket.descriptor }

    private struct Outgoing {
        var bytes: ArraySlice<UInt8>
        var descriptors: [FileDescriptor]
    }

    private let socket: UnixSocket
    private let format: FrameFormat
    private let deadlines: Deadlines
    private var ahead: ReadAhead
    /// The first byte of the present message is, or was, in what was read last.
    private var isFresh = false
    private var frame = Frame()
    /// Known once the header is whole.
    private var payloadSize: Int?
    private var messageDeadline: Deadline?
    private var outgoing: [Outgoing] = []
    private var unsentDeadline: Deadline?

    /// Takes over a connected socket.
    public init(_ socket: UnixSocket, format: FrameFormat, deadlines: Deadlines = Deadlines()) {
        self.socket = socket
        self.format = format
        self.deadlines = deadlines
        ahead = ReadAhead(capacity: max(format.readAhead, format.headerSize))
    }

    /// Bytes were read that no message was made of yet: `receive` has to be called once more before
    /// anybody waits for the socket.
    public var hasAhead: Bool { !ahead.isEmpty }

    /// Bytes of ours that the socket did not take yet.
    public var unsentCount: Int { outgoing.reduce(0) { $0 + $1.bytes.count } }

    /// True while bytes of ours wait.
    public var hasUnsent: Bool { !outgoing.isEmpty }

    /// When the other end has stalled: half a message came, or ours are not read.
    public var stallDeadline: Deadline? {
        Deadline.first(messageDeadline, unsentDeadline)
    }

    /// The fault of a stalled other end, once its deadline has passed.
    public var stall: FrameFault? {
        if let deadline = messageDeadline, deadline.hasPassed {
            return .stalled(frame.header.count + frame.payload.count)
        }
        if let deadline = unsentDeadline, deadline.hasPassed { return .unread(unsentCount) }
        return nil
    }

    /// True when the other end is gone, whatever is still to be read.
    public var isHungUp: Bool {
        var entry = pollfd(fd: descriptor.rawValue, events: 0, revents: 0)
        guard unsafe poll(&entry, 1, 0) == 1 else { return false }
        return entry.revents & Int16(POLLHUP | POLLERR) != 0
    }
}

// The end.
extension FramedStream {
    /// Lets neither end send any more; what was sent before is still delivered.
    public func shutDown() { _ = shutdown(descriptor.rawValue, Int32(SHUT_RDWR)) }

    /// Takes nothing more, so that the other end sees an end and no reset.
    public func stopReading() { socket.stopReading() }
}

// Reading.
extension FramedStream {
    /// Most reads of one call: an other end that sends bytes one by one is read on in the next turn,
    /// after everybody else had theirs.
    private static let readsPerCall = 16

    /// Reads on, at most to the end of one message; `waiting` also when that takes too many reads, and
    /// the socket is readable then.
    public func receive() -> Event {
        receive(reads: Self.readsPerCall)
    }

    /// The next message of those that were read already; `waiting` when there is none that is whole.
    public func receiveAhead() -> Event {
        receive(reads: 0)
    }

    private func receive(reads limit: Int) -> Event {
        let event = readOn(reads: limit)
        // Most messages are whole at once and never look at the clock.
        if messageDeadline == nil, !frame.header.isEmpty {
            messageDeadline = Deadline(milliseconds: deadlines.halfMessage)
        }
        return event
    }

    private func readOn(reads limit: Int) -> Event {
        var reads = 0
        while payloadSize == nil {
            let missing = format.headerSize - frame.header.count
            if ahead.isEmpty {
                guard reads < limit else { return .waiting }
                reads += 1
                if let event = fill(missing) { return event }
            }
            if frame.header.isEmpty {
                frame.header.reserveCapacity(format.headerSize)
                isFresh = true
            }
            if let fault = keep(ahead.take(missing, into: &frame.header)) { return fault }
            guard frame.header.count == format.headerSize else { continue }
            guard let size = format.payloadSize(frame.header) else {
                return .fault(.refused(header: frame.header))
            }
            payloadSize = size
        }
        guard let payloadSize else { return .waiting }
        while frame.payload.count < payloadSize {
            let missing = payloadSize - frame.payload.count
            if ahead.isEmpty {
                guard reads < limit else { return .waiting }
                reads += 1
                if missing > format.readAhead {
                    if let event = readPayload(missing) { return event }
                    continue
                }
                if let event = fill(missing) { return event }
            }
            if let fault = keep(ahead.take(missing, into: &frame.payload)) { return fault }
        }
        let message = frame
        frame = Frame()
        self.payloadSize = nil
        messageDeadline = nil
        return .message(message)
    }

    /// Reads at least some of the `missing` bytes, and ahead if the format lets us.
    private func fill(_ missing: Int) -> Event? {
        let limit = max(missing, format.readAhead)
        do throws(SystemError) {
            guard let count = try ahead.fill(from: socket, limit: limit) else { return .waiting }
            isFresh = false
            // What was cut off is told by the byte that it came with; without one, there is none.
            return count == 0 ? endOfStream : nil
        } catch {
            return FramedStream.event(of: error)
        }
    }

    /// Reads bytes of a payload that is too long to be read ahead to where they belong.
    private func readPayload(_ missing: Int) -> Event? {
        do throws(SystemError) {
            guard let received = try socket.receive(limit: missing) else { return .waiting }
            guard !received.bytes.isEmpty else { return endOfStream }
            isFresh = false
            frame.payload.extend(by: received.bytes)
            return keep(
                ReadAhead.Rest(
                    descriptors: received.descriptors,
                    isTruncated: received.isTruncated
                )
            )
        } catch {
            return FramedStream.event(of: error)
        }
    }

    /// Keeps descriptors that came with the present message.
    private func keep(_ rest: ReadAhead.Rest?) -> Event? {
        guard let rest else { return nil }
        guard !rest.isTruncated else {
            let count = rest.descriptors.count
            return .fault(.truncated(descriptors: count, header: frame.header))
        }
        guard !rest.descriptors.isEmpty else { return nil }
        if isFresh {
            frame.descriptors = rest.descriptors
        } else {
            frame.hadLateDescriptors = true
        }
        return nil
    }

    private var endOfStream: Event {
        if let payloadSize { return .fault(.shortPayload(frame.payload.count, of: payloadSize)) }
        return frame.header.isEmpty ? .closed : .fault(.shortHeader(frame.header.count))
    }

    private static func event(of error: SystemError) -> Event {
        switch error.errno {
        case .connectionReset, .brokenPipe: .closed
        default: .fault(.transfer(error))
        }
    }
}

// Sending.
extension FramedStream {
    /// Sends a message, or as much as the socket takes now; `nil` when all is well so far.
    ///
    /// `payload` follows `header` without being copied behind it, unless the socket is full.
    public func send(
        _ header: [UInt8],
        _ payload: [UInt8] = [],
        descriptors: [FileDescriptor] = []
    ) -> Event? {
        guard unsentCount + header.count + payload.count <= format.unsentLimit else {
            return .fault(.unread(unsentCount))
        }
        guard outgoing.isEmpty else {
            outgoing.append(Outgoing(bytes: (header + payload)[...], descriptors: descriptors))
            return flush()
        }
        let sent: Int
        do throws(SystemError) {
            sent = try socket.send(header[...], payload[...], descriptors: descriptors)
        } catch {
            return FramedStream.event(of: error)
        }
        guard sent < header.count + payload.count else { return nil }
        outgoing.append(
            Outgoing(
                bytes: (header + payload).dropFirst(sent),
                descriptors: sent > 0 ? [] : descriptors
            )
        )
        return flush()
    }

    /// Sends what the socket takes of the bytes that wait.
    public func flush() -> Event? {
        while var next = outgoing.first {
            let sent: Int
            do throws(SystemError) {
                sent = try socket.send(next.bytes, descriptors: next.descriptors)
            } catch {
                return FramedStream.event(of: error)
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
}

// Waiting, for an end that has nothing else to do.
extension FramedStream {
    /// How a wait ended.
    public enum Wait {
        /// The socket can be read from, or written to.
        case ready
        /// The deadline has passed.
        case late
        /// Whoever holds the other descriptor gave up.
        case cancelled
    }

    /// Waits until something can be read or, while bytes of ours wait, sent; with `toSend` only for
    /// the latter. Ends at the deadline, and when `cancel` becomes readable.
    public func wait(
        toSend: Bool = false,
        until deadline: Deadline,
        cancel: FileDescriptor? = nil
    ) -> Wait {
        guard toSend || !hasAhead else { return .ready }
        let events = Int16((toSend ? 0 : POLLIN) | (toSend || hasUnsent ? POLLOUT : 0))
        while !deadline.hasPassed {
            var own = (
                pollfd(fd: descriptor.rawValue, events: events, revents: 0),
                pollfd(fd: cancel?.rawValue ?? -1, events: Int16(POLLIN), revents: 0)
            )
            let limit = deadline.remainingMilliseconds
            let count = unsafe withUnsafeMutableBytes(of: &own) { entries in
                unsafe poll(entries.assumingMemoryBound(to: pollfd.self).baseAddress, 2, limit)
            }
            if own.1.revents != 0 { return .cancelled }
            if count > 0 { return .ready }
        }
        return .late
    }
}

extension [UInt8] {
    // The first bytes become the array: what came at once is never copied.
    fileprivate mutating func extend(by bytes: [UInt8]) {
        if isEmpty { self = bytes } else { self += bytes }
    }
}
