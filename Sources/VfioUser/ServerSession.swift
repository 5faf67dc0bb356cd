internal import CSystemShims
public import GuestMemory
public import HostSystem
public import PCI

/// One client of a function, without its socket: commands go in, replies come out, in order.
///
/// Every command is answered before the next one is looked at, and nothing here waits for anybody
/// (VFU-H-11, VFU-S-47). What the function asks of its host while it is accessed (an interrupt, its
/// memory) is served at once; its accesses by message are kept until `nextDMA` is asked for.
public final class ServerSession {
    /// What one message led to.
    public struct Step {
        /// To be sent; `nil` for nothing.
        public var reply: [UInt8]?
        /// To be sent along with the reply.
        public var descriptors: [FileDescriptor] = []
        /// What was wrong, to be counted.
        public var refused: Refusal?
        /// The connection ends after the reply.
        public var closes = false

        /// Nothing to be done.
        public init() {}
    }

    /// What was agreed on; `nil` before VERSION.
    public private(set) var negotiation: Negotiation?
    /// Commands so far.
    public private(set) var commandCount: UInt64 = 0
    /// Commands that failed and wanted no reply.
    public private(set) var silentFailures: UInt64 = 0
    /// Interrupts that nobody is connected to.
    public private(set) var strayInterrupts: UInt64 = 0

    /// Doorbells that the client was given; to be watched, and rung when they are signalled.
    public private(set) var doorbells: [GivenDoorbell] = []

    let endpoint: any PCIEndpoint
    let limits: ServerLimits
    var table: DMATable
    var wiring = InterruptWiring(vectorCount: 0)
    var exchange: DMAExchange
    private let vectors: MessageVectors?
    private var hasEnded = false

    /// Serves `endpoint` to a new client.
    public init(endpoint: any PCIEndpoint, limits: ServerLimits = ServerLimits()) {
        self.endpoint = endpoint
        self.limits = limits
        table = DMATable(limits: limits.memory)
        exchange = DMAExchange(limit: 1, replyMilliseconds: limits.replyMilliseconds)
        // A function whose capability list is broken has no vectors.
        vectors = try? MessageVectors(endpoint)
        wiring = InterruptWiring(vectorCount: vectors?.count ?? 0)
    }

    /// What the function can reach directly.
    public var memory: MemoryTable { table.memory() }

    /// True when the client has announced memory, and none that the function can reach directly.
    public var isMemoryUnshared: Bool { table.isUnshared }

    /// Takes one message.
    public func accept(_ frame: Frame) -> Step {
        guard let header = MessageHeader(frame.header) else { return Step() }
        if header.isReply, negotiation != nil { return acceptReply(header, frame) }
        commandCount &+= 1
        var step = Step()
        do throws(Refusal) {
            let answer = try perform(header, frame)
            step.refused = answer.refused
            step.closes = answer.closes
            if !header.flags.contains(.noReply), !answer.isWithheld {
                step.reply = reply(header, answer)
                step.descriptors = answer.descriptors
            }
        } catch {
            refuse(header, error, &step)
        }
        return step
    }

    /// The answer to a stream that cannot be continued: as much of it as can be sent.
    public func accept(_ fault: FrameFault) -> Step {
        var step = Step()
        step.closes = true
        switch fault {
        case .refused(let bytes):
            let size = MessageHeader(bytes)?.messageSize ?? 0
            refuse(bytes, Refusal(.size, "a message of \(size) bytes"), &step)
        case .truncated(let count, let bytes):
            let detail = "the kernel delivered only \(count) descriptors"
            refuse(bytes, Refusal(.truncated, detail), &step)
        case .shortHeader(let count):
            step.refused = Refusal(.cutMessage, "\(count) of \(MessageHeader.size) bytes")
        case .shortPayload(let count, let all):
            step.refused = Refusal(.cutMessage, "\(count) of \(all) bytes of a payload")
        case .stalled(let count):
            let detail = "\(count) bytes of a message, and no more for too long"
            step.refused = Refusal(.stall, detail)
        case .unread(let count):
            step.refused = Refusal(.stall, "\(count) bytes of replies are not read")
        case .transfer(let error): step.refused = Refusal(.transfer, error.description)
        }
        return step
    }

    /// The client is gone: when this returns, nothing of its memory is accessed, no eventfd of its is
    /// signalled, and the function knows (VFU-S-60).
    public func end() {
        guard !hasEnded else { return }
        hasEnded = true
        doorbells = []
        for vector in wiring.connectedVectors {
            wiring.disconnect(vector)
            vectors?.mask(vector)
        }
        wiring = InterruptWiring(vectorCount: vectors?.count ?? 0)
        endpoint.clientGone()
        table.removeAll()
        endpoint.memoryChanged()
        for then in exchange.endAll() { then(.failure(.disconnected)) }
    }

    /// Signals whoever is connected to a vector, and never waits (VFU-S-35, VFU-S-36). A client whose
    /// eventfd would have made us wait is to be sent away: that eventfd is let go, and the reason
    /// returned.
    public func raise(_ vector: Int) -> Refusal? {
        guard let event = wiring.event(vector) else {
            strayInterrupts &+= 1
            return nil
        }
        guard EventFD.signal(event.rawValue) == .blocked else { return nil }
        wiring.disconnect(vector)
        return Refusal(.blockedEvent, "the eventfd of vector \(vector) blocks whoever signals it")
    }

    // MARK: - Commands

    /// What a command is answered with.
    struct Answer {
        /// The fixed part and what follows it.
        var payload: [UInt8] = []
        var descriptors: [FileDescriptor] = []
        /// What was wrong with a command that was carried out in part.
        var refused: Refusal?
        /// The connection ends after the reply.
        var closes = false
        /// There is no reply at all.
        var isWithheld = false
    }

    private func perform(_ header: MessageHeader, _ frame: Frame) throws(Refusal) -> Answer {
        guard header.isCommand, header.flags.isSubset(of: .known), !header.flags.contains(.error)
        else {
            throw Refusal(
                negotiation == nil ? .negotiate : .command,
                "flags \(DMATable.hex(header.flags.rawValue)), which are no command's"
            )
        }
        guard !frame.hadLateDescriptors else {
            throw Refusal(.descriptors, "descriptors behind the first byte of a message")
        }
        guard negotiation != nil else { return try negotiate(header, frame) }
        guard let command = Command(rawValue: header.command) else {
            throw Refusal(.command, "not supported: command \(header.command)")
        }
        guard frame.descriptors.isEmpty || command == .dmaMap || command == .deviceSetIRQs else {
            throw Refusal(.descriptors, "\(frame.descriptors.count) with command \(header.command)")
        }
        switch command {
        case .regionRead: return try readRegion(frame.payload)
        case .regionWrite: return try writeRegion(frame.payload)
        case .regionWriteMulti: return try writeRegions(frame.payload)
        case .dmaMap, .dmaUnmap: return try changeMemory(command, frame)
        case .deviceGetInfo: return try deviceInfo(frame.payload)
        case .deviceGetRegionInfo: return try regionInfo(frame.payload)
        case .deviceGetRegionIOFDs: return try regionDescriptors(frame.payload)
        case .deviceGetIRQInfo: return try interruptInfo(frame.payload)
        case .deviceSetIRQs: return try setInterrupts(frame)
        case .deviceReset: return reset()
        case .version: throw Refusal(.command, "a second VERSION")
        case .dmaRead, .dmaWrite:
            throw Refusal(.command, "command \(header.command) is the server's")
        case .deviceFeature: throw featureRefusal(frame.payload)
        case .migrationDataRead, .migrationDataWrite:
            throw Refusal(.feature, "not supported: migration")
        }
    }

    private func negotiate(_ header: MessageHeader, _ frame: Frame) throws(Refusal) -> Answer {
        guard header.command == Command.version.rawValue else {
            throw Refusal(.negotiate, "command \(header.command) before VERSION")
        }
        let new = try Negotiation(frame.payload, hasDescriptors: !frame.descriptors.isEmpty)
        negotiation = new
        exchange = DMAExchange(
            limit: new.transferSize,
            replyMilliseconds: limits.replyMilliseconds
        )
        return Answer(payload: new.answer)
    }

    private func changeMemory(_ command: Command, _ frame: Frame) throws(Refusal) -> Answer {
        let hasChanged: Bool
        var answer = Answer()
        if command == .dmaMap {
            guard let request = DMAMap(frame.payload) else { throw short(command, frame.payload) }
            hasChanged = try table.map(request, frame.descriptors)
        } else {
            guard let request = DMAUnmap(frame.payload) else { throw short(command, frame.payload) }
            hasChanged = try table.unmap(request)
            answer.payload = request.encoded
        }
        // When this returns the old mappings are not accessed any more (VFU-S-16, HI-E13).
        guard hasChanged else { return answer }
        endpoint.memoryChanged()
        if command == .dmaUnmap, endpoint.isFormerMemoryInUse {
            // A reply would give the memory back, and an error would say that it is still there.
            answer.refused = Refusal(.memoryInUse, "a thread of the device does not let go of it")
            answer.closes = true
            answer.isWithheld = true
        }
        return answer
    }

    private func setInterrupts(_ frame: Frame) throws(Refusal) -> Answer {
        guard frame.payload.count >= InterruptSet.size else {
            throw short(.deviceSetIRQs, frame.payload)
        }
        let outcome = try wiring.apply(frame.payload, frame.descriptors)
        // Whoever shares them can undo this, which `EventFD.signal` survives.
        for event in frame.descriptors { _ = shim_set_nonblocking(event.rawValue, 1) }
        var connects = false
        for change in outcome.changes {
            switch change {
            case .mask(let vector): vectors?.mask(vector)
            case .unmask(let vector) where wiring.event(vector) != nil:
                vectors?.unmask(vector)
                connects = true
            // Nobody would hear of it: it stays pending (VFU-S-35).
            case .unmask: break
            }
        }
        if connects { vectors?.enable() }
        var answer = Answer()
        for event in outcome.signals where EventFD.signal(event.rawValue) == .blocked {
            // The others would make us wait as long.
            answer.refused = Refusal(.blockedEvent, "an eventfd blocks whoever signals it")
            answer.closes = true
            break
        }
        return answer
    }

    /// The function is quiet when this returns; connected vectors stay connected, as a kernel keeps
    /// them (VFU-S-50).
    private func reset() -> Answer {
        endpoint.reset()
        for vector in wiring.connectedVectors {
            vectors?.unmask(vector)
            vectors?.enable()
        }
        return Answer()
    }

    private func featureRefusal(_ payload: [UInt8]) -> Refusal {
        guard let request = DeviceFeature(payload) else { return short(.deviceFeature, payload) }
        return Refusal(.feature, "not supported: device feature \(request.feature)")
    }

    func short(_ command: Command, _ payload: [UInt8]) -> Refusal {
        Refusal(.command, "command \(command.rawValue) with \(payload.count) bytes")
    }

    // MARK: - Replies

    private func reply(_ header: MessageHeader, _ answer: Answer) -> [UInt8] {
        let size = MessageHeader.size + answer.payload.count
        var bytes = MessageHeader(
            identifier: header.identifier,
            command: header.command,
            messageSize: UInt32(size),
            flags: .reply
        ).encoded(capacity: size)
        bytes += answer.payload
        return bytes
    }

    private func refuse(_ header: MessageHeader, _ refusal: Refusal, _ step: inout Step) {
        step.refused = refusal
        step.closes = negotiation == nil
        guard !header.flags.contains(.noReply) || !header.isCommand else {
            silentFailures &+= 1
            return
        }
        step.reply =
            MessageHeader(
                identifier: header.identifier,
                command: header.command,
                messageSize: UInt32(MessageHeader.size),
                flags: [.reply, .error],
                error: UInt32(refusal.errno.rawValue)
            ).encoded
    }

    private func refuse(_ bytes: [UInt8], _ refusal: Refusal, _ step: inout Step) {
        step.refused = refusal
        guard let header = MessageHeader(bytes) else { return }
        refuse(header, refusal, &step)
        step.closes = true
    }

    private func acceptReply(_ header: MessageHeader, _ frame: Frame) -> Step {
        var step = Step()
        switch exchange.accept(header, frame.payload) {
        case .taken, .late: break
        case .stray:
            refuse(header, Refusal(.command, "a reply to nothing"), &step)
        case .malformed:
            step.refused = Refusal(.reply, "\(frame.payload.count) bytes to a DMA command")
        }
        return step
    }
}

/// A register whose stores a client replaced by signals of an eventfd.
public struct GivenDoorbell {
    /// The BAR.
    public let region: Int
    /// The register.
    public let offset: UInt64
    /// What the client signals.
    public let event: EventFD
}

extension ServerSession {
    /// Does what a store to the doorbell's register does, if it was signalled.
    public func ring(_ doorbell: GivenDoorbell) {
        guard !hasEnded, doorbell.event.drain() > 0 else { return }
        endpoint.writeRegister(doorbell.region, doorbell.offset, .word, 0)
    }

    /// The doorbell at a register, made with the first question; `nil` without a free descriptor.
    func doorbell(_ region: Int, _ offset: UInt64) -> GivenDoorbell? {
        if let known = doorbells.first(where: { $0.region == region && $0.offset == offset }) {
            return known
        }
        guard let event = try? EventFD() else { return nil }
        let new = GivenDoorbell(region: region, offset: offset, event: event)
        doorbells.append(new)
        return new
    }
}

// What the device asks for.
extension ServerSession {
    /// Reads the client's memory, by message where it has to be; see `nextDMA`.
    public func readDMA(_ address: UInt64, _ count: Int, then: @escaping DMACompletion) {
        guard !hasEnded, count >= 0 else { return then(.failure(.disconnected)) }
        exchange.read(address, count, then)
    }

    /// Writes the client's memory, by message where it has to be; see `nextDMA`.
    public func writeDMA(_ address: UInt64, _ bytes: [UInt8], then: @escaping DMACompletion) {
        guard !hasEnded else { return then(.failure(.disconnected)) }
        exchange.write(address, bytes, then)
    }

    /// Goes on with the device's accesses: the next message to send, `nil` when there is none now.
    /// Never called while a command waits for its reply.
    public func nextDMA() -> (header: [UInt8], payload: [UInt8])? {
        while !hasEnded {
            switch exchange.step(&table) {
            case .idle: return nil
            case .again: continue
            case .send(let header, let payload): return (header, payload)
            case .finished(let then, let result): then(result)
            }
        }
        return nil
    }

    /// When a client that does not answer a message has had its time.
    public var replyDeadline: Deadline? { exchange.deadline }

    /// True while files that were taken away are kept, in case they come back.
    public var hasUnusedFiles: Bool { table.hasUnusedFiles }

    /// Lets go of files that were taken away and did not come back.
    public func dropUnusedFiles() { table.dropUnusedFiles() }
}
