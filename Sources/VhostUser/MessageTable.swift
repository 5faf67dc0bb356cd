public import VirtioSpec

/// What is fixed about a request: the one place that knows sizes, descriptors, gates and answers.
public struct MessageRule: Sendable {
    /// How many payload bytes a request has.
    public enum PayloadSize: Sendable {
        /// Exactly so many.
        case exactly(Int)
        /// `head` bytes and any number of items of `item` bytes; the request's own fields say how
        /// many, and whoever handles it compares.
        case list(head: Int, item: Int)

        /// True when `count` bytes can be a payload of this shape.
        public func allows(_ count: Int) -> Bool {
            switch self {
            case .exactly(let size): count == size
            case .list(let head, let item): count >= head && (count - head) % item == 0
            }
        }
    }

    /// How many descriptors come with a request.
    public enum Descriptors: Sendable {
        /// So many at least and at most.
        case between(Int, Int)
        /// One, or none when the payload says so; whoever handles the request compares.
        case asMarked
        /// One for each region in the payload; whoever handles the request compares.
        case perRegion

        /// No descriptor.
        static let none = Descriptors.between(0, 0)
        /// Exactly one.
        static let one = Descriptors.between(1, 1)

        /// True when `count` descriptors can be right, as far as can be told without the payload.
        public func allows(_ count: Int) -> Bool {
            switch self {
            case .between(let least, let most): (least...most).contains(count)
            case .asMarked: count <= 1
            case .perRegion: true
            }
        }
    }

    /// What must have been negotiated before a request may come.
    public enum Gate: Sendable, Equatable {
        /// Nothing.
        case open
        /// A protocol feature.
        case protocolFeature(ProtocolFeatures)
        /// A virtio feature.
        case feature(FeatureBits)
        /// Feature bit 30, unless SET_FEATURES is still to come: QEMU enables rings before it.
        case vhostUserProtocol
        /// Another kind of device than those here.
        case otherDevice
    }

    /// What answers a request.
    public enum Answer: Sendable {
        /// An acknowledgement, if one was asked for and that was negotiated.
        case acknowledgement
        /// A reply of its own, always.
        case own
    }

    /// The request.
    public let request: Request
    /// Its name in the protocol text.
    public let name: String
    /// Size of its payload.
    public let payload: PayloadSize
    /// Descriptors with it.
    public let descriptors: Descriptors
    /// What it needs.
    public let gate: Gate
    /// What answers it.
    public let answer: Answer

    fileprivate init(
        _ request: Request,
        _ name: String,
        _ payload: PayloadSize,
        _ descriptors: Descriptors = .none,
        _ gate: Gate = .open,
        _ answer: Answer = .acknowledgement
    ) {
        self.request = request
        self.name = name
        self.payload = payload
        self.descriptors = descriptors
        self.gate = gate
        self.answer = answer
    }
}

/// The rules of all requests that QEMU's document defines (vhost-user: Front-end message types).
public enum MessageTable {
    /// The rule of a request id; `nil` for an id nobody defined.
    public static func rule(_ request: UInt32) -> MessageRule? {
        guard request >= 1, let index = Int(exactly: request - 1), index < rules.count else {
            return nil
        }
        return rules[index]
    }

    /// The rule of a request.
    public static func rule(_ request: Request) -> MessageRule {
        rules[Int(request.rawValue) - 1]
    }

    private static let nothing = MessageRule.PayloadSize.exactly(0)
    private static let number = MessageRule.PayloadSize.exactly(NumberPayload.size)
    private static let state = MessageRule.PayloadSize.exactly(VringState.size)
    private static let oneRegion = MessageRule.PayloadSize.exactly(SingleRegionPayload.size)
    private static let bytes = MessageRule.PayloadSize.list(head: 12, item: 1)
    private static let slots = MessageRule.Gate.protocolFeature(.memorySlots)
    private static let status = MessageRule.Gate.protocolFeature(.status)
    private static let crypto = MessageRule.Gate.protocolFeature(.cryptoSession)
    private static let fault = MessageRule.Gate.protocolFeature(.pageFault)
    private static let inflight = MessageRule.Gate.protocolFeature(.inflight)
    private static let configuration = MessageRule.Gate.protocolFeature(.configuration)
    private static let transfer = MessageRule.Gate.protocolFeature(.deviceState)

    /// All rules; the rule of request id n is at n - 1.
    public static let rules: [MessageRule] = [
        MessageRule(.getFeatures, "GET_FEATURES", nothing, .none, .open, .own),
        MessageRule(.setFeatures, "SET_FEATURES", number),
        MessageRule(.setOwner, "SET_OWNER", nothing),
        MessageRule(.resetOwner, "RESET_OWNER", nothing),
        MessageRule(
            .setMemoryTable,
            "SET_MEM_TABLE",
            .list(head: MemoryTablePayload.headSize, item: MemoryRegionPayload.size),
            .perRegion
        ),
        MessageRule(
            .setLogBase,
            "SET_LOG_BASE",
            .exactly(16),
            .one,
            .protocolFeature(.logShared),
            .own
        ),
        MessageRule(.setLogDescriptor, "SET_LOG_FD", nothing, .one, .feature(.vhostLogAll)),
        MessageRule(.setVringSize, "SET_VRING_NUM", state),
        MessageRule(.setVringAddress, "SET_VRING_ADDR", .exactly(VringAddress.size)),
        MessageRule(.setVringBase, "SET_VRING_BASE", state),
        MessageRule(.getVringBase, "GET_VRING_BASE", state, .none, .open, .own),
        MessageRule(.setVringKick, "SET_VRING_KICK", number, .asMarked),
        MessageRule(.setVringCall, "SET_VRING_CALL", number, .asMarked),
        MessageRule(.setVringError, "SET_VRING_ERR", number, .asMarked),
        MessageRule(.getProtocolFeatures, "GET_PROTOCOL_FEATURES", nothing, .none, .open, .own),
        MessageRule(.setProtocolFeatures, "SET_PROTOCOL_FEATURES", number),
        MessageRule(
            .getQueueCount,
            "GET_QUEUE_NUM",
            nothing,
            .none,
            .protocolFeature(.multiqueue),
            .own
        ),
        MessageRule(.setVringEnable, "SET_VRING_ENABLE", state, .none, .vhostUserProtocol),
        MessageRule(.sendRARP, "SEND_RARP", number, .none, .protocolFeature(.rarp)),
        MessageRule(.setMTU, "NET_SET_MTU", number, .none, .protocolFeature(.mtu)),
        MessageRule(
            .setBackendChannel,
            "SET_BACKEND_REQ_FD",
            nothing,
            .one,
            .protocolFeature(.backendRequests)
        ),
        MessageRule(.iotlb, "IOTLB_MSG", .exactly(32), .none, .feature(.accessPlatform), .own),
        MessageRule(
            .setVringEndian,
            "SET_VRING_ENDIAN",
            state,
            .none,
            .protocolFeature(.crossEndian)
        ),
        MessageRule(.getConfiguration, "GET_CONFIG", bytes, .none, configuration, .own),
        MessageRule(.setConfiguration, "SET_CONFIG", bytes, .none, configuration),
        MessageRule(.createCryptoSession, "CREATE_CRYPTO_SESSION", bytes, .none, crypto, .own),
        MessageRule(.closeCryptoSession, "CLOSE_CRYPTO_SESSION", number, .none, crypto),
        MessageRule(.postcopyAdvise, "POSTCOPY_ADVISE", nothing, .none, fault, .own),
        MessageRule(.postcopyListen, "POSTCOPY_LISTEN", nothing, .none, fault),
        MessageRule(.postcopyEnd, "POSTCOPY_END", nothing, .none, fault, .own),
        MessageRule(.getInflight, "GET_INFLIGHT_FD", .exactly(24), .none, inflight, .own),
        MessageRule(.setInflight, "SET_INFLIGHT_FD", .exactly(24), .one, inflight),
        MessageRule(.setGPUSocket, "GPU_SET_SOCKET", nothing, .one, .otherDevice),
        MessageRule(
            .resetDevice,
            "RESET_DEVICE",
            nothing,
            .none,
            .protocolFeature(.resetDevice)
        ),
        MessageRule(
            .vringKick,
            "VRING_KICK",
            state,
            .none,
            .protocolFeature(.inBandNotifications)
        ),
        MessageRule(.getMemorySlots, "GET_MAX_MEM_SLOTS", nothing, .none, slots, .own),
        MessageRule(.addRegion, "ADD_MEM_REG", oneRegion, .one, slots),
        // Older front-ends send a descriptor along; it is closed unused (vhost-user: REM_MEM_REG).
        MessageRule(.removeRegion, "REM_MEM_REG", oneRegion, .between(0, 1), slots),
        MessageRule(.setStatus, "SET_STATUS", number, .none, status),
        MessageRule(.getStatus, "GET_STATUS", nothing, .none, status, .own),
        MessageRule(
            .getSharedObject,
            "GET_SHARED_OBJECT",
            .exactly(16),
            .none,
            .protocolFeature(.sharedObject),
            .own
        ),
        MessageRule(.setDeviceState, "SET_DEVICE_STATE_FD", .exactly(8), .one, transfer, .own),
        MessageRule(.checkDeviceState, "CHECK_DEVICE_STATE", nothing, .none, transfer, .own),
        MessageRule(
            .getSharedMemory,
            "GET_SHMEM_CONFIG",
            nothing,
            .none,
            .protocolFeature(.sharedMemoryMap),
            .own
        ),
    ]
}
