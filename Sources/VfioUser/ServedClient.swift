internal import GuestMemory
internal import HostSystem

/// One client that is being served: its socket and its session.
final class ServedClient {
    private unowned let server: Server
    private let loop: EventLoop
    private let limits: ServerLimits
    private let stream: FramedStream
    private let session: ServerSession

    private var watch: EventLoop.Source?
    private var timer: EventLoop.Source?
    private var cleaning: EventLoop.Source?
    private var work: EventLoop.Source?
    private var rest: EventLoop.Source?
    private var bells: [EventLoop.Source] = []
    private var isServing = false
    private var memoryLook: EventLoop.Source?
    private var negotiationDeadline: Deadline?
    /// Why the connection ends with the next turn.
    private var offender: Refusal?
    private(set) var hasEnded = false

    init(server: Server, socket: UnixSocket, limits: ServerLimits, loop: EventLoop) {
        self.server = server
        self.loop = loop
        self.limits = limits
        stream = FramedStream(socket, format: .vfioUser, deadlines: limits.deadlines)
        session = ServerSession(endpoint: server.endpoint, limits: limits)
    }

    deinit {
        release()
    }

    /// Begins to read.
    func start() {
        negotiationDeadline = Deadline(milliseconds: limits.negotiationMilliseconds)
        finishTurn()
    }

    /// True when the client is gone, though the loop may not have said so yet.
    var isHungUp: Bool { stream.isHungUp }

    var memory: MemoryTable {
        guard !hasEnded else { return .empty }
        if memoryLook == nil, session.isMemoryUnshared { lookAtMemory() }
        return session.memory
    }

    /// Says, once, that the device finds no memory that it can reach. Not at once: QEMU takes all of it
    /// away for a moment when the firmware moves pieces of it.
    private func lookAtMemory() {
        memoryLook = loop.after(milliseconds: 1000) { [weak self] in
            guard let self else { return }
            guard session.isMemoryUnshared else {
                memoryLook = nil
                return
            }
            server.count(
                Refusal(
                    .memoryNotShared,
                    "not supported: rings in memory without a file; with QEMU, give the machine a"
                        + " memory-backend of share=on"
                )
            )
        }
    }

    func raise(_ vector: Int) {
        guard !hasEnded, let refusal = session.raise(vector) else { return }
        server.count(refusal)
        // Not now: the device that raises is in the middle of something.
        offender = refusal
        wake()
    }

    // MARK: - One turn

    private func serve() {
        guard !isServing else { return }
        isServing = true
        var budget = limits.messagesPerTurn
        var turnEnd: UInt64?
        while budget > 0, !hasEnded, !stream.hasUnsent {
            // Some commands cost a thousand times what others do: the time counts, not their number.
            // One is served in any case, and most turns have no other.
            if budget < limits.messagesPerTurn {
                let now = MonotonicClock.now
                if now >= turnEnd ?? .max { break }
                turnEnd = turnEnd ?? now &+ limits.turnNanoseconds
            }
            budget -= 1
            switch stream.receive() {
            // Whoever waited for the reply may have sent the next command by now, on the same CPU at
            // least: one more read costs less than a turn of the loop.
            case .message(let frame): perform(frame)
            case .waiting: budget = 0
            case .closed: end("closed by the client")
            case .fault(let fault): finish(session.accept(fault))
            }
        }
        isServing = false
        finishTurn()
    }

    private func perform(_ frame: Frame) {
        let wasNegotiated = session.negotiation != nil
        let step = session.accept(frame)
        // The device may have ended the connection while it was accessed.
        guard !hasEnded else { return }
        finish(step)
        if !wasNegotiated, !hasEnded, let negotiation = session.negotiation {
            negotiationDeadline = nil
            server.negotiated(negotiation)
        }
    }

    private func finish(_ step: ServerSession.Step) {
        if let refused = step.refused { server.count(refused) }
        guard !hasEnded else { return }
        if let reply = step.reply {
            react(stream.send(reply, descriptors: step.descriptors))
        }
        if step.closes { end(step.refused?.description ?? "refused") }
    }

    /// What follows once no command is half-way: the device's own messages come after the replies.
    private func finishTurn() {
        while !hasEnded, !stream.hasUnsent, let message = session.nextDMA() {
            react(stream.send(message.header, message.payload))
        }
        guard !hasEnded else { return }
        arrangeWatch()
        arrangeRest()
        arrangeTimer()
        arrangeCleaning()
        arrangeDoorbells()
    }

    /// Reads only while there is somewhere for a reply to go: the kernel's socket buffer is the bound
    /// for a client that does not read.
    private func arrangeWatch() {
        let wanted = !stream.hasUnsent
        if wanted, watch == nil {
            do throws(SystemError) {
                watch = try loop.watch(stream.descriptor) { [weak self] in self?.serve() }
            } catch {
                fail(Refusal(.transfer, error.description))
            }
        } else if !wanted, let source = watch {
            loop.remove(source)
            watch = nil
        }
    }

    /// Commands that were read with others but not looked at: the socket does not tell of them.
    private func arrangeRest() {
        guard rest == nil, stream.hasAhead, !stream.hasUnsent else { return }
        rest = loop.after(milliseconds: 0) { [weak self] in
            guard let self else { return }
            rest = nil
            if !hasEnded { serve() }
        }
    }

    // MARK: - The device's accesses

    func readDMA(_ address: UInt64, _ count: Int, _ then: @escaping DMACompletion) {
        session.readDMA(address, count, then: then)
        wake()
    }

    func writeDMA(_ address: UInt64, _ bytes: [UInt8], _ then: @escaping DMACompletion) {
        session.writeDMA(address, bytes, then: then)
        wake()
    }

    /// Sends what the device asked for in a turn of its own: whoever calls may be inside a command.
    private func wake() {
        guard work == nil else { return }
        work = loop.after(milliseconds: 0) { [weak self] in
            guard let self else { return }
            work = nil
            if let offender { return end(offender.description) }
            if !isServing { finishTurn() }
        }
    }

    private func arrangeDoorbells() {
        for doorbell in session.doorbells.dropFirst(bells.count) {
            do throws(SystemError) {
                let source = try loop.watch(doorbell.event.descriptor) { [weak self] in
                    self?.session.ring(doorbell)
                }
                bells.append(source)
            } catch {
                return fail(Refusal(.transfer, error.description))
            }
        }
    }

    // MARK: - Time

    private func arrangeTimer() {
        let due = Deadline.first(
            Deadline.first(stream.stallDeadline, session.replyDeadline),
            negotiationDeadline
        )
        // Between commands, which is nearly always, nothing is due and nothing is set.
        if let source = timer { loop.remove(source) }
        timer = nil
        guard let due else { return }
        let left = UInt64(due.remainingMilliseconds)
        let wait = stream.hasUnsent ? min(limits.retry, left) : left
        timer = loop.after(milliseconds: wait) { [weak self] in self?.timeCame() }
    }

    private func timeCame() {
        timer = nil
        react(stream.flush())
        guard !hasEnded else { return }
        if let stall = stream.stall { return finish(session.accept(stall)) }
        if negotiationDeadline?.hasPassed == true {
            return fail(Refusal(.stall, "no VERSION since the connection was made"))
        }
        finishTurn()
    }

    private func arrangeCleaning() {
        guard cleaning == nil, session.hasUnusedFiles else { return }
        cleaning = loop.after(milliseconds: limits.keepFiles) { [weak self] in
            guard let self else { return }
            cleaning = nil
            session.dropUnusedFiles()
        }
    }

    // MARK: - The end

    private func react(_ event: FramedStream.Event?) {
        switch event {
        case .closed: end("closed by the client")
        case .fault(let fault): finish(session.accept(fault))
        case .waiting, .message, nil: break
        }
    }

    private func fail(_ refusal: Refusal) {
        server.count(refusal)
        end(refusal.description)
    }

    /// Ends the connection: the device stops first, then files and socket are let go.
    func end(_ why: String) {
        guard !hasEnded else { return }
        abandon()
        server.forget(self, why)
    }

    /// Stops serving without telling anybody but the device.
    func abandon() {
        guard !hasEnded else { return }
        hasEnded = true
        release()
        session.end()
        stream.stopReading()
    }

    private func release() {
        for source in [watch, timer, cleaning, work, rest, memoryLook].compactMap({ $0 }) + bells {
            loop.remove(source)
        }
        bells = []
        memoryLook = nil
        watch = nil
        timer = nil
        cleaning = nil
        work = nil
        rest = nil
    }
}
