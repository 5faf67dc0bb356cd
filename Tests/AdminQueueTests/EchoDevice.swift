import Virtio
import VirtioSpec
import Virtqueue

@testable import AdminQueue

/// A small device for tests: what comes in on queue 0 goes back in the same buffer; queue 1 takes
/// anything and answers nothing. The first four configuration bytes can be written.
final class EchoDevice: VirtioDevice {
    static let type = DeviceType(60)

    var type: DeviceType { Self.type }
    var offeredFeatures: FeatureBits = [.version1, .eventIndex, .netMAC, .adminQueue]
    var queueLimits: [UInt16]
    var configuration: [UInt8] {
        get {
            if changesWithEveryRead { bytes[0] &+= 1 }
            return bytes
        }
        set { bytes = newValue }
    }
    /// The first configuration byte is another one each time.
    var changesWithEveryRead = false
    private var bytes: [UInt8]
    /// Features that the device offers but does not take together with VERSION_1.
    var refusedFeatures: FeatureBits = []

    private(set) var context: (any DeviceContext)?
    private(set) var notified: [Int] = []
    private(set) var activations = 0
    private(set) var deactivations = 0
    private var queue: DeviceBufferQueue?

    init(queueLimits: [UInt16] = [64, 64], configuration: [UInt8] = [1, 2, 3, 4, 5, 6, 7, 8]) {
        self.queueLimits = queueLimits
        bytes = configuration
    }

    func writeConfiguration(_ bytes: [UInt8], at offset: Int) -> Bool {
        guard offset >= 0, offset + bytes.count <= 4 else { return false }
        configuration.replaceSubrange(offset..<(offset + bytes.count), with: bytes)
        return true
    }

    func acceptsFeatures(_ features: FeatureBits) -> Bool {
        features.isDisjoint(with: refusedFeatures)
    }

    func activate(_ context: any DeviceContext) {
        activations += 1
        self.context = context
        guard context.queue(0) != nil else { return }
        do {
            queue = try DeviceBufferQueue(context: context, queue: 0)
        } catch {
            context.fail(DeviceFault(error.rawValue, queue: 0))
        }
    }

    func queueNotified(_ queue: Int) {
        notified.append(queue)
        guard queue == 0 else { return }
        while let buffer = self.queue?.next() {
            self.queue?.complete(buffer, writing: buffer.readable)
        }
    }

    func deactivate() {
        deactivations += 1
        queue = nil
        context = nil
    }
}

/// A device that can reset single queues.
final class ResettableDevice: QueueResettable {
    let type = DeviceType(61)
    let offeredFeatures: FeatureBits = [.version1, .ringReset]
    let queueLimits: [UInt16] = [16, 16]
    let configuration: [UInt8] = []
    private(set) var resets: [Int] = []
    private(set) var enables: [Int] = []
    private(set) var notified: [Int] = []

    func writeConfiguration(_ bytes: [UInt8], at offset: Int) -> Bool { false }
    func acceptsFeatures(_ features: FeatureBits) -> Bool { true }
    func activate(_ context: any DeviceContext) {}
    func queueNotified(_ queue: Int) { notified.append(queue) }
    func deactivate() {}
    func queueReset(_ queue: Int) { resets.append(queue) }
    func queueEnabled(_ queue: Int) { enables.append(queue) }
}

/// Makes echo devices, at most `room` of them at a time.
final class EchoFactory: VirtualDeviceFactory {
    var room = 8
    private(set) var living: [UInt64: any VirtioDevice] = [:]
    private(set) var made = 0
    private(set) var discarded = 0

    func makeDevice(
        type: DeviceType,
        attributes: DeviceAttributes,
        id: UInt64
    ) throws(AdminError) -> any VirtioDevice {
        guard living.count < room else { throw .noRoom }
        let device: any VirtioDevice
        switch type {
        case EchoDevice.type:
            let count = Int(attributes.queueCount ?? 2)
            guard (1...4).contains(count) else {
                throw .attribute(at: attributes.offset(of: .queueCount))
            }
            let echo = EchoDevice(queueLimits: Array(repeating: 64, count: count))
            if let bytes = attributes.configuration, bytes.count <= echo.configuration.count {
                echo.configuration.replaceSubrange(0..<bytes.count, with: bytes)
            }
            device = echo
        case DeviceType(61):
            device = ResettableDevice()
        default:
            throw .deviceType
        }
        made += 1
        living[id] = device
        return device
    }

    func discard(_ device: any VirtioDevice) {
        discarded += 1
        living = living.filter { $0.value !== device }
    }

    func echo(_ id: UInt64) -> EchoDevice? { living[id] as? EchoDevice }
}
