internal import GuestMemory
internal import HostSystem
internal import PCI

/// What a client asks of its server.
struct ClientRequest {
    var command: Command
    /// The payload, in two parts that are sent one behind the other.
    var fixed: [UInt8] = []
    var bytes: [UInt8] = []
    var descriptors: [FileDescriptor] = []
    /// Lengths of payload that the reply may have.
    var reply: ClosedRange<Int> = 0...0
    /// Descriptors that may come with the reply.
    var replyDescriptors = 0
}

/// One client and its server, a command at a time: the reply is waited for, not longer than the limit,
/// and what the server asks meanwhile is answered (VFU-C-05 … VFU-C-07).
///
/// A server that answers what was not asked, or not at all, ends the conversation for good: nothing
/// that comes afterwards could be told from what is due (HI-E40).
struct ClientConversation {
    private let stream: FramedStream
    private let limits: ClientLimits
    private let name: String
    /// Signalled when `fault` is set.
    private let ended: EventFD
    private var identifier: UInt16 = 0
    /// The server has answered before.
    private var isAcquainted = false

    /// What the server may reach.
    var memory: MemoryTable = .empty
    private(set) var counters = ClientCounters()
    /// Why the conversation is over.
    private(set) var fault: HostRefusal?

    init(_ socket: UnixSocket, name: String, limits: ClientLimits, ended: EventFD) {
        stream = FramedStream(
            socket,
            format: .vfioUser,
            deadlines: FramedStream.Deadlines(halfMessage: limits.reply, unread: limits.reply)
        )
        self.limits = limits
        self.name = name
        self.ended = ended
    }

    /// Sends a command and waits for its reply; `operation` is what was tried, for an error.
    mutating func exchange(
        _ request: ClientRequest,
        _ operation: @Sendable () -> String
    ) throws(PCIError) -> Frame {
        if let fault { throw .refused(fault) }
        identifier &+= 1
        counters.commands &+= 1
        let size = MessageHeader.size + request.fixed.count + request.bytes.count
        let header = MessageHeader(
            identifier: identifier,
            command: request.command.rawValue,
            messageSize: UInt32(clamping: size)
        )
        let first = header.encoded + request.fixed
        try react(stream.send(first, request.bytes, descriptors: request.descriptors), operation)
        let deadline = Deadline(milliseconds: limits.reply)
        while true {
            // Not by a read that waits: the server's reading of the command would wake us as well.
            guard stream.wait(until: deadline) == .ready else { throw late(operation) }
            if stream.hasUnsent { try react(stream.flush(), operation) }
            switch stream.receive() {
            case .waiting: continue
            case .closed: throw gone(operation)
            case .fault(let fault): throw fail(fault, operation)
            case .message(let frame):
                guard let header = MessageHeader(frame.header) else { continue }
                guard header.isCommand else {
                    // The socket does not tell of what was read with the reply, whatever that says.
                    defer { if stream.hasAhead { _ = serve(reads: 0) } }
                    return try reply(header, frame, to: request, operation)
                }
                try answer(header, frame, operation)
                // A server that asks without end never lets us wait, which is where time is looked at.
                guard !deadline.hasPassed else { throw late(operation) }
            }
        }
    }

    /// Answers what the server has asked while nobody waits for a reply, and notices its end: as many
    /// commands as that from the socket, and whatever was read with them. False when there was nothing.
    mutating func serve(reads: Int = 64) -> Bool {
        guard fault == nil else { return false }
        let operation = { @Sendable in "between commands" }
        var served = 0
        do throws(PCIError) {
            while true {
                if stream.hasUnsent { try react(stream.flush(), operation) }
                switch served < reads ? stream.receive() : stream.receiveAhead() {
                case .waiting:
                    if served < reads, stream.isHungUp { throw gone(operation) }
                    return served > 0
                case .closed: throw gone(operation)
                case .fault(let fault): throw fail(fault, operation)
                case .message(let frame):
                    served += 1
                    guard let header = MessageHeader(frame.header) else { continue }
                    guard header.isCommand else {
                        throw fail("vfu/reply", "command \(header.command) was answered unasked")
                    }
                    try answer(header, frame, operation)
                }
            }
        } catch {
            return true
        }
    }

    /// Ends the conversation for a fault of the server.
    mutating func fail(
        _ id: String,
        _ detail: String,
        _ remedy: String = "report it to whoever makes the server"
    ) -> PCIError {
        let refusal = HostRefusal(id, "\(name): \(detail)", remedy: remedy)
        if fault == nil {
            fault = refusal
            stream.shutDown()
            ended.signal()
        }
        return .refused(fault ?? refusal)
    }

    private mutating func late(_ operation: @Sendable () -> String) -> PCIError {
        let what = "\(operation()): no reply in \(limits.reply) ms"
        let remedy =
            isAcquainted
            ? "look after the server; this device is lost to us"
            : "look whether this is the socket of a vfio-user server, and whether it has another"
                + " client"
        return fail("vfu/stall", what, remedy)
    }

    // MARK: - Replies

    private mutating func reply(
        _ header: MessageHeader,
        _ frame: Frame,
        to request: ClientRequest,
        _ operation: @Sendable () -> String
    ) throws(PCIError) -> Frame {
        guard header.isReply, header.identifier == identifier,
            header.command == request.command.rawValue
        else {
            let what = "flags \(header.flags.rawValue) for command \(header.command),"
            let which = "id \(header.identifier) in the place of \(identifier)"
            throw fail("vfu/reply", "\(operation()): \(what) \(which)")
        }
        guard !header.flags.contains(.error) else {
            guard frame.payload.isEmpty, frame.descriptors.isEmpty else {
                throw fail("vfu/reply", "\(operation()): an error with a payload")
            }
            // What is no error number still says that the command failed (HI-E40).
            let number = (1..<4096).contains(header.error) ? Int32(header.error) : 22
            throw .system(SystemError("\(name): \(operation())", Errno(number)))
        }
        guard request.reply.contains(frame.payload.count) else {
            let due = request.reply
            throw fail(
                "vfu/reply",
                "\(operation()): \(frame.payload.count) bytes of reply, where"
                    + " \(due.lowerBound) to \(due.upperBound) are due"
            )
        }
        guard frame.descriptors.count <= request.replyDescriptors, !frame.hadLateDescriptors else {
            throw fail("vfu/reply", "\(operation()): descriptors where none belong")
        }
        isAcquainted = true
        return frame
    }

    private mutating func react(
        _ event: FramedStream.Event?,
        _ operation: @Sendable () -> String
    ) throws(PCIError) {
        switch event {
        case nil, .waiting, .message: return
        case .closed: throw gone(operation)
        case .fault(let fault): throw fail(fault, operation)
        }
    }

    private mutating func gone(_ operation: @Sendable () -> String) -> PCIError {
        guard isAcquainted else {
            return fail(
                "vfu/peer-gone",
                "the server has closed the connection instead of answering \(operation())",
                "end the other client, if there is one, for a device has one at a time; else look"
                    + " whether this is the socket of a vfio-user server"
            )
        }
        return fail(
            "vfu/peer-gone",
            "the server has closed the connection (\(operation()))",
            "start it again, then open the device anew"
        )
    }

    private mutating func fail(_ fault: FrameFault, _ operation: @Sendable () -> String) -> PCIError
    {
        let remedy = "check that \(name) belongs to a vfio-user server"
        switch fault {
        case .shortHeader, .shortPayload:
            return gone { "\(operation()), in the middle of a message" }
        case .refused(let bytes):
            let size = MessageHeader(bytes)?.messageSize ?? 0
            return fail("vfu/size", "\(operation()): a message of \(size) bytes", remedy)
        case .truncated(let count, _):
            let what = "\(operation()): the kernel delivered only \(count) descriptors"
            return fail("vfu/truncated", what)
        case .stalled(let count):
            return fail("vfu/stall", "\(operation()): \(count) bytes of a message, and no more")
        case .unread(let count):
            return fail("vfu/stall", "\(operation()): \(count) bytes of ours are not read")
        case .transfer(let error):
            return fail("vfu/io", "\(operation()): \(error)", "")
        }
    }

    // MARK: - Commands of the server

    private mutating func answer(
        _ header: MessageHeader,
        _ frame: Frame,
        _ operation: @Sendable () -> String
    ) throws(PCIError) {
        let outcome = result(header, frame)
        if case .failure = outcome { counters.refusedCommands &+= 1 }
        if case .success = outcome { counters.servedAccesses &+= 1 }
        guard !header.flags.contains(.noReply) else { return }
        var reply = MessageHeader(
            identifier: header.identifier,
            command: header.command,
            messageSize: UInt32(MessageHeader.size),
            flags: .reply
        )
        var payload: [UInt8] = []
        switch outcome {
        case .success(let bytes):
            payload = bytes
            reply.messageSize = UInt32(clamping: MessageHeader.size + bytes.count)
        case .failure(let number):
            reply.flags = [.reply, .error]
            reply.error = UInt32(clamping: number.rawValue)
        }
        try react(stream.send(reply.encoded, payload), operation)
    }

    /// The payload of the reply to a command of the server, or why it failed (VFU-C-06).
    private func result(_ header: MessageHeader, _ frame: Frame) -> Result<[UInt8], Errno> {
        guard
            header.command == Command.dmaRead.rawValue
                || header.command == Command.dmaWrite.rawValue
        else { return .failure(.notImplemented) }
        let isRead = header.command == Command.dmaRead.rawValue
        guard frame.descriptors.isEmpty, !frame.hadLateDescriptors,
            let access = DMAAccess(frame.payload)
        else { return .failure(.invalidArgument) }
        guard access.count <= UInt64(limits.transferSize) else { return .failure(.tooLarge) }
        let count = Int(access.count)
        guard frame.payload.count == DMAAccess.size + (isRead ? 0 : count) else {
            return .failure(.invalidArgument)
        }
        guard memory.covers(access.address, access.count, isRead ? .read : .write) else {
            return .failure(.noDevice)
        }
        if isRead {
            guard let bytes = memory.read(access.address, count) else {
                return .failure(.noDevice)
            }
            return .success(access.encoded + bytes)
        }
        guard memory.write(frame.payload.dropFirst(DMAAccess.size), at: access.address) else {
            return .failure(.noDevice)
        }
        return .success(access.encoded)
    }
}

extension Errno {
    /// E2BIG: a transfer beyond what was agreed.
    fileprivate static let tooLarge = Errno(7)
    /// ENOSYS: a command that nobody defined.
    fileprivate static let notImplemented = Errno(38)
}
