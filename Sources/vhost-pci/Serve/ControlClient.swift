import Glibc
import HostSystem

/// One client of the control socket. It holds at most one unfinished request and a bounded number of
/// answers; while answers wait, nothing more is read from it (HI-J25).
final class ControlClient {
    /// How a client goes.
    enum Step {
        /// It was told why, and may read that before the connection ends.
        case leaving
        case gone
    }

    private let socket: UnixSocket
    private let loop: EventLoop
    private let answer: ([UInt8]) -> [UInt8]
    private let moved: (ControlClient, Step) -> Void
    private var watch: EventLoop.Source?
    private var timer: EventLoop.Source?
    private var received: [UInt8] = []
    private var unread: ArraySlice<UInt8> = []
    private var requestDeadline: Deadline?
    private var unreadDeadline: Deadline?
    /// The client will send no more.
    private var isHalfClosed = false
    /// No more is taken from it; what waits is still sent.
    private var isRefused = false
    private var isOver = false
    /// All is said: what it still sends is thrown away, until it hangs up or this has passed.
    private var departure: Deadline?
    private var thrownAway = 0
    /// A request is being carried out; it may turn the loop while it waits for a device.
    private var isBusy = false
    private var lastRequest = MonotonicClock.now

    /// How often a client that does not read is looked at, in milliseconds.
    private static let retryMilliseconds: UInt64 = 10

    /// Serves a connection: `answer` turns a line into the bytes to send back.
    init(
        _ socket: UnixSocket,
        loop: EventLoop,
        answer: @escaping ([UInt8]) -> [UInt8],
        moved: @escaping (ControlClient, Step) -> Void
    ) throws {
        self.socket = socket
        self.loop = loop
        self.answer = answer
        self.moved = moved
        try listen()
    }

    /// Tells the client why it is not served, and lets it go.
    func turnAway(_ error: RPCError) {
        refuse(error)
        send()
        schedule()
    }

    /// How long it has asked for nothing, with no answer waiting for it.
    var idleMilliseconds: UInt64 {
        isBusy || !unread.isEmpty ? 0 : (MonotonicClock.now - lastRequest) / 1_000_000
    }

    /// Ends the connection after sending what the socket takes.
    func end() {
        guard !isOver else { return }
        send()
        isOver = true
        if let watch { loop.remove(watch) }
        if let timer { loop.remove(timer) }
        watch = nil
        timer = nil
        moved(self, .gone)
    }

    /// Ends the connection in a way that lets the other end read all that was sent: nothing of what it
    /// sends meets a closed socket, which would be an error there before the answer is read.
    private func depart() {
        guard departure == nil else { return }
        departure = Deadline(milliseconds: ControlLimits.departureMilliseconds)
        shutdown(socket.descriptor.rawValue, Int32(SHUT_WR))
        moved(self, .leaving)
        do {
            watch = try loop.watch(socket.descriptor) { [weak self] in self?.throwAway() }
        } catch {
            return end()
        }
        timer = loop.after(milliseconds: ControlLimits.departureMilliseconds) { [weak self] in
            self?.timer = nil
            self?.end()
        }
    }

    private func throwAway() {
        do {
            guard let piece = try socket.receive(limit: 64 << 10) else { return }
            thrownAway += piece.bytes.count
            if piece.bytes.isEmpty || thrownAway > ControlLimits.departureBytes { end() }
        } catch {
            end()
        }
    }

    private func listen() throws {
        guard watch == nil, !isHalfClosed, !isRefused else { return }
        watch = try loop.watch(socket.descriptor) { [weak self] in self?.read() }
    }

    private func read() {
        guard !isBusy else { return }
        do {
            let room = ControlLimits.requestBytes + 1 - received.count
            guard let piece = try socket.receive(limit: max(1, min(room, 16 << 10))) else { return }
            if piece.bytes.isEmpty {
                stopReading()
                isHalfClosed = true
            }
            received += piece.bytes
        } catch {
            return end()
        }
        proceed()
    }

    private func stopReading() {
        if let watch { loop.remove(watch) }
        watch = nil
    }

    /// Carries out what is there, sends what waits, and decides when to look again.
    private func proceed() {
        if let timer { loop.remove(timer) }
        timer = nil
        var count = 0
        while count < ControlLimits.perTurn, unread.count < ControlLimits.unreadBytes, !isRefused,
            let line = takeLine()
        {
            isBusy = true
            if !line.isEmpty {
                unread += answer(line)
                lastRequest = MonotonicClock.now
            }
            isBusy = false
            count += 1
            if isOver { return }
        }
        if received.count > ControlLimits.requestBytes, !received.contains(Self.newline) {
            refuse(RPCError(.tooLarge))
        }
        watchRequest()
        send()
        guard !isOver else { return }
        schedule()
    }

    private static let newline = UInt8(ascii: "\n")

    private func takeLine() -> [UInt8]? {
        guard let end = received.firstIndex(of: Self.newline) else {
            // The last line of one who sends no more needs no end.
            guard isHalfClosed, !received.isEmpty else { return nil }
            defer { received = [] }
            return received
        }
        var line = Array(received[..<end])
        received.removeFirst(end + 1)
        if line.last == UInt8(ascii: "\r") { line.removeLast() }
        return line
    }

    /// Half a request must become a whole one in time.
    private func watchRequest() {
        guard !received.isEmpty, !received.contains(Self.newline), !isRefused else {
            requestDeadline = nil
            return
        }
        guard let deadline = requestDeadline else {
            requestDeadline = Deadline(milliseconds: ControlLimits.requestMilliseconds)
            return
        }
        if deadline.hasPassed { refuse(RPCError(.slow)) }
    }

    private func refuse(_ error: RPCError) {
        stopReading()
        received = []
        requestDeadline = nil
        isRefused = true
        unread += RPCRequest.response(.null, error).line
    }

    private func send() {
        while !unread.isEmpty, !isOver {
            guard let count = try? socket.send(unread) else {
                unread = []
                isRefused = true
                return
            }
            guard count > 0 else { break }
            unread = unread.dropFirst(count)
            unreadDeadline = nil
        }
        if unread.isEmpty {
            unread = []
            unreadDeadline = nil
        } else if unreadDeadline == nil {
            unreadDeadline = Deadline(milliseconds: ControlLimits.unreadMilliseconds)
        }
    }

    private func schedule() {
        let hasLine =
            !isRefused
            && (received.contains(Self.newline) || isHalfClosed && !received.isEmpty)
        if unread.isEmpty, isRefused { return isHalfClosed ? end() : depart() }
        if unread.isEmpty, isHalfClosed, !hasLine { return end() }
        if let unreadDeadline, unreadDeadline.hasPassed { return end() }
        if hasLine || !unread.isEmpty {
            stopReading()
            // What is there goes on with the next turn; one who does not read is looked at later.
            again(after: unread.isEmpty ? 0 : Self.retryMilliseconds)
            return
        }
        do {
            try listen()
        } catch {
            return end()
        }
        if let requestDeadline { again(after: UInt64(requestDeadline.remainingMilliseconds) + 1) }
    }

    private func again(after milliseconds: UInt64) {
        timer = loop.after(milliseconds: milliseconds) { [weak self] in
            self?.timer = nil
            self?.proceed()
        }
    }
}
