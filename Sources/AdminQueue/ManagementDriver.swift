internal import GuestMemory
public import HostSystem
public import Virtio
public import VirtioSpec
internal import Virtqueue

/// Drives a management device: asks what it can do, creates and destroys virtual devices, and gives
/// out a transport for each of them.
///
///     let driver = try ManagementDriver(transport: PCITransport(function: function), loop: loop)
///     let id = try driver.create(type: .vhostPCINet)
///     let transport = try driver.transport(for: id)
///
/// Which dialect is spoken follows from device type and features alone (AVQ-M-901); bit 40 is left
/// alone (AVQ-M-902). All calls come from the thread of `loop`, which also carries events.
public final class ManagementDriver {
    /// The management device.
    public let transport: any VirtioTransport
    /// What the device can do; a class without its bit is never used (AVQ-M-301).
    public private(set) var capabilities: AdminCapabilities
    /// Peculiarities of the device that a person should know, in the order in which they showed; at
    /// most `maximumReports` of them.
    public private(set) var reports: [String] = []
    /// Called with each report.
    public var onReport: ((String) -> Void)?
    /// Events of virtual devices that the device says it lost.
    public private(set) var lostEventCount: UInt64 = 0
    /// Most reports that are kept and passed on: a device could go on giving reasons for ever (R4).
    public static let maximumReports = 100

    private static let commandBytes = 4096
    private static let commandQueueSize: UInt16 = 16
    private static let eventQueueSize: UInt16 = 64
    private static let arenaBytes = 512 * 1024
    /// Most virtual devices that a listing may bring (HI-A54).
    private static let maximumListed = 65536

    private let loop: EventLoop
    private let arena: DMAArena
    private let channel: AdminChannel
    private var events: EventService?
    private var knownIDs: Set<UInt64> = []
    private var transports: [UInt64: WeakTransport] = [:]
    private var isEnumerated = false
    private var isClosed = false

    private struct Queues {
        let commands: DriverBufferQueue
        let events: DriverBufferQueue?
        let eventSize: Int
    }

    private struct WeakTransport {
        weak var transport: AdminTransport?
    }

    /// Brings the management device up and asks for its capabilities.
    ///
    /// No command takes longer than `timeoutMilliseconds`. `type` is configurable because the number
    /// is not registered with anybody.
    public init(
        transport: any VirtioTransport,
        loop: EventLoop,
        type: DeviceType = .management,
        timeoutMilliseconds: UInt64 = 2000
    ) throws(VirtioError) {
        guard transport.deviceType == type else {
            throw .notSupported("the virtual-device dialect on \(transport.deviceType)")
        }
        self.transport = transport
        self.loop = loop
        let arena = try transport.makeArena(size: Self.arenaBytes)
        var queues: Queues?
        do throws(VirtioError) {
            _ = try DriverHandshake.run(
                transport,
                wanted: [.eventIndex],
                required: .managementVirtualDeviceDialect
            ) { features throws(VirtioError) in
                queues = try Self.queues(transport, arena, QueueFeatures(features))
            }
        } catch {
            try? transport.releaseArena(arena)
            throw error
        }
        guard let queues else { preconditionFailure("a handshake that succeeds made the queues") }
        self.arena = arena
        channel = AdminChannel(
            transport: transport,
            queue: queues.commands,
            loop: loop,
            timeoutMilliseconds: timeoutMilliseconds
        )
        capabilities = []
        do throws(VirtioError) {
            try start(queues)
        } catch {
            close()
            throw error
        }
    }

    private static func queues(
        _ transport: any VirtioTransport,
        _ arena: DMAArena,
        _ features: QueueFeatures
    ) throws(VirtioError) -> Queues {
        func make(_ queue: Int, _ size: UInt16, _ bytes: Int) throws(VirtioError)
            -> DriverBufferQueue
        {
            try DriverBufferQueue(
                transport: transport,
                queue: queue,
                size: size,
                bufferSize: bytes,
                arena: arena,
                features: features,
                vector: UInt16(queue + 1)
            )
        }
        let count = try transport.queueCount()
        let eventSize =
            count > ManagementDevice.Queue.events
            ? min(try transport.queueLimit(ManagementDevice.Queue.events), eventQueueSize) : 0
        return Queues(
            commands: try make(
                ManagementDevice.Queue.virtualDevices,
                commandQueueSize,
                commandBytes
            ),
            events: eventSize == 0
                ? nil : try make(ManagementDevice.Queue.events, eventSize, AdminEvent.size),
            eventSize: Int(eventSize)
        )
    }

    private func start(_ queues: Queues) throws(VirtioError) {
        try refreshCapabilities()
        guard capabilities.contains(.events), let eventQueue = queues.events else { return }
        let events = EventService(
            queue: eventQueue,
            size: queues.eventSize,
            loop: loop,
            onEvent: { [weak self] event in self?.handle(event) },
            onFailure: { [weak self] error in
                self?.report("the event queue failed: \(error)")
                self?.resynchronize()
            }
        )
        let vector = UInt16(ManagementDevice.Queue.events + 1)
        try events.start(interrupt: transport.interrupt(vector))
        self.events = events
        _ = try channel.execute(.subscribe(.all))
    }

    /// Asks for the capabilities again. A device that takes some back is reported, and the smaller
    /// set holds (HI-F92).
    public func refreshCapabilities() throws(VirtioError) {
        let answer = try channel.execute(.capabilityGet, room: 8)
        var offered = AdminCapabilities(rawValue: WireFields(answer)[0])
        if offered.contains(.virtualDevicesAsMask), !offered.contains(.virtualDevices) {
            offered.insert(.virtualDevices)
            report("capability VDEV is offered as mask 0x1, not as bit 1")
        }
        let lost = capabilities.subtracting(offered)
        if !lost.isEmpty { report("admin/shrunk: capabilities no longer offered: \(lost)") }
        capabilities = capabilities.isEmpty ? offered : capabilities.intersection(offered)
        channel.hasErrorRecords = capabilities.contains(.errorRecord)
    }

    /// Creates a virtual device and returns its id. Devices that are there already are listed before
    /// the first creation (AVQ-M-303); an id of 0 or one that is known is refused (HI-F95).
    public func create(
        type: DeviceType,
        attributes: DeviceAttributes = DeviceAttributes()
    ) throws(VirtioError) -> UInt64 {
        try require(.virtualDevices)
        if capabilities.contains(.staticDevices), !isEnumerated { _ = try list() }
        let answer = try channel.execute(
            .create(type: type, attributes: attributes.bytes),
            room: 8
        )
        let id: UInt64 = WireFields(answer)[0]
        guard id != 0, !knownIDs.contains(id) else {
            throw .command("id", "VDEV CREATE answered with id \(id), which is 0 or taken")
        }
        knownIDs.insert(id)
        return id
    }

    /// Destroys a virtual device. Refuses while its transport drives it, unless `force` is given;
    /// whoever drives it then finds the device gone (AVQ-M-204, HI-F62).
    public func destroy(_ id: UInt64, force: Bool = false) throws(VirtioError) {
        try require(.virtualDevices)
        let user = transports[id]?.transport
        if let user, user.isInUse, !force {
            throw .command("busy", "virtual device \(id) is in use by its driver")
        }
        _ = try channel.execute(.destroy, for: id)
        knownIDs.remove(id)
        transports[id] = nil
        user?.deviceRemoved()
    }

    /// Ids of all virtual devices, ascending.
    public func list() throws(VirtioError) -> [UInt64] {
        try require(.staticDevices)
        var ids: [UInt64] = []
        let room = Self.commandBytes / 2
        while true {
            let page = DeviceList(
                try channel.execute(
                    .list(after: ids.last ?? 0, maximum: UInt32((room - 8) / 8)),
                    room: room
                )
            )
            for id in page.ids {
                guard id > ids.last ?? 0, ids.count < Self.maximumListed else {
                    throw .command(VirtualDeviceOpcode.list.name, "ids are not ascending")
                }
                ids.append(id)
            }
            guard page.hasMore else { break }
            guard !page.ids.isEmpty else {
                throw .command(VirtualDeviceOpcode.list.name, "more announced, none given")
            }
        }
        isEnumerated = true
        knownIDs.formUnion(ids)
        return ids
    }

    /// What kind of device a virtual device is, and its state in short.
    public func information(_ id: UInt64) throws(VirtioError) -> DeviceInformation {
        try require([.virtualDevices, .staticDevices])
        let answer = try channel.execute(.information, for: id, room: DeviceInformation.size)
        return DeviceInformation(WireFields(answer))
    }

    /// The transport that drives a virtual device; the same one while it is in use.
    public func transport(for id: UInt64) throws(VirtioError) -> AdminTransport {
        if let living = transports[id]?.transport { return living }
        try require([.virtualDevices, .virtqueues, .deviceMMU, .staticDevices])
        let created = try AdminTransport(driver: self, id: id, information: information(id))
        transports[id] = WeakTransport(transport: created)
        return created
    }

    /// Ends everything: transports find their device gone, the management device is reset.
    public func close() {
        guard !isClosed else { return }
        isClosed = true
        channel.close(.deviceGone)
        events?.stop()
        for user in transports.values { user.transport?.deviceRemoved() }
        transports = [:]
        try? transport.reset()
        try? transport.releaseArena(arena)
    }

    deinit {
        close()
    }

    /// Executes a command for a virtual device.
    func execute(
        _ command: VirtualDeviceCommand,
        for id: UInt64,
        room: Int = 0
    ) throws(VirtioError) -> [UInt8] {
        try require(command.opcode.requiredCapabilities)
        return try channel.execute(command, for: id, room: room)
    }

    /// True when interrupts of virtual devices arrive.
    var hasEvents: Bool { events != nil }

    private func require(_ needed: AdminCapabilities) throws(VirtioError) {
        let missing = needed.subtracting(capabilities)
        guard missing.isEmpty else {
            throw .notSupported("admin capability \(missing) of this management device")
        }
    }

    private func report(_ text: String) {
        guard reports.count < Self.maximumReports else { return }
        let isLast = reports.count == Self.maximumReports - 1
        let text = isLast ? text + "; no more is reported" : text
        reports.append(text)
        onReport?(text)
    }
}

// Events.
extension ManagementDriver {
    private func handle(_ event: AdminEvent) {
        if event.lostCount > 0 {
            lostEventCount &+= UInt64(event.lostCount)
            report("\(event.lostCount) events of virtual devices were lost")
            resynchronize()
        }
        guard let type = event.type, let user = transports[event.virtualDeviceID]?.transport else {
            return
        }
        switch type {
        case .usedBuffer: user.queueInterrupt(event.index)
        case .configurationChange, .mmuFault, .needsReset: user.configurationInterrupt()
        case .deviceRemoved:
            transports[event.virtualDeviceID] = nil
            user.deviceRemoved()
        case .deviceAdded: break
        }
    }

    /// What was lost may have been for anybody, so everybody looks.
    private func resynchronize() {
        for user in transports.values { user.transport?.signalAll() }
    }
}
