internal import Glibc
public import GuestMemory
public import HostSystem
public import PCI
public import VirtioSpec
public import Virtqueue

/// Drives a virtio device through the registers of a PCI function (virtio 1.3 §4.1), whatever
/// carries the accesses.
///
/// Nothing that the device says is used before it was checked. Once all registers read as ones the
/// device counts as gone: every later call throws `deviceGone` without touching it (HI-A53).
public final class PCITransport: VirtioTransport {
    /// PCI vendor id of all virtio functions.
    public static let vendor: UInt16 = 0x1af4
    /// Most queues this driver looks at, whatever the device claims (HI-A54).
    public static let maximumQueueCount = 1024

    /// Which device this is.
    public let deviceType: DeviceType

    /// How long a reset may take, in milliseconds (HI-A50).
    public var resetLimit: UInt64 = 2000

    /// The device vanished.
    public private(set) var isGone = false

    private let function: any PCIFunction
    private let structures: PCIStructures
    private var notifyOffsets: [Int: UInt64] = [:]
    private var events: [UInt16: EventFD] = [:]

    /// Finds the virtio structures of a function, and lets it answer. It may reach memory only after
    /// the first reset: until then it could still work on rings of whoever drove it before.
    ///
    /// Throws `capability`, `capabilityLoop` or `notifyRange` when the function cannot be driven.
    public init(function: any PCIFunction) throws(VirtioError) {
        self.function = function
        do {
            deviceType = try Self.deviceType(of: function)
            try function.changeCommand { $0.union(.memorySpace) }
            structures = try PCIStructures(function)
        } catch .deviceGone {
            throw .deviceGone
        } catch {
            throw .pci(error)
        }
    }

    /// Shared memory by id: which BAR, and where in it.
    public var sharedMemory: [UInt8: VirtioCapability] { structures.sharedMemory }

    /// The peer-notify structure, when the device has one.
    public var peerNotify: VirtioCapability? { structures.peerNotify }

    /// The features that the device offers.
    public func deviceFeatures() throws(VirtioError) -> FeatureBits {
        var value: UInt64 = 0
        for word in UInt32(0)..<2 {
            try write(.deviceFeatureSelect, word)
            value |= UInt64(try read(.deviceFeature)) << (32 * UInt64(word))
        }
        return FeatureBits(rawValue: value)
    }

    /// Writes the driver's choice.
    public func setDriverFeatures(_ features: FeatureBits) throws(VirtioError) {
        for word in UInt32(0)..<2 {
            try write(.driverFeatureSelect, word)
            let value = features.rawValue >> (32 * UInt64(word))
            try write(.driverFeature, UInt32(truncatingIfNeeded: value))
        }
    }

    /// Reads the status byte.
    public func status() throws(VirtioError) -> DeviceStatus {
        DeviceStatus(rawValue: UInt8(truncatingIfNeeded: try read(.deviceStatus)))
    }

    /// Writes the status byte.
    public func setStatus(_ status: DeviceStatus) throws(VirtioError) {
        try write(.deviceStatus, UInt32(status.rawValue))
    }

    /// Resets the device and waits until the status reads 0, at most `resetLimit`.
    public func reset() throws(VirtioError) {
        try setStatus([])
        notifyOffsets = [:]
        let deadline = Deadline(milliseconds: resetLimit)
        while try status() != [] {
            guard !deadline.hasPassed else { throw .resetTimeout(milliseconds: resetLimit) }
            usleep(1000)
        }
        try present { () throws(PCIError) in
            try function.changeCommand { $0.union(.busMaster) }
        }
    }

    /// Number of queues; a claim beyond what this driver serves is cut, none at all refused.
    public func queueCount() throws(VirtioError) -> Int {
        let claimed = Int(try read(.queueCount))
        guard claimed > 0 else { throw .configurationRange("the device has no queues") }
        return min(claimed, Self.maximumQueueCount)
    }

    /// The admin queues of a device that offers them (virtio 1.3 §4.1.4.3), `nil` when there are
    /// none.
    public func adminQueues() throws(VirtioError) -> Range<Int>? {
        guard structures.common.length >= UInt64(CommonConfiguration.length) else { return nil }
        let index = Int(try read(.adminQueueIndex))
        let count = Int(try read(.adminQueueCount))
        guard count > 0 else { return nil }
        guard index >= Int(try read(.queueCount)), index + count <= 65536 else {
            throw .pci(.adminRange(index: index, count: count))
        }
        return index..<(index + count)
    }

    /// Largest size of a queue, a power of two of at most 32768; 0 when it is not available.
    public func queueLimit(_ queue: Int) throws(VirtioError) -> UInt16 {
        try select(queue)
        let claimed = min(try read(.queueSize), 32768)
        guard claimed > 0 else { return 0 }
        return UInt16(1 << (31 - claimed.leadingZeroBitCount))
    }

    /// Sets a queue up and enables it.
    public func enableQueue(
        _ queue: Int,
        _ configuration: QueueConfiguration,
        vector: UInt16?
    ) throws(VirtioError) {
        guard configuration.size <= (try queueLimit(queue)) else {
            throw .queue(queue, .size)
        }
        let index = UInt16(truncatingIfNeeded: try read(.queueNotifyOffset))
        guard let notifyOffset = PCIStructures.notifyOffset(index, of: structures.notify) else {
            throw .pci(.notifyRange(queue: queue))
        }
        try write(.queueSize, UInt32(configuration.size))
        try writeHalves(.queueDescriptorLow, .queueDescriptorHigh, configuration.descriptorArea)
        try writeHalves(.queueDriverLow, .queueDriverHigh, configuration.driverArea)
        try writeHalves(.queueDeviceLow, .queueDeviceHigh, configuration.deviceArea)
        if let vector { try bind(.queueVector, vector) }
        try write(.queueEnable, 1)
        guard try read(.queueEnable) == 1, try read(.queueSize) == UInt32(configuration.size)
        else { throw .queueRefused(queue) }
        notifyOffsets[queue] = notifyOffset
    }

    /// Resets a queue by itself; needs RING_RESET. It can be enabled again afterwards.
    public func resetQueue(_ queue: Int) throws(VirtioError) {
        guard structures.common.length >= UInt64(CommonConfiguration.queueReset.offset + 2) else {
            throw .notSupported("resetting a queue by itself on this device")
        }
        try select(queue)
        try write(.queueReset, 1)
        let deadline = Deadline(milliseconds: resetLimit)
        while try read(.queueReset) == 1 {
            guard !deadline.hasPassed else { throw .resetTimeout(milliseconds: resetLimit) }
            usleep(1000)
        }
        guard try read(.queueEnable) == 0 else { throw .queueRefused(queue) }
        notifyOffsets[queue] = nil
    }

    /// Binds configuration-change notifications to a vector.
    public func bindConfigurationVector(_ vector: UInt16) throws(VirtioError) {
        try bind(.configurationVector, vector)
    }

    /// Tells the device that an enabled queue has new buffers.
    public func notifyQueue(_ queue: Int) throws(VirtioError) {
        guard let offset = notifyOffsets[queue] else {
            throw .pci(.notifyRange(queue: queue))
        }
        try present {
            () throws(PCIError) in
            try function.writeRegister(
                Int(structures.notify.bar),
                offset,
                .word,
                UInt32(truncatingIfNeeded: queue)
            )
        }
    }

    /// The notify register of an enabled queue, for any thread.
    public func queueDoorbell(_ queue: Int) throws(VirtioError) -> Doorbell {
        guard let offset = notifyOffsets[queue] else {
            throw .pci(.notifyRange(queue: queue))
        }
        return try present { () throws(PCIError) in
            try function.doorbell(
                Int(structures.notify.bar),
                offset,
                value: UInt16(truncatingIfNeeded: queue)
            )
        }
    }

    /// Reads device configuration space until the generation stays the same, at most 8 times.
    public func readConfiguration(_ offset: Int, _ count: Int) throws(VirtioError) -> [UInt8] {
        let length = structures.device?.length ?? 0
        guard let device = structures.device, offset >= 0, count >= 0,
            UInt64(offset) <= length, UInt64(count) <= length - UInt64(offset)
        else {
            throw .configurationRange(
                "\(count) bytes at \(offset) of a configuration of \(length)"
            )
        }
        for _ in 0..<8 {
            let before = try read(.configurationGeneration)
            let bytes = try present { () throws(PCIError) in
                try readDevice(Int(device.bar), device.offset + UInt64(offset), count)
            }
            if try read(.configurationGeneration) == before { return bytes }
        }
        throw .configurationUnstable
    }

    /// An eventfd that is signalled for `vector`; the same one each time.
    public func interrupt(_ vector: UInt16) throws(VirtioError) -> EventFD {
        if let event = events[vector] { return event }
        let event: EventFD
        do { event = try EventFD() } catch { throw .system(error) }
        try present { () throws(PCIError) in
            try function.connectInterrupt(Int(vector), to: event)
        }
        events[vector] = event
        return event
    }

    /// Makes an arena that the device can reach.
    public func makeArena(size: Int) throws(VirtioError) -> DMAArena {
        do {
            return try function.makeArena(size: size)
        } catch {
            switch error {
            case .system(let error): throw .system(error)
            case .noRoom(let what): throw .noRoom(what)
            default: throw .pci(error)
            }
        }
    }

    /// Gives an arena back after the device was reset.
    public func releaseArena(_ arena: DMAArena) throws(VirtioError) {
        do { try function.releaseArena(arena) } catch { throw .pci(error) }
    }

    /// Maps part of a BAR that holds another machine's memory.
    public func mapPeerWindow(
        bar: Int,
        offset: UInt64,
        size: UInt64
    ) throws(VirtioError) -> BARWindow {
        try present { () throws(PCIError) in
            guard try function.barSize(bar) > 0 else { throw .refused(.noAddress(bar: bar)) }
            return try function.mapWindow(bar, offset: offset, size: size)
        }
    }

    /// The doorbell of a slot of the peer-notify structure.
    public func peerDoorbell(slot: UInt16) throws(VirtioError) -> Doorbell {
        guard let peer = structures.peerNotify else {
            throw .pci(.capability("no usable peer notification"))
        }
        guard let offset = PCIStructures.notifyOffset(slot, of: peer) else {
            throw .pci(.notifyRange(queue: Int(slot)))
        }
        return try present { () throws(PCIError) in
            try function.doorbell(Int(peer.bar), offset, value: slot)
        }
    }
}

// Single registers.
extension PCITransport {
    private func read(_ register: CommonConfiguration) throws(VirtioError) -> UInt32 {
        let value = try readRaw(register)
        let ones = UInt32.max >> UInt32(32 - 8 * register.width)
        if value == ones {
            // Ones can be a value; in the status byte they cannot.
            let status = register == .deviceStatus ? value : try readRaw(.deviceStatus)
            if status == 0xff {
                leave()
                throw .deviceGone
            }
        }
        return value
    }

    private func readRaw(_ register: CommonConfiguration) throws(VirtioError) -> UInt32 {
        try present { () throws(PCIError) in
            try function.readRegister(
                Int(structures.common.bar),
                structures.common.offset + UInt64(register.offset),
                Self.width(register)
            )
        }
    }

    private func write(_ register: CommonConfiguration, _ value: UInt32) throws(VirtioError) {
        try present { () throws(PCIError) in
            try function.writeRegister(
                Int(structures.common.bar),
                structures.common.offset + UInt64(register.offset),
                Self.width(register),
                value
            )
        }
    }

    private func writeHalves(
        _ low: CommonConfiguration,
        _ high: CommonConfiguration,
        _ value: UInt64
    ) throws(VirtioError) {
        try write(low, UInt32(truncatingIfNeeded: value))
        try write(high, UInt32(truncatingIfNeeded: value >> 32))
    }

    private func bind(_ register: CommonConfiguration, _ vector: UInt16) throws(VirtioError) {
        try write(register, UInt32(vector))
        guard try read(register) == UInt32(vector) else { throw .pci(.vector(Int(vector))) }
    }

    private func select(_ queue: Int) throws(VirtioError) {
        guard let index = UInt16(exactly: queue) else {
            throw .configurationRange("there is no queue \(queue)")
        }
        try write(.queueSelect, UInt32(index))
    }

    // Fields are read with their own width where a caller asks for one (virtio 1.3 §4.1.3.1).
    private func readDevice(
        _ bar: Int,
        _ offset: UInt64,
        _ count: Int
    ) throws(PCIError) -> [UInt8] {
        let isField =
            (count == 2 || count == 4 || count == 8) && offset % UInt64(min(count, 4)) == 0
        let width = isField ? (AccessWidth(rawValue: min(count, 4)) ?? .byte) : .byte
        var bytes: [UInt8] = []
        while bytes.count < count {
            let value = try function.readRegister(bar, offset + UInt64(bytes.count), width)
            for index in 0..<width.rawValue {
                bytes.append(UInt8(truncatingIfNeeded: value >> UInt32(8 * index)))
            }
        }
        return bytes
    }

    // The one place where the function is touched.
    private func present<Value>(
        _ access: () throws(PCIError) -> Value
    ) throws(VirtioError) -> Value {
        guard !isGone else { throw .deviceGone }
        do {
            return try access()
        } catch .deviceGone {
            leave()
            throw .deviceGone
        } catch {
            throw .pci(error)
        }
    }

    /// Touches the device no more. One that only seems to be gone is kept from memory, if it lets
    /// us: its driver is about to give that memory back.
    private func leave() {
        isGone = true
        try? function.changeCommand { $0.subtracting(.busMaster) }
    }

    private static func width(_ register: CommonConfiguration) -> AccessWidth {
        AccessWidth(rawValue: register.width) ?? .byte
    }

    // Non-transitional functions carry the type in the device id; transitional ones, which have
    // the same structures, in the subsystem id (virtio 1.3 §4.1.2).
    private static func deviceType(of function: any PCIFunction) throws(PCIError) -> DeviceType {
        let vendor = try function.readConfiguration(ConfigurationHeader.vendor, .word)
        guard vendor != 0xffff else { throw .deviceGone }
        let device = try function.readConfiguration(ConfigurationHeader.device, .word)
        guard vendor == UInt32(Self.vendor), (0x1000...0x107f).contains(device) else {
            throw .capability(
                "0x\(String(vendor, radix: 16)):0x\(String(device, radix: 16)) is no virtio function"
            )
        }
        if device >= 0x1040 { return DeviceType(device - 0x1040) }
        return DeviceType(try function.readConfiguration(ConfigurationHeader.subsystem, .word))
    }
}
