internal import GuestMemory
public import HostSystem
public import Virtio
public import VirtioSpec
internal import Virtqueue

/// The device that makes and manages virtual devices: type 62, an admin queue per dialect, an event
/// queue, and, as a `PeerWindowProvider`, the window and the doorbells that its vhost-pci-net devices
/// get slices of.
///
///     let device = try ManagementDevice(
///         factory: factory, peerWindow: window, peerDoorbells: doorbells, loop: loop)
///     let function = InProcessFunction(endpoint: try VirtioPCIFunction(device: device))
///
/// Served so far: personality `multi` with the virtual-device dialect. Each queue speaks one dialect
/// for the life of the device (AVQ-D-901); a queue whose dialect was not negotiated, or is not
/// served, has size 0 and ignores kicks (AVQ-D-903).
public final class ManagementDevice: VirtioDevice, PeerWindowProvider {
    /// What a management device can hold.
    public struct Limits: Sendable {
        /// Most virtual devices at a time.
        public var maximumDevices: Int
        /// Most interrupt vectors of one virtual device.
        public var maximumVectors: UInt16
        /// Most mappings of one virtual device.
        public var maximumMappings: UInt32
        /// Size of the admin queue and of the event queue.
        public var queueSize: UInt16

        /// Chooses limits.
        public init(
            maximumDevices: Int = 64,
            maximumVectors: UInt16 = 256,
            maximumMappings: UInt32 = 256,
            queueSize: UInt16 = 128
        ) {
            self.maximumDevices = maximumDevices
            self.maximumVectors = maximumVectors
            self.maximumMappings = maximumMappings
            self.queueSize = queueSize
        }
    }

    /// Which device this is.
    public let type: DeviceType
    /// The memory behind BAR 2.
    public let peerWindow: Mapping
    /// One doorbell per slot of the peer-notify structure.
    public let peerDoorbells: DoorbellTable
    /// What was ignored or refused, by error id.
    public private(set) var incidents = IncidentCounters()

    /// Queues of personality `multi`.
    public enum Queue {
        /// The virtual-device dialect.
        public static let virtualDevices = 0
        /// The class dialect: not served, size 0.
        public static let classes = 1
        /// Events of virtual devices.
        public static let events = 2
        /// How many there are.
        public static let count = 3
    }

    private let limits: Limits
    private let capabilities: AdminCapabilities
    private let loop: EventLoop
    private let eventQueue: EventQueue
    private lazy var model = DeviceObjectModel(limits: limits, factory: factory, host: self)
    private lazy var dialect = VirtualDeviceDialect(
        capabilities: capabilities,
        model: model,
        subscribe: { [unowned self] mask throws(AdminError) in try eventQueue.subscribe(mask) }
    )
    private let factory: any VirtualDeviceFactory

    private var negotiated: FeatureBits = []
    private var context: (any DeviceContext)?
    private var commands: DeviceBufferQueue?
    private var continuation: EventLoop.Source?

    /// Makes a management device without virtual devices.
    ///
    /// `capabilities` is what CAP_GET answers; leaving bits out makes a device that knows only a part
    /// of the dialect. Throws "not supported" for personalities other than `multi`.
    public init(
        personality: Personality = .multi,
        type: DeviceType = .management,
        capabilities: AdminCapabilities = .all,
        limits: Limits = Limits(),
        factory: any VirtualDeviceFactory,
        peerWindow: Mapping,
        peerDoorbells: DoorbellTable,
        loop: EventLoop
    ) throws(VirtioError) {
        guard personality == .multi else {
            throw .notSupported("admin personality \(personality.rawValue)")
        }
        self.type = type
        self.capabilities = capabilities
        self.limits = limits
        self.factory = factory
        self.peerWindow = peerWindow
        self.peerDoorbells = peerDoorbells
        self.loop = loop
        eventQueue = EventQueue(limit: Int(limits.queueSize))
    }

    deinit {
        if let continuation { loop.remove(continuation) }
    }

    /// Adds a pre-made virtual device, which drivers find by listing (AVQ-D-308); returns its id.
    public func addStaticDevice(
        type: DeviceType,
        attributes: DeviceAttributes = DeviceAttributes()
    ) throws(AdminError) -> UInt64 {
        try model.create(type: type, attributes: attributes.bytes, isStatic: true)
    }

    /// Ids of the living virtual devices, ascending.
    public var virtualDeviceIDs: [UInt64] { model.ids }

    /// What the device can do: bit 40 keeps its standard meaning and is not offered (AVQ-D-902).
    public var offeredFeatures: FeatureBits {
        [.version1, .indirectDescriptors, .eventIndex, .managementVirtualDeviceDialect]
    }

    /// Sizes of the queues; 0 for those whose dialect was not negotiated (AVQ-D-903).
    public var queueLimits: [UInt16] {
        let size = negotiated.contains(.managementVirtualDeviceDialect) ? limits.queueSize : 0
        return [size, 0, size]
    }

    /// There is no configuration space.
    public var configuration: [UInt8] { [] }

    /// Refuses every write: there is no configuration space.
    public func writeConfiguration(_ bytes: [UInt8], at offset: Int) -> Bool { bytes.isEmpty }

    /// Takes any subset of the offer and remembers which dialects it contains.
    public func acceptsFeatures(_ features: FeatureBits) -> Bool {
        negotiated = features
        return true
    }

    /// Starts to serve the queues that the driver enabled.
    public func activate(_ context: any DeviceContext) {
        self.context = context
        guard context.features.contains(.managementVirtualDeviceDialect) else { return }
        commands = queue(Queue.virtualDevices, context)
        eventQueue.attach(queue(Queue.events, context))
    }

    private func queue(_ index: Int, _ context: any DeviceContext) -> DeviceBufferQueue? {
        guard context.queue(index) != nil else { return nil }
        do throws(QueueError) {
            return try DeviceBufferQueue(context: context, queue: index)
        } catch {
            context.fail(DeviceFault(error.rawValue, queue: index))
            return nil
        }
    }

    /// Serves a queue.
    public func queueNotified(_ queue: Int) {
        switch queue {
        case Queue.virtualDevices: serveCommands()
        case Queue.events: eventQueue.flush()
        default: incidents.count("notify/index")
        }
    }

    /// Stops, and clears all that the admin queue built up (AVQ-D-309, AVQ-D-905).
    public func deactivate() {
        if let continuation { loop.remove(continuation) }
        continuation = nil
        commands = nil
        model.reset()
        eventQueue.reset()
        context = nil
        negotiated = []
    }

    /// Answers what is there, in order (AVQ-D-306), at most one ring at a time: whatever a driver
    /// adds meanwhile waits for the next turn of the loop (R3, HI-F5).
    private func serveCommands() {
        for _ in 0..<limits.queueSize {
            guard let buffer = commands?.next() else { return }
            let answer = dialect.execute(buffer.readable, room: buffer.writableCount)
            if answer.isEmpty { incidents.count("admin/no-status") }
            commands?.complete(buffer, writing: answer)
        }
        guard continuation == nil else { return }
        continuation = loop.after(milliseconds: 0) { [weak self] in
            self?.continuation = nil
            self?.serveCommands()
        }
    }

    /// Everything that commands can change, for tests of commands that fail.
    var snapshot: Snapshot { Snapshot(model: model.snapshot, backlog: eventQueue.backlog) }

    struct Snapshot: Equatable {
        let model: DeviceObjectModel.Snapshot
        let backlog: EventBacklog
    }

    /// What a virtual device can reach, for tests.
    func virtualDevice(_ id: UInt64) -> VirtualDevice? { try? model.device(id) }
}

extension ManagementDevice: VirtualDeviceHost {
    var managementMemory: MemoryTable { context?.memory ?? .empty }

    func send(_ event: AdminEvent) {
        eventQueue.send(event)
    }

    func forgetEvents(of id: UInt64) {
        eventQueue.forget(id)
    }
}
