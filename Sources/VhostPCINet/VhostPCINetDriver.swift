internal import GuestMemory
public import HostSystem
internal import PCI
public import Virtio
public import VirtioSpec
internal import Virtqueue

/// Drives a vhost-pci-net device over any transport: learns from the device where the peer's memory
/// and rings are, and hands them to a host between ON and OFF.
///
/// What happens when is decided by `DriverState`; this class carries it out. Everything runs on the
/// thread of the event loop; the host's threads touch the window, and nothing else of this.
///
///     let driver = VhostPCINetDriver(transport: transport, loop: loop, host: host)
///     try driver.start()
///     try loop.run()
///     driver.stop()
public final class VhostPCINetDriver {
    /// The address made up for this interface (VPN-M-02).
    public let address = LocalMACAddress()
    /// The negotiated features.
    public private(set) var features: FeatureBits = []

    let transport: any VirtioTransport
    weak var host: (any VhostPCINetHost)?
    var memory = MemoryTable.empty
    /// The windows, as the table numbers them.
    var views: [BARWindow] = []
    /// One for each receive queue: readable when the peer kicked its transmit queue.
    private(set) var wakeups: [EventFD] = []
    private(set) var receive: DriverBufferQueue?
    private(set) var transmit: DriverBufferQueue?

    let loop: EventLoop
    /// Set while a thread of the host's may still work on a window that was taken away.
    var stuck: EventLoop.Source?
    private var state = DriverState(maximumQueues: 0, features: [])
    private var events: [DriverState.Event] = []
    private var isProcessing = false
    private var arena: DMAArena?
    private var receiveQueues: [DriverBufferQueue] = []
    private var sources: [EventLoop.Source] = []
    private var health: EventLoop.Source?
    private var restart: EventLoop.Source?
    private var restarts = 0

    /// Bytes of a buffer for the device's messages (VPN-M-01).
    static let bufferSize = 4096
    /// Buffers for the device's messages.
    static let bufferCount: UInt16 = 32
    /// Entries of a receive queue: it carries interrupts, no buffers.
    static let receiveQueueSize: UInt16 = 2
    /// Receive queues that are set up at the most, whatever the device claims (HI-A54).
    public static let maximumReceiveQueues = 128
    /// How long the device's OFF is waited for, in milliseconds (HI-G8).
    public static let offMilliseconds: UInt64 = 1000
    /// How often the status is looked at, in milliseconds (VPN-M-18).
    static let healthMilliseconds: UInt64 = 500
    /// Resets in a row without a connection in between, after which the driver gives up.
    static let maximumRestarts = 8

    private enum Vector {
        static let configuration: UInt16 = 0
        static let control: UInt16 = 1
        static let firstReceive: UInt16 = 3
    }

    /// Makes a driver; the device is not touched yet. `host` is not retained.
    public init(transport: any VirtioTransport, loop: EventLoop, host: any VhostPCINetHost) {
        self.transport = transport
        self.loop = loop
        self.host = host
    }

    /// Brings the device to DRIVER_OK, buffers for its messages included. While threads still work on
    /// an earlier peer's window nothing happens: it is started when they have let go.
    public func start() throws(VirtioError) {
        guard arena == nil, stuck == nil else { return }
        do throws(VirtioError) {
            features = try DriverHandshake.run(transport, wanted: FeatureMirror.supported) {
                features throws(VirtioError) in try setUp(features)
            }
            try receive?.notify()
            try watch()
        } catch {
            tearDown()
            throw error
        }
        feed(.started)
        host?.driverReport(.ready(features: features, address: address))
    }

    /// Lets go of the device: every thread first, then OFF and the device's answer, at most
    /// `offMilliseconds`, then a reset (VPN-M-05). Returns when all of it is done.
    public func stop() {
        if let restart { loop.remove(restart) }
        restart = nil
        feed(.stop)
        if let stuck {
            loop.remove(stuck)
            self.stuck = nil
            host?.driverReport(.stopped)
        }
        let deadline = Deadline(milliseconds: Self.offMilliseconds)
        while state.phase == .stopping, !deadline.hasPassed {
            // A device in this process answers while it is notified; others need the loop.
            takeMessages()
            if state.phase == .stopping { try? loop.turn(limitMilliseconds: 1) }
        }
        if state.phase == .stopping { feed(.offTimeout) }
        tearDown()
    }

    // MARK: set-up

    private func setUp(_ features: FeatureBits) throws(VirtioError) {
        let count = try transport.queueCount()
        guard count > VhostPCINetDevice.firstReceiveQueue else {
            throw .configurationRange("a vhost-pci-net device with \(count) queues")
        }
        let pairs = min(count - VhostPCINetDevice.firstReceiveQueue, Self.maximumReceiveQueues)
        // Buffers for messages, their rings, and a page of rings for each receive queue.
        let size = Int(Self.bufferCount) * Self.bufferSize + 16 * 4096 + pairs * 4096
        let arena = try transport.makeArena(size: size)
        self.arena = arena
        let queueFeatures = QueueFeatures(features)
        try transport.bindConfigurationVector(Vector.configuration)
        receive = try DriverBufferQueue(
            transport: transport,
            queue: VhostPCINetDevice.controlReceiveQueue,
            size: Self.bufferCount,
            bufferSize: Self.bufferSize,
            arena: arena,
            features: queueFeatures,
            vector: Vector.control
        )
        transmit = try DriverBufferQueue(
            transport: transport,
            queue: VhostPCINetDevice.controlTransmitQueue,
            size: Self.bufferCount,
            bufferSize: 64,
            arena: arena,
            features: queueFeatures,
            vector: nil
        )
        for index in 0..<pairs {
            let vector = Vector.firstReceive + UInt16(index)
            wakeups.append(try transport.interrupt(vector))
            receiveQueues.append(
                try DriverBufferQueue(
                    transport: transport,
                    queue: VhostPCINetDevice.firstReceiveQueue + index,
                    size: Self.receiveQueueSize,
                    bufferSize: 64,
                    arena: arena,
                    features: queueFeatures,
                    vector: vector
                )
            )
        }
        try fill()
        state = DriverState(maximumQueues: 2 * pairs + 1, features: features)
    }

    /// Posts as many buffers for messages as the queue takes (VPN-M-01).
    private func fill() throws(VirtioError) {
        guard let receive else { return }
        let limit = Int(min(Self.bufferCount, try transport.queueLimit(0)))
        while receive.outstanding < limit {
            _ = try receive.submit(readable: [], writableCount: Self.bufferSize)
        }
    }

    private func watch() throws(VirtioError) {
        let configuration = try transport.interrupt(Vector.configuration)
        let control = try transport.interrupt(Vector.control)
        do throws(SystemError) {
            sources.append(
                try loop.watch(configuration.descriptor) { [weak self] in
                    _ = configuration.drain()
                    self?.checkHealth()
                }
            )
            sources.append(
                try loop.watch(control.descriptor) { [weak self] in
                    _ = control.drain()
                    self?.takeMessages()
                }
            )
        } catch {
            throw .system(error)
        }
        scheduleHealthCheck()
    }

    /// Gives everything back. The device is reset first: it may write to the arena until then.
    func tearDown() {
        for source in sources { loop.remove(source) }
        sources = []
        if let health { loop.remove(health) }
        health = nil
        views = []
        memory = .empty
        guard let arena else { return }
        do throws(VirtioError) {
            try transport.reset()
            for queue in [receive, transmit].compactMap({ $0 }) + receiveQueues { queue.release() }
            try transport.releaseArena(arena)
        } catch {
            // A device that cannot be reset keeps the arena: it is never used for anything else.
            host?.driverReport(.failed("\(error)"))
        }
        self.arena = nil
        receive = nil
        transmit = nil
        receiveQueues = []
        wakeups = []
    }

    // MARK: messages

    /// Takes what the device sent, at most as many messages as there are buffers (R3).
    private func takeMessages() {
        do throws(VirtioError) {
            for _ in 0..<Self.bufferCount {
                guard let receive, let completion = try receive.poll() else { break }
                _ = try receive.submit(readable: [], writableCount: Self.bufferSize)
                feed(.frame(completion.written))
            }
            try receive?.notify()
        } catch {
            broken(error)
        }
    }

    func send(_ message: DriverMessage) {
        do throws(VirtioError) {
            guard let transmit else { return }
            while try transmit.poll() != nil {}
            _ = try transmit.submit(readable: message.frame, writableCount: 0)
            try transmit.notify()
        } catch {
            broken(error)
        }
    }

    /// A queue broke or the device does not answer: only a reset helps.
    func broken(_ error: VirtioError) {
        if case .deviceGone = error { return feed(.deviceGone) }
        host?.driverReport(.failed("\(error)"))
        feed(.needsReset)
    }

    // MARK: health

    private func scheduleHealthCheck() {
        health = loop.after(milliseconds: Self.healthMilliseconds) { [weak self] in
            self?.health = nil
            self?.checkHealth()
            if self?.arena != nil { self?.scheduleHealthCheck() }
        }
    }

    private func checkHealth() {
        do throws(VirtioError) {
            try transport.requireHealthy()
        } catch {
            switch error {
            case .deviceGone: feed(.deviceGone)
            case .needsReset: feed(.needsReset)
            default: broken(error)
            }
        }
    }

    /// After a reset that the device asked for, it is driven again, a little later each time.
    private func scheduleRestart() {
        tearDown()
        guard restarts < Self.maximumRestarts else {
            host?.driverReport(.failed("the device asked for a reset \(restarts) times in a row"))
            return
        }
        restarts += 1
        restart = loop.after(milliseconds: min(500, UInt64(10) << UInt64(restarts))) {
            [weak self] in
            guard let self else { return }
            restart = nil
            do throws(VirtioError) {
                try start()
            } catch {
                host?.driverReport(.failed("\(error)"))
            }
        }
    }

    // MARK: events and actions

    /// Takes an event in, in order: one that comes while another is handled waits for it.
    func feed(_ event: DriverState.Event) {
        events.append(event)
        guard !isProcessing else { return }
        isProcessing = true
        defer { isProcessing = false }
        while !events.isEmpty {
            for action in state.handle(events.removeFirst()) {
                perform(action)
                if stuck != nil { return forgetAll() }
            }
        }
    }

    /// Neither what was to follow nor what came meanwhile counts any more.
    private func forgetAll() {
        events = []
        state = DriverState(maximumQueues: 0, features: [])
    }

    private func perform(_ action: DriverState.Action) {
        switch action {
        case .map(let table): map(table)
        case .acknowledge(let generation): acknowledge(generation)
        case .connect(let table, let queues, let features):
            restarts = 0
            connect(table, queues, features)
        case .quiesce: quiesce()
        case .release:
            views = []
            memory = .empty
        case .sendOff: send(.off)
        // The wait for OFF is `stop`'s own, with its deadline.
        case .startTimer, .cancelTimer: break
        case .reset: scheduleRestart()
        case .report(let event): host?.driverReport(event)
        }
    }
}
