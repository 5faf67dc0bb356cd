internal import GuestMemory
internal import HostSystem
internal import PCI
internal import Synchronization

/// The client's end of a connection, for every thread that needs it: one command at a time.
///
/// Besides the control thread that is the attendant's, which stands in for doorbells that the server
/// has no eventfds for. Who comes second waits for the first one's reply, at most the limit.
final class ClientChannel: Sendable {
    /// The socket, to wait for what the server asks.
    let descriptor: FileDescriptor
    /// Signalled when the conversation is over.
    let ended: EventFD
    /// What the server can take.
    let server: ServerCapabilities
    private let conversation: Mutex<ClientConversation>

    /// Agrees on the version with whoever is at the other end of a socket.
    init(_ socket: UnixSocket, name: String, limits: ClientLimits) throws(PCIError) {
        let ended = try presenting { () throws(SystemError) in try EventFD() }
        var conversation = ClientConversation(socket, name: name, limits: limits, ended: ended)
        server = try ServerCapabilities(negotiating: &conversation, limits)
        descriptor = socket.descriptor
        self.ended = ended
        self.conversation = Mutex(conversation)
    }

    /// Sends a command and waits for its reply.
    func exchange(
        _ request: ClientRequest,
        _ operation: @autoclosure @Sendable () -> String
    ) throws(PCIError) -> Frame {
        try conversation.withLock { (conversation) throws(PCIError) in
            try conversation.exchange(request, operation)
        }
    }

    /// What `serve` found.
    enum Service {
        /// Somebody is in the middle of a command, and will answer what the server asks meanwhile.
        case busy
        /// Nothing was there.
        case idle
        /// What was there is answered.
        case served
        /// The conversation is over.
        case over
    }

    /// Answers what the server has asked, unless a command is under way.
    func serve() -> Service {
        let service = conversation.withLockIfAvailable { conversation in
            let hasServed = conversation.serve()
            if conversation.fault != nil { return Service.over }
            return hasServed ? .served : .idle
        }
        return service ?? .busy
    }

    /// Ends the conversation for a fault of the server.
    func fail(_ id: String, _ detail: String) -> PCIError {
        conversation.withLock { $0.fail(id, detail) }
    }

    /// Why the conversation is over.
    var fault: HostRefusal? { conversation.withLock { $0.fault } }

    /// What was counted.
    var counters: ClientCounters { conversation.withLock { $0.counters } }

    /// What the server may reach by messages from now on.
    func setMemory(_ table: MemoryTable) { conversation.withLock { $0.memory = table } }
}

/// What a server has said that it can take, with the protocol's word for what it left out
/// (VFU-C-02).
struct ServerCapabilities: Sendable {
    /// Most descriptors in one message.
    let messageDescriptors: Int
    /// Largest count of a region access.
    let transferSize: Int
    /// Most DMA ranges at one time.
    let memoryRanges: Int
    /// What addresses and lengths of DMA ranges must be multiples of.
    let page: UInt64

    /// Exchanges VERSION, which must come first (VFU-C-01).
    init(
        negotiating conversation: inout ClientConversation,
        _ limits: ClientLimits
    ) throws(PCIError) {
        var own = Capabilities()
        own.messageDescriptors = Self.receivedDescriptors
        own.transferSize = limits.transferSize
        let offer = Version(major: 0, minor: 0, capabilities: own)
        let frame: Frame
        do {
            frame = try conversation.exchange(
                ClientRequest(
                    command: .version,
                    fixed: offer.encoded,
                    reply: Version.fixedSize...(Version.fixedSize + Version.capabilitiesLimit),
                    replyDescriptors: Self.receivedDescriptors
                )
            ) { "VERSION" }
        } catch {
            // Refusing to agree ends the connection, whatever the server does with it.
            guard case .system(let cause) = error else { throw error }
            guard cause.errno != .busy else {
                let remedy = "the server serves one client at a time: end the other one"
                throw conversation.fail("vfu/busy", "\(cause)", remedy)
            }
            throw conversation.fail("vfu/negotiate", "\(cause)", Self.remedy)
        }
        let answer: Version
        do throws(Version.Problem) {
            answer = try Version(frame.payload)
        } catch {
            throw conversation.fail("vfu/negotiate", "VERSION: \(error)", Self.remedy)
        }
        guard answer.major == offer.major, answer.minor <= offer.minor else {
            let what = "the server speaks \(answer.major).\(answer.minor)"
            throw conversation.fail("vfu/negotiate", "\(what), this client 0.0", Self.remedy)
        }
        let theirs = answer.capabilities ?? Capabilities()
        // A second socket was not asked for: what would come over it nobody would answer (HI-E41).
        guard theirs.hasTwinSocket != true, frame.descriptors.isEmpty else {
            let what = "a second socket, which was not asked for"
            throw conversation.fail("vfu/negotiate", what, Self.remedy)
        }
        messageDescriptors = min(
            theirs.messageDescriptors ?? Capabilities.defaultMessageDescriptors,
            Self.receivedDescriptors
        )
        transferSize = min(
            theirs.transferSize ?? Capabilities.defaultTransferSize,
            limits.transferSize
        )
        memoryRanges = theirs.memoryRanges ?? Capabilities.defaultMemoryRanges
        let pages = UInt64(clamping: theirs.pageSizes ?? 4096)
        page = max(4096, pages & (~pages &+ 1))
    }

    /// Descriptors that are taken with one message, and so the most that are sent with one.
    private static let receivedDescriptors = 32
    private static let remedy =
        "check that this is the socket of a vfio-user server, and its version"
}
