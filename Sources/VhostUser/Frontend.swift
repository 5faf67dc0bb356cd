internal import Glibc
public import HostSystem
public import VirtioSpec

/// What a front-end wants of a back-end, and how long it waits for it.
public struct FrontendWish: Sendable {
    /// Features to acknowledge where they are offered; others never are (VU-F-01).
    public var features: FeatureBits
    /// Features without which there is no session.
    public var requiredFeatures: FeatureBits
    /// Protocol features to acknowledge where they are offered.
    public var protocolFeatures: ProtocolFeatures = .used
    /// Milliseconds for one reply. DPDK's back-end takes seconds to map a gigabyte.
    public var replyMilliseconds: UInt64 = 10_000
    /// Milliseconds for `connect` and the handshake altogether, attempts included.
    public var connectMilliseconds: UInt64 = 10_000

    /// Describes a wish.
    public init(features: FeatureBits, requiredFeatures: FeatureBits = .version1) {
        self.features = features.union(requiredFeatures)
        self.requiredFeatures = requiredFeatures
    }
}

/// The front-end of one vhost-user connection: it gives memory and rings to a back-end of any make,
/// and takes them back.
///
/// Every call blocks, but not longer than the wish's deadline; a `cancel` descriptor that becomes
/// readable ends any wait at once (HI-D61). The order is features, memory, rings, enable (VU-F-02):
///
///     let frontend = try Frontend.connect(to: path, wish: FrontendWish(features: […]))
///     try frontend.share([FrontendRegion(file, guestAddress: 0)])
///     for ring in rings { try frontend.start(ring) }
///     for ring in rings { try frontend.setEnabled(ring.index, true) }
///     try frontend.driverReady()
///     … let position = try frontend.stop(0)
public final class Frontend {
    /// What the back-end said of itself, to compare after a reconnect (HI-D63).
    public struct Identity: Sendable, Equatable {
        /// Features offered.
        public var features: FeatureBits
        /// Protocol features offered.
        public var protocolFeatures: ProtocolFeatures
        /// Queue pairs (of a network device) or rings, `nil` where it cannot say.
        public var queueCount: UInt64?

        /// What `self` lacks of what `earlier` had.
        public func losses(since earlier: Identity) -> [String] {
            var list: [String] = []
            let bits = earlier.features.subtracting(features)
            if !bits.isEmpty { list.append("feature bits \(bits.bits)") }
            let lost = earlier.protocolFeatures.subtracting(protocolFeatures)
            if !lost.isEmpty { list.append("protocol features \(lost)") }
            if queueCount != earlier.queueCount {
                let before = earlier.queueCount.map(String.init) ?? "unknown"
                let now = queueCount.map(String.init) ?? "unknown"
                list.append("queue count \(before) became \(now)")
            }
            return list
        }
    }

    /// What the back-end said of itself.
    public let identity: Identity
    /// Features in force, without bit 30.
    public let features: FeatureBits
    /// Protocol features in force.
    public let protocolFeatures: ProtocolFeatures
    /// Regions shared at present.
    public private(set) var regions: [FrontendRegion] = []
    /// Rings given to the back-end at present, by index.
    public private(set) var rings: [Int: FrontendRing] = [:]

    /// Most queue pairs, or rings, that a back-end can mean: a virtio-net device has no more pairs
    /// (virtio 1.3 §5.1.4).
    static let largestQueueCount: UInt64 = 32768

    private let channel: FrontendChannel

    /// Goes through the handshake on a connected socket.
    ///
    /// With `expecting`, a back-end that lost something since is refused (HI-D63).
    public convenience init(
        _ socket: UnixSocket,
        wish: FrontendWish,
        expecting: Identity? = nil,
        cancel: FileDescriptor? = nil
    ) throws(FrontendError) {
        let limit = Deadline(milliseconds: wish.connectMilliseconds)
        try self.init(socket, wish, expecting, cancel, until: limit)
    }

    private init(
        _ socket: UnixSocket,
        _ wish: FrontendWish,
        _ expecting: Identity?,
        _ cancel: FileDescriptor?,
        until limit: Deadline
    ) throws(FrontendError) {
        channel = FrontendChannel(
            socket,
            replyMilliseconds: wish.replyMilliseconds,
            cancel: cancel
        )
        channel.limit = limit
        let offered = FeatureBits(rawValue: try channel.ask(.getFeatures))
        var protocolOffer: ProtocolFeatures = []
        if offered.contains(.vhostUserProtocol) {
            protocolOffer = ProtocolFeatures(rawValue: try channel.ask(.getProtocolFeatures))
            protocolFeatures = protocolOffer.intersection(wish.protocolFeatures)
            let chosen = NumberPayload.encode(protocolFeatures.rawValue)
            try channel.tell(.setProtocolFeatures, chosen)
        } else {
            protocolFeatures = []
        }
        channel.protocolFeatures = protocolFeatures
        var queueCount: UInt64?
        if protocolFeatures.contains(.multiqueue) {
            let count = try channel.ask(.getQueueCount)
            guard (1...Frontend.largestQueueCount).contains(count) else {
                throw channel.fail(Violation(.probe, "GET_QUEUE_NUM answered \(count)"))
            }
            queueCount = count
        }
        identity = Identity(
            features: offered,
            protocolFeatures: protocolOffer,
            queueCount: queueCount
        )
        features = offered.intersection(wish.features).subtracting(.vhostUserProtocol)
        let missing = wish.requiredFeatures.subtracting(offered)
        guard missing.isEmpty else {
            channel.close()
            throw FrontendError.missingFeatures(missing)
        }
        if let expecting {
            let losses = identity.losses(since: expecting)
            guard losses.isEmpty else {
                channel.close()
                throw FrontendError.featureLoss(losses)
            }
        }
        try channel.tell(.setOwner)
        if protocolFeatures.contains(.status) {
            try setStatus([.acknowledge, .driver])
        }
        let bit30: FeatureBits = offered.contains(.vhostUserProtocol) ? .vhostUserProtocol : []
        try channel.tell(.setFeatures, NumberPayload.encode(features.union(bit30).rawValue))
        try agreeOnFeatures()
        channel.limit = nil
    }

    deinit {
        channel.close()
    }

    /// Connects to `path` and goes through the handshake. Nobody there yet, and a back-end that dies
    /// in the middle of it (HI-I4), lead to another attempt with a new socket, until the wish's
    /// connect deadline.
    public static func connect(
        to path: String,
        wish: FrontendWish,
        expecting: Identity? = nil,
        cancel: FileDescriptor? = nil
    ) throws(FrontendError) -> Frontend {
        let deadline = Deadline(milliseconds: wish.connectMilliseconds)
        while true {
            let failure: FrontendError
            do throws(FrontendError) {
                let socket = try socket(to: path)
                return try Frontend(socket, wish, expecting, cancel, until: deadline)
            } catch {
                failure = error
            }
            guard failure.isWorthAnotherAttempt, !deadline.hasPassed else { throw failure }
            var entry = pollfd(fd: cancel?.rawValue ?? -1, events: Int16(POLLIN), revents: 0)
            let pause = min(20, deadline.remainingMilliseconds)
            if unsafe poll(&entry, 1, pause) == 1 { throw FrontendError.cancelled }
        }
    }

    private static func socket(to path: String) throws(FrontendError) -> UnixSocket {
        do throws(SystemError) {
            return try UnixSocket.connect(to: path)
        } catch {
            throw FrontendError.system(error)
        }
    }

    // MARK: - State

    /// Readable when the back-end has gone, or speaks unasked: then call `checkConnection`.
    public var descriptor: FileDescriptor { channel.descriptor }

    /// True while the back-end is there.
    public func checkConnection() -> Bool { channel.check() }

    /// Rings whose error descriptors were signalled since the last call: the back-end does not work
    /// on them any more (HI-D66).
    public func takeBrokenRings() -> [Int] {
        rings.values.filter { $0.error.drain() > 0 }.map(\.index).sorted()
    }

    /// Ends the connection; memory and rings are the caller's alone again.
    public func close() {
        channel.close()
        rings = [:]
        regions = []
    }

    // MARK: - Memory

    /// Shares these regions and no others.
    public func share(_ regions: [FrontendRegion]) throws(FrontendError) {
        guard (1...MemoryTablePayload.largestCount).contains(regions.count) else {
            throw FrontendError.invalid("SET_MEM_TABLE carries 1 … 8 regions, not \(regions.count)")
        }
        let table = MemoryTablePayload(regions.map(\.payload))
        try channel.tell(.setMemoryTable, table.encoded, regions.map(\.file))
        self.regions = regions
        try synchronise()
    }

    /// Shares one more region, where the back-end takes them one by one.
    public func add(_ region: FrontendRegion) throws(FrontendError) {
        try need(.memorySlots, "ADD_MEM_REG")
        let payload = SingleRegionPayload(region.payload).encoded
        try channel.tell(.addRegion, payload, [region.file])
        regions.append(region)
        try synchronise()
    }

    /// Takes one region back, where the back-end takes them one by one.
    public func remove(_ region: FrontendRegion) throws(FrontendError) {
        try need(.memorySlots, "REM_MEM_REG")
        try channel.tell(.removeRegion, SingleRegionPayload(region.payload).encoded)
        regions.removeAll { $0.payload == region.payload }
        try synchronise()
    }

    // MARK: - Rings

    /// Describes a ring, starts it, and kicks it once, as a back-end may wait for that (VU-F-04).
    public func start(_ ring: FrontendRing) throws(FrontendError) {
        guard let index = UInt32(exactly: ring.index), index < 256 else {
            throw FrontendError.invalid("ring \(ring.index); 0 … 255 are possible")
        }
        // A queue of a network device is a pair of rings, and no device has more rings to one.
        if let count = identity.queueCount, UInt64(index) / 2 >= count {
            throw FrontendError.violation(
                Violation(.probe, "ring \(index) is needed, the back-end has \(count) queues")
            )
        }
        let size = VringState(index: index, number: UInt32(ring.size))
        let base = VringState(index: index, number: UInt32(ring.nextAvailable))
        let addresses = VringAddress(
            index: index,
            descriptorArea: try userAddress(of: ring.descriptorArea),
            driverArea: try userAddress(of: ring.driverArea),
            deviceArea: try userAddress(of: ring.deviceArea)
        )
        let marked = VringDescriptor(index: UInt64(index), hasDescriptor: true).encoded
        try channel.tell(.setVringSize, size.encoded)
        try channel.tell(.setVringBase, base.encoded)
        try channel.tell(.setVringAddress, addresses.encoded)
        try channel.tell(.setVringCall, marked, [ring.call.descriptor])
        try channel.tell(.setVringError, marked, [ring.error.descriptor])
        try channel.tell(.setVringKick, marked, [ring.kick.descriptor])
        rings[ring.index] = ring
        if ring.kick.signal() == .blocked { throw FrontendError.kickBlocked(ring: ring.index) }
    }

    /// Lets a started ring work, or not. Without protocol features every ring works from its start,
    /// and this does nothing.
    public func setEnabled(_ index: Int, _ isEnabled: Bool) throws(FrontendError) {
        guard identity.features.contains(.vhostUserProtocol) else { return }
        guard let number = UInt32(exactly: index) else {
            throw FrontendError.invalid("ring \(index)")
        }
        let state = VringState(index: number, number: isEnabled ? 1 : 0)
        try channel.tell(.setVringEnable, state.encoded)
    }

    /// Stops a ring: when this returns the back-end works on it no more. The answer is the next
    /// available index, from which it may be started again.
    public func stop(_ index: Int) throws(FrontendError) -> UInt16 {
        guard let number = UInt32(exactly: index) else {
            throw FrontendError.invalid("ring \(index)")
        }
        let base = try channel.askBase(of: number)
        rings[index] = nil
        guard let position = UInt16(exactly: base) else {
            channel.close()
            throw FrontendError.violation(
                Violation(.reply, "GET_VRING_BASE answered \(base); a split ring has 16 bits")
            )
        }
        return position
    }

    // MARK: - Status

    /// Says that the driver is ready, where the back-end wants to know.
    public func driverReady() throws(FrontendError) {
        guard protocolFeatures.contains(.status) else { return try synchronise() }
        try setStatus([.acknowledge, .driver, .featuresOK, .driverOK])
    }

    /// Resets the device: all rings are stopped and disabled, memory stays shared.
    public func reset() throws(FrontendError) {
        if protocolFeatures.contains(.resetDevice) {
            try channel.tell(.resetDevice)
        } else {
            try need(.status, "RESET_DEVICE or SET_STATUS")
            try setStatus([])
        }
        rings = [:]
        try synchronise()
    }

    private func setStatus(_ status: DeviceStatus) throws(FrontendError) {
        try channel.tell(.setStatus, NumberPayload.encode(UInt64(status.rawValue)))
    }

    /// FEATURES_OK, and whether it stands (virtio 1.3 §3.1.1).
    private func agreeOnFeatures() throws(FrontendError) {
        guard protocolFeatures.contains(.status) else { return }
        try setStatus([.acknowledge, .driver, .featuresOK])
        let answer = try channel.ask(.getStatus)
        let status = DeviceStatus(rawValue: UInt8(truncatingIfNeeded: answer))
        guard status.contains(.featuresOK) else {
            channel.close()
            throw FrontendError.refused(request: "FEATURES_OK", answer: answer)
        }
    }

    /// Where requests are not acknowledged, a question that is: its answer comes after all that was
    /// sent before has been carried out.
    private func synchronise() throws(FrontendError) {
        guard !protocolFeatures.contains(.replyAcknowledge) else { return }
        _ = try channel.ask(.getFeatures)
    }

    private func need(_ feature: ProtocolFeatures, _ request: String) throws(FrontendError) {
        guard protocolFeatures.contains(feature) else {
            throw FrontendError.notNegotiated(request: request)
        }
    }

    private func userAddress(of guest: UInt64) throws(FrontendError) -> UInt64 {
        for region in regions where guest >= region.guestAddress {
            let offset = guest - region.guestAddress
            if offset < region.size { return region.userAddress &+ offset }
        }
        throw FrontendError.invalid("\(hex(guest)) is in no region that is shared")
    }
}

extension FrontendError {
    /// True for what time may heal: nobody listens yet, or the back-end was about to go.
    fileprivate var isWorthAnotherAttempt: Bool {
        switch self {
        case .closed: true
        case .system(let error):
            [.noSuchFile, .connectionRefused, .wouldBlock, .connectionReset].contains(error.errno)
        default: false
        }
    }
}
