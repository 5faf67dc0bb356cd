import GuestMemory
import HostSystem
import VirtioSpec
import Virtqueue

@testable import Virtio

/// A device whose every queue copies the first descriptor of a chain into the second. It plays the
/// ring by plain reads and writes of the memory table, so that nothing but the function is tested.
class EchoDevice: VirtioDevice {
    let type: DeviceType
    var offeredFeatures: FeatureBits = [.indirectDescriptors, .accessPlatform]
    var queueLimits: [UInt16]
    var configuration: [UInt8]
    var writableBytes: Range<Int> = 4..<8
    var acceptable = true
    /// Fails in `activate`, as with a bad ring.
    var failsToStart = false

    private(set) var activations = 0
    private(set) var deactivations = 0
    private(set) var context: (any DeviceContext)?
    private(set) var notifications: [Int] = []
    private(set) var echoed = 0
    private var taken: [Int: UInt16] = [:]

    init(
        type: DeviceType = .management,
        queueLimits: [UInt16] = [16, 16],
        configuration: [UInt8] = [1, 2, 3, 4, 5, 6, 7, 8]
    ) {
        self.type = type
        self.queueLimits = queueLimits
        self.configuration = configuration
    }

    func writeConfiguration(_ bytes: [UInt8], at offset: Int) -> Bool {
        guard offset >= writableBytes.lowerBound, offset + bytes.count <= writableBytes.upperBound
        else { return false }
        configuration.replaceSubrange(offset..<(offset + bytes.count), with: bytes)
        return true
    }

    func acceptsFeatures(_ features: FeatureBits) -> Bool { acceptable }

    func activate(_ context: any DeviceContext) {
        activations += 1
        self.context = context
        if failsToStart { context.fail(DeviceFault("ring/area", queue: 0)) }
    }

    func queueNotified(_ queue: Int) {
        notifications.append(queue)
        serve(queue)
    }

    func deactivate() {
        deactivations += 1
        context = nil
        taken = [:]
    }

    /// Works on what a queue has. Nothing happens to what is out of reach.
    func serve(_ queue: Int) {
        guard let context, let ring = context.queue(queue) else { return }
        let memory = context.memory
        guard let index: UInt16 = integer(memory, ring.driverArea + 2) else { return }
        while taken[queue, default: 0] != index {
            let position = taken[queue, default: 0]
            taken[queue] = position &+ 1
            let slot = UInt64(position % ring.size)
            guard let head: UInt16 = integer(memory, ring.driverArea + 4 + 2 * slot),
                let bytes = chain(memory, ring, head)
            else { continue }
            var used = WireWriter()
            used.integer(UInt32(head))
            used.integer(UInt32(bytes))
            _ = memory.write(used.bytes, at: ring.deviceArea + 4 + 8 * slot)
            var count = WireWriter()
            count.integer(position &+ 1)
            _ = memory.write(count.bytes, at: ring.deviceArea + 2)
            echoed += 1
            context.interruptQueue(queue)
        }
    }

    func forget(_ queue: Int) {
        taken[queue] = nil
    }

    private func chain(_ memory: MemoryTable, _ ring: QueueConfiguration, _ head: UInt16) -> Int? {
        let at = ring.descriptorArea + 16 * UInt64(head)
        guard let from: UInt64 = integer(memory, at), let count: UInt32 = integer(memory, at + 8),
            let next: UInt16 = integer(memory, at + 14),
            let to: UInt64 = integer(memory, ring.descriptorArea + 16 * UInt64(next)),
            let bytes = memory.read(from, Int(count)), memory.write(bytes, at: to)
        else { return nil }
        return bytes.count
    }

    private func integer<Value: FixedWidthInteger>(
        _ memory: MemoryTable,
        _ address: UInt64
    ) -> Value? {
        guard let bytes = memory.read(address, MemoryLayout<Value>.size) else { return nil }
        var reader = WireReader(bytes)
        return reader.integer(Value.self)
    }
}

/// An echo device with a window of one page per peer and four doorbells, that is told of its
/// driver's machine.
final class WindowedEchoDevice: EchoDevice, PeerWindowProvider, DriverMemoryObserver,
    DriverObserver
{
    let peerWindow: Mapping
    var secondPeerWindow: Mapping?
    let peerDoorbells: DoorbellTable
    /// What was reachable at each change.
    private(set) var memories: [Bool] = []
    private(set) var losses = 0
    var isFormerMemoryInUse = false

    func driverMemoryChanged() {
        memories.append(context?.memory.all.isEmpty == false)
    }

    func driverLost() {
        losses += 1
    }

    init() throws {
        peerWindow = try Mapping.anonymous(length: 1 << 16)
        peerDoorbells = try DoorbellTable(count: 4)
        super.init(type: .vhostPCINet)
    }
}
