internal import GuestMemory
internal import Virtio
internal import VirtioSpec
internal import Virtqueue

/// What a virtual device needs of its management device.
protocol VirtualDeviceHost: AnyObject {
    /// What the management device can reach by DMA.
    var managementMemory: MemoryTable { get }

    /// Sends an event, or counts it as lost.
    func send(_ event: AdminEvent)

    /// Drops what waits to be sent for a virtual device.
    func forgetEvents(of id: UInt64)
}

/// Presents a `VirtioDevice` through admin commands: the counterpart of `VirtioPCIFunction`.
///
/// It owns the status, features, queues, interrupts and the MMU of the device. Every check comes
/// before the first change, so a command that throws has had no effect (AVQ-D-305).
final class VirtualDevice {
    let id: UInt64
    let device: any VirtioDevice
    /// Pre-made: it outlives a reset of the management device and cannot be destroyed.
    let isStatic: Bool
    private(set) var state: VirtualDeviceState

    private let featureLimit: FeatureBits?
    private let sizeLimit: UInt16
    private unowned let host: any VirtualDeviceHost
    private var context: VirtualDeviceContext?
    private var translated: (below: MemoryTable, version: UInt64, table: MemoryTable)?

    /// Presents `device`. `attributes` limit what it shows; they were checked against the device.
    init(
        id: UInt64,
        device: any VirtioDevice,
        isStatic: Bool,
        attributes: DeviceAttributes,
        limits: ManagementDevice.Limits,
        host: any VirtualDeviceHost
    ) {
        self.id = id
        self.device = device
        self.isStatic = isStatic
        self.host = host
        featureLimit = attributes.features
        sizeLimit = attributes.maximumQueueSize ?? .max
        let queueCount = device.queueLimits.count
        let vectorCount = attributes.vectorCount.map(Int.init) ?? queueCount + 1
        state = VirtualDeviceState(
            queues: QueueTable(limits: []),
            interrupts: InterruptTable(
                vectorCount: min(vectorCount, Int(limits.maximumVectors)),
                queueCount: queueCount
            ),
            mmu: DeviceMMU(maximumMappings: limits.maximumMappings),
            configuration: ConfigurationSpace(device.configuration)
        )
        state.queues = QueueTable(limits: queueLimits)
    }

    private var queueLimits: [UInt16] { device.queueLimits.map { min($0, sizeLimit) } }

    /// The device works on its queues.
    var isRunning: Bool { context != nil && state.status.isRunning }

    /// What the device can reach: the MMU's view of the management device's memory (AVQ-D-320).
    /// The same object until one of the two changes.
    var memory: MemoryTable {
        let below = host.managementMemory
        let version = state.mmu.version
        if let translated, translated.below === below, translated.version == version {
            return translated.table
        }
        let table = state.mmu.table(over: below)
        translated = (below, version, table)
        return table
    }

    /// The result of VDEV INFO.
    var information: DeviceInformation {
        var flags: DeviceInformation.Flags = []
        if isStatic { flags.insert(.isStatic) }
        let status = state.status.status
        if status.contains(.driverOK) { flags.insert(.driverOK) }
        if status.contains(.needsReset) { flags.insert(.isStopped) }
        if status.contains(.mmuFail) { flags.insert(.mmuFail) }
        return DeviceInformation(
            type: device.type,
            flags: flags,
            queueCount: UInt16(clamping: state.queues.count),
            vectorCount: UInt16(clamping: state.interrupts.count),
            maximumQueueSize: state.queues.maximumSize,
            configurationSize: UInt32(clamping: device.configuration.count)
        )
    }
}

// Features and status.
extension VirtualDevice {
    /// What the device offers: never an admin queue of its own (AVQ-D-201), and no more than it was
    /// created with.
    var offeredFeatures: FeatureBits {
        let offer = FeatureNegotiation.offer(of: device).subtracting(.adminQueue)
        return featureLimit.map { offer.intersection($0) } ?? offer
    }

    /// Features accepted by both sides (AVQ-D-215).
    var acceptedFeatures: FeatureBits { state.driverFeatures.intersection(offeredFeatures) }

    /// Takes the driver's choice (AVQ-D-311).
    func setDriverFeatures(_ features: FeatureBits) throws(AdminError) {
        guard !state.status.status.contains(.featuresOK) else { throw AdminError(.badState) }
        guard features.isSubset(of: offeredFeatures) else { throw .features }
        state.driverFeatures = features
    }

    /// Takes a status write; 0 has reset the device when this returns (AVQ-D-208, AVQ-D-312).
    func setStatus(_ value: DeviceStatus) throws(AdminError) {
        var machine = state.status
        let features = state.driverFeatures
        let offer = offeredFeatures
        let outcome = machine.write(value) {
            offer.isSuperset(of: features) && features.contains(.version1)
                && device.acceptsFeatures(features)
        }
        switch outcome {
        case .refused:
            throw AdminError(.badState)
        case .reset:
            reset()
        case .start:
            state.status = machine
            start(features)
        case .updated, .featuresRefused:
            state.status = machine
        }
    }

    private func start(_ features: FeatureBits) {
        let context = VirtualDeviceContext(self, features)
        self.context = context
        device.activate(context)
        for queue in state.queues.takeKicks() where isRunning && state.queues.isEnabled(queue) {
            device.queueNotified(queue)
        }
    }

    /// Stops the device and forgets what its driver set up, but not the mappings (AVQ-D-323).
    func reset() {
        if context != nil {
            device.deactivate()
            context?.end()
            context = nil
        }
        state.status.completeReset()
        state.driverFeatures = []
        state.queues.reset(limits: queueLimits)
        state.interrupts.reset()
        state.mmu.clearFault()
        state.fault = nil
        // The view keeps the driver's memory mapped.
        translated = nil
        host.forgetEvents(of: id)
    }
}

// Configuration.
extension VirtualDevice {
    /// The generation, which moves when the configuration changed since it was last read.
    func generation() -> UInt32 {
        UInt32(state.configuration.observe(device.configuration))
    }

    /// Bytes and their generation as one snapshot (AVQ-D-313).
    func readConfiguration(
        _ offset: UInt32,
        _ size: UInt32
    ) throws(AdminError) -> (generation: UInt32, bytes: [UInt8]) {
        let bytes = device.configuration
        guard Int(offset) + Int(size) <= bytes.count else { throw AdminError(.badOffset) }
        let generation = UInt32(state.configuration.observe(bytes))
        return (generation, Array(bytes[Int(offset)..<(Int(offset) + Int(size))]))
    }

    /// Writes fields that a driver may write (AVQ-D-314).
    func writeConfiguration(_ offset: UInt32, _ bytes: [UInt8]) throws(AdminError) {
        guard Int(offset) + bytes.count <= device.configuration.count else {
            throw AdminError(.badOffset)
        }
        guard device.writeConfiguration(bytes, at: Int(offset)) else {
            throw AdminError(.invalidField)
        }
    }
}

// Interrupts.
extension VirtualDevice {
    func bind(
        _ source: InterruptTable.Source,
        to vector: UInt16
    ) throws(AdminError) -> UInt16 {
        try state.interrupts.bind(source, to: vector)
    }

    func setVector(_ record: VectorRecord) throws(AdminError) {
        for delivery in try state.interrupts.set(record) { deliver(delivery) }
    }

    /// An interrupt arises at the device.
    func interrupt(_ source: InterruptTable.Source) {
        if let delivery = state.interrupts.raise(source) { deliver(delivery) }
    }

    private func deliver(_ delivery: InterruptTable.Delivery) {
        let vector = UInt64(delivery.vector)
        switch delivery.source {
        case .queue(let queue):
            host.send(AdminEvent(.usedBuffer, virtualDeviceID: id, index: queue, data: vector))
        case .configuration:
            host.send(AdminEvent(.configurationChange, virtualDeviceID: id, data: vector))
        }
    }
}

// Queues.
extension VirtualDevice {
    func queueInformation(_ queue: UInt16) throws(AdminError) -> QueueInformation {
        try state.queues.information(queue, vector: state.interrupts.vector(of: .queue(queue)))
    }

    func setQueueSize(_ queue: UInt16, _ size: UInt16) throws(AdminError) {
        try state.queues.setSize(queue, size)
    }

    func setQueueAddresses(_ queue: UInt16, _ addresses: QueueAddresses) throws(AdminError) {
        try state.queues.setAddresses(queue, addresses)
    }

    func setQueueIndices(_ queue: UInt16, _ indices: QueueIndices) throws(AdminError) {
        try state.queues.setIndices(queue, indices)
    }

    /// Enables a queue: after FEATURES_OK, and after DRIVER_OK only one that was reset by itself.
    func enableQueue(_ queue: UInt16, value: UInt16) throws(AdminError) {
        let index = try state.queues.index(queue)
        guard state.status.status.contains(.featuresOK) else { throw AdminError(.badState) }
        let wasEnabled = state.queues.isEnabled(index)
        let isStarted = state.status.status.contains(.driverOK)
        try state.queues.enable(queue, value: value, whileRunning: isStarted)
        guard isRunning, !wasEnabled else { return }
        (device as? any QueueResettable)?.queueEnabled(index)
    }

    /// Resets one queue; a running device that cannot do that refuses (AVQ-D-318).
    func resetQueue(_ queue: UInt16) throws(AdminError) {
        let index = try state.queues.index(queue)
        if isRunning, state.queues.isEnabled(index) {
            guard let resettable = device as? any QueueResettable else {
                throw AdminError(.badState)
            }
            resettable.queueReset(index)
        }
        try state.queues.reset(queue, whileRunning: context != nil)
        state.interrupts.unbind(.queue(queue))
    }

    /// Notifies a queue, or remembers it until DRIVER_OK (AVQ-D-319).
    func kick(_ queue: UInt16) throws(AdminError) {
        let index = try state.queues.index(queue)
        if isRunning {
            if state.queues.isEnabled(index) { device.queueNotified(index) }
        } else if context == nil {
            try state.queues.rememberKick(queue)
        }
    }
}

// Memory.
extension VirtualDevice {
    func map(_ record: MappingRecord) throws(AdminError) {
        try state.mmu.map(record)
    }

    /// Removes mappings. Devices ask for the table at every use and run on this thread, so no access
    /// is under way when this returns (AVQ-D-322).
    func unmap(first: UInt64, last: UInt64) throws(AdminError) -> UInt64 {
        try state.mmu.unmap(first: first, last: last)
    }

    func unmapAll() -> UInt64 {
        state.mmu.unmapAll()
    }

    /// The device cannot go on: it is cut off from memory and interrupts at once, and its driver
    /// learns it from the status, a configuration change and an event (AVQ-D-219, AVQ-D-323).
    func fail(_ fault: DeviceFault) {
        guard !state.status.status.contains(.needsReset) else { return }
        let unreachable = fault.address.map { ($0, fault.access) } ?? unreachableArea(fault)
        if let (address, access) = unreachable {
            state.mmu.recordFault(address: address, access: access, queue: fault.queue)
        }
        state.fault = fault
        if state.status.demandReset(mmuFault: unreachable != nil) { interrupt(.configuration) }
        let record = state.mmu.fault
        host.send(
            unreachable == nil
                ? AdminEvent(.needsReset, virtualDeviceID: id)
                : AdminEvent(
                    .mmuFault,
                    virtualDeviceID: id,
                    index: record.queue,
                    data: record.address
                )
        )
        context?.end()
    }

    /// The part of a queue that is out of reach, when a ring says that its areas are the trouble.
    private func unreachableArea(_ fault: DeviceFault) -> (UInt64, MemoryAccess)? {
        guard fault.id == QueueError.area.rawValue || fault.id == QueueError.readOnly.rawValue,
            let index = fault.queue,
            let queue = state.queues.configuration(index, features: [])
        else { return nil }
        let entries = UInt64(queue.size)
        let areas: [(UInt64, UInt64, MemoryAccess)] = [
            (queue.descriptorArea, 16 * entries, .read),
            (queue.driverArea, 6 + 2 * entries, .read),
            (queue.deviceArea, 6 + 8 * entries, .readWrite),
        ]
        return areas.first { !memory.covers($0.0, $0.1, $0.2) }.map { ($0.0, $0.2) }
    }
}
