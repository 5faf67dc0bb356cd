internal import Glibc
internal import GuestMemory
public import HostSystem
internal import PCI
public import Virtio
public import VirtioSpec
public import Virtqueue

/// Drives a network device over any transport (virtio 1.3 §5.1): brings it up, makes the rings and
/// buffers of its queue pairs, follows its link, and takes everything back in the end.
///
/// Checksum and segmentation offloads are never negotiated: what arrives is a whole frame, and what
/// is sent too. Packets are not its business: `takePairs` gives the queue pairs to whoever moves
/// them, and from then on this object only touches registers and the control queue. One thread.
///
///     let driver = NetDriver(transport: transport, loop: loop)
///     try driver.start()
///     let port = try DevicePort(driver.takePairs()[0])
///     …
///     try driver.stop()      // when nobody uses the pairs any more
public final class NetDriver {
    /// What the device said of itself, as far as it was negotiated; checked.
    public struct Identity: Equatable, Sendable {
        /// The negotiated features.
        public internal(set) var features: FeatureBits = []
        /// Its own address.
        public internal(set) var macAddress: [UInt8]?
        /// Longest packet without Ethernet header.
        public internal(set) var mtu: UInt16?
        /// Most queue pairs, as claimed.
        public internal(set) var maximumPairs: UInt16 = 1
    }

    /// How long the device may take for a control command, in milliseconds (HI-A47).
    public var controlLimit: UInt64 = 1000
    /// Called for what happens after `start`.
    public var onEvent: ((NetEvent) -> Void)?

    /// What the device said of itself at the last start.
    public private(set) var identity = Identity()
    /// Queue pairs in use.
    public private(set) var pairCount = 0
    /// The link, as last read; up where the device cannot tell.
    public private(set) var isLinkUp = true
    /// Why the queue pairs cannot interrupt; `nil` when they do, or nobody asked for it.
    public private(set) var interruptProblem: VirtioError?
    /// Whether the device runs, and if not, why.
    public private(set) var state = State.stopped

    /// Where the device stands.
    public enum State: Equatable, Sendable {
        /// Reset; nothing of it is used.
        case stopped
        /// Between DRIVER_OK and the next reset.
        case running
        /// It asks for a reset: `stop` and `start` again (HI-A48).
        case needsReset
        /// It vanished (HI-A53).
        case gone
    }

    private let transport: any VirtioTransport
    private let loop: EventLoop
    private let options: NetOptions
    private var rings: [NetRingMemory] = []
    private var control: DriverBufferQueue?
    private var pairs: [PacketPairConfiguration] = []
    private var sources: [EventLoop.Source] = []

    /// Takes the device, which must be a network device; nothing is done to it before `start`.
    public init(transport: any VirtioTransport, loop: EventLoop, options: NetOptions = .init()) {
        self.transport = transport
        self.loop = loop
        self.options = options
    }

    /// Brings the device up. When this throws, the device was reset and everything given back,
    /// unless it does not even reset.
    public func start() throws(VirtioError) {
        precondition(state == .stopped, "a driver is stopped before it is started again")
        guard transport.deviceType == .net else {
            throw .notSupported("a network driver for \(transport.deviceType)")
        }
        do {
            let wanted = NetFeatures.wanted(
                try transport.deviceFeatures(),
                pairs: options.queuePairs
            )
            _ = try DriverHandshake.run(transport, wanted: wanted) {
                (features) throws(VirtioError) in
                try setUp(features)
            }
            state = .running
            try configure()
            try connect()
        } catch {
            let reason = error
            if case .deviceGone = reason { state = .gone }
            do { try stop() } catch { throw reason }
            throw reason
        }
    }

    /// The running device's queue pairs, once: whoever gets them owns their rings.
    public func takePairs() -> [PacketPairConfiguration] {
        defer { pairs = [] }
        return pairs
    }

    /// Looks at status and link: at a configuration interrupt, and now and then where the device has
    /// none. Tells of changes through `onEvent`.
    public func check() {
        guard state == .running else { return }
        do throws(VirtioError) {
            // One that fell out of DRIVER_OK by itself serves no queue and says no more.
            let status = try transport.requireHealthy()
            guard status.contains(.driverOK) else { throw .needsReset(status) }
            try readLink(tells: true)
        } catch .needsReset(let status) {
            state = .needsReset
            onEvent?(.needsReset(status))
        } catch .deviceGone {
            state = .gone
            onEvent?(.gone)
        } catch {
            onEvent?(.problem("\(error)"))
        }
    }

    /// Resets the device and takes its memory back. Nobody may use the pairs any more.
    ///
    /// A device that does not reset keeps its memory, and the call may be repeated.
    public func stop() throws(VirtioError) {
        for source in sources { loop.remove(source) }
        sources = []
        pairs = []
        do {
            try transport.reset()
        } catch .deviceGone {
            // It reaches no memory any more.
        }
        // What lies in the arenas goes with them, unanswered commands too.
        control = nil
        unanswered = []
        pairCount = 0
        state = .stopped
        var failure: VirtioError?
        for ring in rings {
            do { try transport.releaseArena(ring.arena) } catch { failure = error }
        }
        rings = []
        if let failure { throw failure }
    }

    /// Sends a command on the control queue and waits for the answer, at most `controlLimit`.
    ///
    /// A queue on which no answer came takes no further command (HI-A47).
    public func send(_ command: NetControl) throws(VirtioError) {
        guard let control else { throw .notSupported("\(command) without a control queue") }
        let token = try control.submit(readable: command.encoded, writableCount: 1)
        try control.notify()
        let deadline = Deadline(milliseconds: controlLimit)
        while true {
            if let answer = try control.poll(), answer.token == token {
                guard answer.written == [NetControl.accepted] else {
                    throw .command("\(command)", "the device refuses")
                }
                return
            }
            guard !deadline.hasPassed else { break }
            usleep(50)
        }
        // The buffers of this command are the device's until its reset: the queue rests with them.
        unanswered.append(control)
        self.control = nil
        throw .controlTimeout("\(command)")
    }

    /// Control queues that owe an answer.
    private var unanswered: [DriverBufferQueue] = []
}

// Between FEATURES_OK and DRIVER_OK.
extension NetDriver {
    private func setUp(_ features: FeatureBits) throws(VirtioError) {
        identity = try readIdentity(features)
        let wanted = max(1, min(options.queuePairs, Int(identity.maximumPairs)))
        let hasControl = features.contains(.netControlQueue)
        let controlIndex =
            features.contains(.netMultiqueue) ? 2 * Int(identity.maximumPairs) : 2
        let queues = try transport.queueCount()
        guard hasControl ? controlIndex < queues : 2 * wanted <= queues else {
            throw .configurationRange(
                "\(queues) queues for \(identity.maximumPairs) pairs"
                    + (hasControl ? " and a control queue" : "")
            )
        }
        interruptProblem = nil
        if options.usesInterrupts { try bindConfiguration() }
        for index in 0..<wanted { try setUpPair(index, features) }
        pairCount = wanted
        guard hasControl, let first = rings.first else { return }
        control = try DriverBufferQueue(
            transport: transport,
            queue: controlIndex,
            size: NetRingMemory.controlSize,
            bufferSize: 64,
            arena: first.arena,
            features: QueueFeatures(features),
            vector: nil
        )
    }

    private func readIdentity(_ features: FeatureBits) throws(VirtioError) -> Identity {
        var identity = Identity()
        identity.features = features
        if features.contains(.netMAC) {
            identity.macAddress = try field(NetConfiguration.macAddress)
        }
        if features.contains(.netMultiqueue) {
            let count = try word(NetConfiguration.maximumPairs)
            guard NetConfiguration.pairRange.contains(count) else {
                throw .configurationRange("\(count) queue pairs")
            }
            identity.maximumPairs = count
        }
        if features.contains(.netMTU) {
            let mtu = try word(NetConfiguration.mtu)
            guard mtu >= NetConfiguration.leastMTU else {
                throw .configurationRange("an MTU of \(mtu)")
            }
            identity.mtu = mtu
        }
        return identity
    }

    private func setUpPair(_ index: Int, _ features: FeatureBits) throws(VirtioError) {
        let receive = try ringSize(2 * index)
        let transmit = try ringSize(2 * index + 1)
        let ring = try NetRingMemory(
            transport,
            receiveSize: receive,
            transmitSize: transmit,
            identity: identity,
            isFirst: index == 0
        )
        rings.append(ring)
        let wakeup = try enableReceive(index, ring)
        try transport.enableQueue(2 * index + 1, ring.transmit, vector: nil)
        pairs.append(ring.pair(features: features, wakeup: wakeup))
    }

    /// Enables a receive queue, with an interrupt where there is one for it.
    private func enableReceive(_ index: Int, _ ring: NetRingMemory) throws(VirtioError) -> EventFD?
    {
        let vector = UInt16(index + 1)
        if options.usesInterrupts, interruptProblem == nil {
            do {
                let event = try transport.interrupt(vector)
                try transport.enableQueue(2 * index, ring.receive, vector: vector)
                return event
            } catch .pci(let error) {
                if case .deviceGone = error { throw .deviceGone }
                interruptProblem = .pci(error)
            }
        }
        try transport.enableQueue(2 * index, ring.receive, vector: nil)
        return nil
    }

    /// Without a vector the link is looked at by `check` alone.
    private func bindConfiguration() throws(VirtioError) {
        do {
            let event = try transport.interrupt(0)
            try transport.bindConfigurationVector(0)
            try watch(event) { [weak self] in self?.check() }
        } catch .pci(let error) {
            if case .deviceGone = error { throw .deviceGone }
            interruptProblem = .pci(error)
        }
    }

    private func ringSize(_ queue: Int) throws(VirtioError) -> UInt16 {
        let limit = min(try transport.queueLimit(queue), options.ringSize)
        guard limit > 0 else { throw .queueRefused(queue) }
        return UInt16(1) << UInt16(15 - limit.leadingZeroBitCount)
    }
}

// After DRIVER_OK.
extension NetDriver {
    private func configure() throws(VirtioError) {
        if identity.features.contains(.netMultiqueue) {
            try send(.queuePairs(UInt16(pairCount)))
        }
        if options.isPromiscuous, identity.features.contains(.netControlReceive) {
            do {
                try send(.promiscuous(true))
            } catch .command(let command, let answer) {
                // A device may take in what is its own only; that is told, and no reason to fail.
                onEvent?(.problem("\(command): \(answer)"))
            }
        }
        try readLink(tells: false)
    }

    /// Gives each ring its doorbell; where the transport has none, an eventfd that the control
    /// thread turns into a notification.
    private func connect() throws(VirtioError) {
        for index in pairs.indices {
            pairs[index].receiveDoorbell = try doorbell(2 * index)
            pairs[index].transmitDoorbell = try doorbell(2 * index + 1)
        }
    }

    private func doorbell(_ queue: Int) throws(VirtioError) -> Doorbell {
        do {
            return try transport.queueDoorbell(queue)
        } catch .notSupported {
            return try relay(queue)
        } catch .pci(.notSupported) {
            return try relay(queue)
        }
    }

    private func relay(_ queue: Int) throws(VirtioError) -> Doorbell {
        let event: EventFD
        do throws(SystemError) { event = try EventFD() } catch { throw .system(error) }
        try watch(event) { [weak self] in
            guard let self, state == .running else { return }
            do { try transport.notifyQueue(queue) } catch { onEvent?(.problem("\(error)")) }
        }
        return Doorbell(eventDescriptor: event.descriptor.rawValue)
    }

    private func watch(
        _ event: EventFD,
        _ handler: @escaping () -> Void
    ) throws(VirtioError) {
        do throws(SystemError) {
            // The handler keeps the eventfd open for as long as it is watched.
            sources.append(
                try loop.watch(event.descriptor) {
                    _ = event.drain()
                    handler()
                }
            )
        } catch {
            throw .system(error)
        }
    }

    private func readLink(tells: Bool) throws(VirtioError) {
        guard identity.features.contains(.netStatus) else { return }
        let isUp = try word(NetConfiguration.status) & NetConfiguration.linkUp != 0
        guard isUp != isLinkUp else { return }
        isLinkUp = isUp
        if tells { onEvent?(.link(isUp: isUp)) }
    }

    private func field(_ range: Range<Int>) throws(VirtioError) -> [UInt8] {
        try transport.readConfiguration(range.lowerBound, range.count)
    }

    private func word(_ range: Range<Int>) throws(VirtioError) -> UInt16 {
        let bytes = try field(range)
        guard bytes.count == 2 else {
            throw .configurationRange("\(bytes.count) bytes of a 16-bit field")
        }
        return UInt16(bytes[0]) | UInt16(bytes[1]) << 8
    }
}
