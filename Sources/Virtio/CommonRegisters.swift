internal import VirtioSpec
internal import Virtqueue

/// The registers of one queue.
struct QueueRegisters {
    /// Size that the driver chose; the largest one until then.
    var size: UInt16?
    var vector = CommonConfiguration.noVector
    var isEnabled = false
    var descriptorArea: UInt64 = 0
    var driverArea: UInt64 = 0
    var deviceArea: UInt64 = 0
    /// Bits 0, 1, 2: the descriptor, driver, device area was written.
    var writtenAreas: UInt8 = 0
    /// The driver reset this queue; it may be set up again after DRIVER_OK.
    var wasReset = false
}

/// The common configuration structure of a device (virtio 1.3 §4.1.4.3): what each register reads,
/// and what a write to it does. Says what has to follow instead of doing it.
struct CommonRegisters {
    /// What a write asks of the owner.
    enum Effect: Equatable {
        case none
        case start
        case reset
        case resetQueue(Int)
        case enableQueue(Int)
        /// Nothing was written; the error id says why.
        case refused(String)
    }

    var features = FeatureNegotiation()
    var status = DeviceStatusMachine()
    var configuration: ConfigurationSpace
    var configurationVector = CommonConfiguration.noVector
    var queueSelect: UInt16 = 0
    var queues: [QueueRegisters]
    private let vectorCount: Int

    init(device: any VirtioDevice, queueCount: Int, vectorCount: Int) {
        self.vectorCount = vectorCount
        configuration = ConfigurationSpace(device.configuration)
        queues = [QueueRegisters](repeating: QueueRegisters(), count: queueCount)
    }

    /// Back to the state after reset; the generation goes on counting.
    mutating func reset() {
        features = FeatureNegotiation()
        status.completeReset()
        configurationVector = CommonConfiguration.noVector
        queueSelect = 0
        queues = [QueueRegisters](repeating: QueueRegisters(), count: queues.count)
    }

    /// A queue that the driver enabled.
    func configuration(ofQueue index: Int, _ device: any VirtioDevice) -> QueueConfiguration? {
        guard queues.indices.contains(index), queues[index].isEnabled else { return nil }
        let queue = queues[index]
        return QueueConfiguration(
            size: queue.size ?? limit(index, device),
            descriptorArea: queue.descriptorArea,
            driverArea: queue.driverArea,
            deviceArea: queue.deviceArea,
            features: QueueFeatures(features.driverFeatures)
        )
    }

    /// Reads a register. A queue that does not exist reads 0, its vector no vector (HI-H10).
    mutating func read(_ register: CommonConfiguration, _ device: any VirtioDevice) -> UInt32 {
        switch register {
        case .deviceFeatureSelect: return features.deviceSelect
        case .deviceFeature: return features.deviceWord(of: FeatureNegotiation.offer(of: device))
        case .driverFeatureSelect: return features.driverSelect
        case .driverFeature: return features.driverWord
        case .configurationVector: return UInt32(configurationVector)
        case .queueCount: return UInt32(min(queues.count, device.queueLimits.count))
        case .deviceStatus: return UInt32(status.status.rawValue)
        case .configurationGeneration: return UInt32(configuration.observe(device.configuration))
        case .queueSelect: return UInt32(queueSelect)
        default: return readQueue(register, device)
        }
    }

    /// Writes a register.
    mutating func write(
        _ register: CommonConfiguration,
        _ value: UInt32,
        _ device: any VirtioDevice
    ) -> Effect {
        switch register {
        case .deviceFeatureSelect:
            features.deviceSelect = value
        case .driverFeatureSelect:
            features.driverSelect = value
        case .driverFeature:
            guard !status.status.contains(.featuresOK) else { return .refused("ring/order") }
            features.driverWord = value
        case .configurationVector:
            configurationVector = vector(value)
        case .queueSelect:
            queueSelect = UInt16(truncatingIfNeeded: value)
        case .deviceStatus:
            return writeStatus(DeviceStatus(rawValue: UInt8(truncatingIfNeeded: value)), device)
        case .deviceFeature, .queueCount, .configurationGeneration, .adminQueueIndex,
            .adminQueueCount:
            break
        default:
            return writeQueue(register, value, device)
        }
        return .none
    }

    private mutating func writeStatus(
        _ value: DeviceStatus,
        _ device: any VirtioDevice
    ) -> Effect {
        let features = features
        switch status.write(value, acceptsFeatures: { features.isAcceptable(to: device) }) {
        case .updated: return .none
        case .start: return .start
        case .reset: return .reset
        case .featuresRefused: return .refused("init/features")
        case .refused: return .refused("ring/order")
        }
    }

    private func limit(_ index: Int, _ device: any VirtioDevice) -> UInt16 {
        let limits = device.queueLimits
        return limits.indices.contains(index) ? limits[index] : 0
    }

    // A vector that the table does not have reads back as none (HI-H11).
    private func vector(_ value: UInt32) -> UInt16 {
        value < UInt32(vectorCount) ? UInt16(value) : CommonConfiguration.noVector
    }

    private func readQueue(
        _ register: CommonConfiguration,
        _ device: any VirtioDevice
    ) -> UInt32 {
        let index = Int(queueSelect)
        let limit = limit(index, device)
        guard queues.indices.contains(index), limit > 0 else {
            return register == .queueVector ? UInt32(CommonConfiguration.noVector) : 0
        }
        let queue = queues[index]
        switch register {
        case .queueSize: return UInt32(queue.size ?? limit)
        case .queueVector: return UInt32(queue.vector)
        case .queueEnable: return queue.isEnabled ? 1 : 0
        case .queueNotifyOffset: return UInt32(index)
        case .queueDescriptorLow: return UInt32(truncatingIfNeeded: queue.descriptorArea)
        case .queueDescriptorHigh: return UInt32(truncatingIfNeeded: queue.descriptorArea >> 32)
        case .queueDriverLow: return UInt32(truncatingIfNeeded: queue.driverArea)
        case .queueDriverHigh: return UInt32(truncatingIfNeeded: queue.driverArea >> 32)
        case .queueDeviceLow: return UInt32(truncatingIfNeeded: queue.deviceArea)
        case .queueDeviceHigh: return UInt32(truncatingIfNeeded: queue.deviceArea >> 32)
        default: return 0
        }
    }

    private mutating func writeQueue(
        _ register: CommonConfiguration,
        _ value: UInt32,
        _ device: any VirtioDevice
    ) -> Effect {
        let index = Int(queueSelect)
        let limit = limit(index, device)
        guard queues.indices.contains(index), limit > 0 else { return .none }
        if register == .queueVector {
            queues[index].vector = vector(value)
            return .none
        }
        if register == .queueReset { return resetQueue(index, value, device) }
        // Between FEATURES_OK and DRIVER_OK, and then never on an enabled queue (HI-H14).
        guard status.status.contains(.featuresOK), !queues[index].isEnabled,
            !status.status.contains(.driverOK) || queues[index].wasReset
        else { return .refused("ring/order") }
        switch register {
        case .queueSize:
            guard let size = UInt16(exactly: value), size > 0, size & (size - 1) == 0,
                size <= limit
            else { return .refused("ring/size") }
            queues[index].size = size
        case .queueEnable:
            guard value == 1, queues[index].writtenAreas == 0b111 else {
                return .refused("ring/order")
            }
            queues[index].isEnabled = true
            return status.status.contains(.driverOK) ? .enableQueue(index) : .none
        case .queueDescriptorLow: queues[index].descriptorArea.replaceLow(value)
        case .queueDescriptorHigh: queues[index].descriptorArea.replaceHigh(value)
        case .queueDriverLow: queues[index].driverArea.replaceLow(value)
        case .queueDriverHigh: queues[index].driverArea.replaceHigh(value)
        case .queueDeviceLow: queues[index].deviceArea.replaceLow(value)
        case .queueDeviceHigh: queues[index].deviceArea.replaceHigh(value)
        default: break
        }
        switch register {
        case .queueDescriptorLow: queues[index].writtenAreas |= 1
        case .queueDriverLow: queues[index].writtenAreas |= 2
        case .queueDeviceLow: queues[index].writtenAreas |= 4
        default: break
        }
        return .none
    }

    // Only with VIRTIO_F_RING_RESET negotiated; otherwise the register stays 0 (HI-H16). Devices stop
    // a queue within the call, so no driver ever reads 1.
    private mutating func resetQueue(
        _ index: Int,
        _ value: UInt32,
        _ device: any VirtioDevice
    ) -> Effect {
        guard value == 1, device is any QueueResettable,
            features.driverFeatures.contains(.ringReset),
            status.status.contains(.driverOK), queues[index].isEnabled
        else { return .none }
        queues[index] = QueueRegisters()
        queues[index].wasReset = true
        return .resetQueue(index)
    }
}

extension UInt64 {
    fileprivate mutating func replaceLow(_ value: UInt32) {
        self = self & ~0xffff_ffff | UInt64(value)
    }

    fileprivate mutating func replaceHigh(_ value: UInt32) {
        self = self & 0xffff_ffff | UInt64(value) << 32
    }
}
