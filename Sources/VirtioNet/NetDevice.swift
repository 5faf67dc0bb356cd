public import HostSystem
public import Virtio
public import VirtioSpec
public import Virtqueue

/// A network device (virtio 1.3 §5.1) whose packets are moved by somebody else: it negotiates with
/// the driver, and hands memory and rings to a host, which lets threads work on them.
///
/// No offload is offered: a frame is whole in either direction. Rings are taken from the threads
/// before anything that they lie in changes: at a reset, at the reset of a queue, when the driver's
/// memory or bus mastering goes. They are given back, where they were, when that is over. Everything
/// runs on the thread of the event loop; one that works on a ring only signals an eventfd, which
/// becomes the interrupt here.
///
///     let device = try NetDevice(options, loop: loop, host: host)
///     let function = try VirtioPCIFunction(device: device)
public final class NetDevice: QueueResettable, DriverMemoryObserver, DriverObserver {
    /// A network device.
    public let type = DeviceType.net
    /// How it was made.
    public let options: NetDeviceOptions
    /// Called for each step and each refusal.
    public var report: ((NetDeviceEvent) -> Void)?
    /// The link, as the driver is told: down while nobody works its rings for a fault on our side.
    public var isLinkUp: Bool { isLinkWanted && failure == nil }
    /// Why nobody works the driver's rings, though they were handed over; `nil` when that is not so.
    public internal(set) var failure: PeerConnectionFailure? {
        didSet { if (failure == nil) != (oldValue == nil), isLinkWanted { tellLink() } }
    }
    private var isLinkWanted = true
    /// Queue pairs that the driver uses.
    public internal(set) var activePairs = 1
    /// True while rings are in the host's hands.
    public var isAttached: Bool { connection != nil }

    let loop: EventLoop
    weak var host: (any PeerConnectionHost)?
    /// One for each data queue: signalled by whoever works it when the driver wants to hear of it.
    let bells: [EventFD]
    /// One for each pair: the driver notified its transmit queue.
    let wakeups: [EventFD]
    private var sources: [EventLoop.Source] = []

    /// Set from DRIVER_OK until the driver goes.
    var context: (any DeviceContext)?
    var control: DeviceBufferQueue?
    var isControlScheduled = false
    /// What the host works on.
    var connection: PeerConnection?
    /// What a thread may still work on after it was taken from the host.
    var stuck: (connection: PeerConnection, retry: EventLoop.Source)?
    /// Where each ring goes on.
    var positions: [Int: UInt16] = [:]
    /// The end of the wait for rings that are out of reach.
    var patience: EventLoop.Source?
    /// When the host is asked next whether a ring broke, and memory whether it is there.
    var check: EventLoop.Source?
    var generation: UInt32 = 0
    var hasFailed = false

    /// How long threads may take to let go of the rings, in milliseconds: a driver waits for its
    /// reset that long.
    public static let quiesceMilliseconds: UInt64 = 800
    /// How often threads that did not let go are asked again, in milliseconds.
    static let retryMilliseconds: UInt64 = 100
    /// How often rings and memory are looked at, in milliseconds.
    static let checkMilliseconds: UInt64 = 100
    /// How long it takes until rings that nobody works are handed over again, in milliseconds.
    static let handOverMilliseconds: UInt64 = 1000
    /// How long rings may be out of reach after the driver's memory changed, in milliseconds: a
    /// change may come in pieces.
    public static let patienceMilliseconds: UInt64 = 1000

    /// Makes a device with the link up. `host` is not retained.
    public init(
        _ options: NetDeviceOptions,
        loop: EventLoop,
        host: any PeerConnectionHost
    ) throws(VirtioError) {
        let address = options.macAddress
        guard address.count == 6, address[0] & 1 == 0 else {
            throw .configurationRange("a MAC address of \(address.count) bytes, or of a group")
        }
        self.options = options
        self.loop = loop
        self.host = host
        do throws(SystemError) {
            var bells: [EventFD] = []
            var wakeups: [EventFD] = []
            for _ in 0..<options.queuePairs {
                bells += [try EventFD(), try EventFD()]
                wakeups.append(try EventFD())
            }
            self.bells = bells
            self.wakeups = wakeups
            for (queue, bell) in bells.enumerated() {
                sources.append(
                    try loop.watch(bell.descriptor) { [weak self] in
                        _ = bell.drain()
                        self?.context?.interruptQueue(queue)
                    }
                )
            }
        } catch {
            throw .system(error)
        }
    }

    deinit {
        for source in sources { loop.remove(source) }
        for source in [patience, check, stuck?.retry].compactMap({ $0 }) { loop.remove(source) }
    }

    /// What stands in the configuration, merged receive buffers, several pairs where there are some,
    /// and what concerns rings.
    public var offeredFeatures: FeatureBits {
        var features: FeatureBits = [
            .netMAC, .netStatus, .netMergeableBuffers, .netControlQueue, .netControlReceive,
            .indirectDescriptors, .eventIndex, .ringReset,
        ]
        if options.mtu != nil { features.insert(.netMTU) }
        if options.queuePairs > 1 { features.insert(.netMultiqueue) }
        if options.offersAccessPlatform { features.insert(.accessPlatform) }
        return features
    }

    /// Receive and transmit queue of each pair, then the control queue.
    public var queueLimits: [UInt16] {
        [UInt16](repeating: options.ringSize, count: 2 * options.queuePairs) + [64]
    }

    /// Address, status, number of pairs, MTU.
    public var configuration: [UInt8] {
        let pairs = UInt16(options.queuePairs)
        let mtu = options.mtu ?? 0
        return options.macAddress
            + [isLinkUp ? UInt8(truncatingIfNeeded: NetConfiguration.linkUp) : 0, 0]
            + [pairs, mtu].flatMap { [UInt8(truncatingIfNeeded: $0), UInt8($0 >> 8)] }
    }

    /// There is nothing to write.
    public func writeConfiguration(_ bytes: [UInt8], at offset: Int) -> Bool { false }

    /// Sets that lack what one of their features rests on are refused (virtio 1.3 §5.1.3.1).
    public func acceptsFeatures(_ features: FeatureBits) -> Bool {
        let needControl: FeatureBits = [.netMultiqueue, .netControlReceive]
        return features.contains(.netControlQueue)
            || features.intersection(needControl).isEmpty
    }

    /// Sets the link, and tells the driver.
    public func setLink(up isUp: Bool) {
        guard isUp != isLinkWanted else { return }
        isLinkWanted = isUp
        if failure == nil { tellLink() }
    }

    private func tellLink() {
        if context?.features.contains(.netStatus) == true { context?.interruptConfiguration() }
    }

    /// DRIVER_OK.
    public func activate(_ context: any DeviceContext) {
        self.context = context
        hasFailed = false
        activePairs = 1
        positions = [:]
        generation &+= 1
        for event in bells + wakeups { _ = event.drain() }
        report?(.running(features: context.features))
        openControl()
        attach(isStarting: true)
        scheduleCheck()
    }

    /// The driver notified a queue. New receive buffers are seen when there is a packet for them.
    public func queueNotified(_ queue: Int) {
        if queue == controlIndex {
            serveControl()
        } else if queue % 2 == 1, queue / 2 < wakeups.count {
            wakeups[queue / 2].signal()
        }
    }

    /// The driver resets the device.
    public func deactivate() {
        stop()
    }

    /// The driver's machine is gone.
    public func driverLost() {
        stop()
    }

    /// The driver resets a queue: it begins anew, the others go on where they are.
    public func queueReset(_ queue: Int) {
        if queue == controlIndex {
            control = nil
            return
        }
        detach()
        positions[queue] = nil
        attach()
    }

    /// The driver set the queue up again.
    public func queueEnabled(_ queue: Int) {
        if queue == controlIndex { return openControl() }
        detach()
        attach()
    }

    /// What the driver shows of its memory is something else now.
    public func driverMemoryChanged() {
        if followMemory() { return }
        detach()
        attach()
    }

    /// True while a thread works on rings that it was to let go.
    public var isFormerMemoryInUse: Bool { stuck != nil }

    /// Asks for a reset, once, and works no more until then.
    func fail(_ fault: DeviceFault) {
        guard let context, !hasFailed else { return }
        hasFailed = true
        endCheck()
        detach()
        report?(.failed(fault))
        context.fail(fault)
    }

    private func stop() {
        endCheck()
        detach()
        guard context != nil else { return }
        control = nil
        context = nil
        failure = nil
        positions = [:]
        report?(.stopped)
    }
}
