public import GuestMemory
public import HostSystem
public import PCI
public import Virtio
public import VirtioSpec
public import Virtqueue

/// Drives a virtual device by admin commands of its management device; the driver above cannot tell
/// it from a PCI function.
///
/// Its memory comes from the management device's and is mapped for this virtual device alone, after
/// its interrupts and before its queues (AVQ-M-304). Interrupts arrive as events and are handed on as
/// eventfds. Keeps its `ManagementDriver` alive.
public final class AdminTransport: VirtioTransport {
    /// The virtual device.
    public let id: UInt64
    /// Which device this is.
    public let deviceType: DeviceType
    /// Features to hide from the driver: the transport stands between the two (AVQ-M-205).
    public var hiddenFeatures: FeatureBits = []
    /// A driver has set DRIVER_OK and not reset the device since.
    public private(set) var isInUse = false

    private static let maximumConfigurationPiece = 1024
    private static let maximumConfigurationTries = 8

    private let driver: ManagementDriver
    private let information: DeviceInformation
    private var arenas: ArenaMap
    private var vectors: [UInt16: EventFD] = [:]
    private var queueVectors: [UInt16: UInt16] = [:]
    private var configurationVector: UInt16?
    private var isNegotiated = false
    private var isGone = false

    init(
        driver: ManagementDriver,
        id: UInt64,
        information: DeviceInformation
    ) throws(VirtioError) {
        self.driver = driver
        self.id = id
        self.information = information
        deviceType = information.type
        let answer = try driver.execute(.mmuInformation, for: id, room: MMUInformation.size)
        guard let arenas = ArenaMap(MMUInformation(WireFields(answer))) else {
            throw .notSupported("a device MMU that cannot map pages of 4096 bytes")
        }
        self.arenas = arenas
    }

    deinit {
        releaseBackings()
    }

    /// The features that the device offers, less those that are hidden.
    public func deviceFeatures() throws(VirtioError) -> FeatureBits {
        FeatureBits(rawValue: try fields(.deviceFeaturesGet, 8)[0]).subtracting(hiddenFeatures)
    }

    /// Writes the driver's choice.
    public func setDriverFeatures(_ features: FeatureBits) throws(VirtioError) {
        try send(.driverFeaturesSet(features.subtracting(hiddenFeatures)))
    }

    /// Reads the status byte.
    public func status() throws(VirtioError) -> DeviceStatus {
        DeviceStatus(rawValue: try fields(.statusGet, 1)[0])
    }

    /// Writes the status byte.
    public func setStatus(_ status: DeviceStatus) throws(VirtioError) {
        guard status != [] else { return try reset() }
        try send(.statusSet(status))
        isNegotiated = status.contains(.featuresOK)
        isInUse = status.contains(.driverOK) && !status.contains(.failed)
    }

    /// Resets the device. The command succeeds when the reset is done, and the status must then read
    /// 0 (AVQ-M-206).
    public func reset() throws(VirtioError) {
        try send(.statusSet([]))
        queueVectors = [:]
        configurationVector = nil
        isNegotiated = false
        isInUse = false
        guard try status() == [] else { throw .resetTimeout(milliseconds: 0) }
    }

    /// Number of queues.
    public func queueCount() throws(VirtioError) -> Int {
        try requirePresent()
        guard information.queueCount > 0 else {
            throw .configurationRange("the virtual device has no queues")
        }
        return Int(information.queueCount)
    }

    /// Largest size of a queue, a power of two of at most 32768; 0 when it is not available.
    public func queueLimit(_ queue: Int) throws(VirtioError) -> UInt16 {
        let answer = try fields(
            .queueInformation(queue: try index(queue)),
            QueueInformation.size
        )
        let claimed = min(QueueInformation(answer).maximumSize, 32768)
        return claimed == 0 ? 0 : 1 << UInt16(15 - claimed.leadingZeroBitCount)
    }

    /// Sets a queue up and enables it, in the order interrupt, memory, queue (AVQ-M-304). Its areas
    /// have to be in arenas of this transport.
    public func enableQueue(
        _ queue: Int,
        _ configuration: QueueConfiguration,
        vector: UInt16?
    ) throws(VirtioError) {
        let index = try index(queue)
        guard configuration.size <= (try queueLimit(queue)) else { throw .queue(queue, .size) }
        let entries = UInt64(configuration.size)
        guard arenas.covers(configuration.descriptorArea, 16 * entries),
            arenas.covers(configuration.driverArea, 6 + 2 * entries),
            arenas.covers(configuration.deviceArea, 6 + 8 * entries)
        else { throw .queue(queue, .area) }
        if let vector {
            try bind(.bindQueue(queue: index, vector: vector), vector)
            queueVectors[index] = vector
        }
        for arena in arenas.unmapped { try map(arena) }
        try send(.queueSizeSet(queue: index, size: configuration.size))
        try send(
            .queueAddressesSet(
                queue: index,
                QueueAddresses(
                    descriptorArea: configuration.descriptorArea,
                    driverArea: configuration.driverArea,
                    deviceArea: configuration.deviceArea
                )
            )
        )
        let start = configuration.nextAvailable
        if start != 0 {
            try send(
                .queueStateSet(
                    queue: index,
                    QueueIndices(lastAvailable: start, lastUsed: start)
                )
            )
        }
        try send(.queueEnable(queue: index, value: 1))
    }

    /// Binds configuration-change notifications to a vector.
    public func bindConfigurationVector(_ vector: UInt16) throws(VirtioError) {
        try bind(.bindConfiguration(vector: vector), vector)
        configurationVector = vector
    }

    /// Tells the device that a queue has new buffers.
    public func notifyQueue(_ queue: Int) throws(VirtioError) {
        try send(.queueKick(queue: try index(queue), notification: 0))
    }

    /// Reads device configuration space; in several commands where it is long, repeated until all of
    /// them tell the same generation (AVQ-M-305).
    public func readConfiguration(_ offset: Int, _ count: Int) throws(VirtioError) -> [UInt8] {
        guard offset >= 0, count >= 0, offset + count <= Int(information.configurationSize) else {
            throw .configurationRange(
                "\(count) bytes at \(offset) of a configuration of \(information.configurationSize)"
            )
        }
        for _ in 0..<Self.maximumConfigurationTries {
            var bytes: [UInt8] = []
            var generation: UInt32?
            repeat {
                let piece = min(count - bytes.count, Self.maximumConfigurationPiece)
                let answer = try fields(
                    .configurationGet(
                        offset: UInt32(clamping: offset + bytes.count),
                        size: UInt32(clamping: piece)
                    ),
                    4 + piece
                )
                guard generation == nil || generation == answer[0] else { break }
                generation = answer[0]
                bytes += (0..<piece).map { answer[4 + $0] as UInt8 }
            } while bytes.count < count
            if bytes.count == count { return bytes }
        }
        throw .configurationUnstable
    }

    /// Writes device configuration space; the device refuses fields that no driver may write
    /// (AVQ-D-314).
    public func writeConfiguration(_ bytes: [UInt8], at offset: Int) throws(VirtioError) {
        guard offset >= 0, bytes.count <= Self.maximumConfigurationPiece,
            offset <= Int(information.configurationSize) - bytes.count
        else {
            throw .configurationRange(
                "\(bytes.count) bytes at \(offset) of a configuration of"
                    + " \(information.configurationSize)"
            )
        }
        try send(.configurationSet(offset: UInt32(clamping: offset), bytes: bytes))
    }

    /// An eventfd that is signalled for `vector`; the same one each time.
    public func interrupt(_ vector: UInt16) throws(VirtioError) -> EventFD {
        if let event = vectors[vector] { return event }
        guard driver.hasEvents else {
            throw .notSupported("interrupts without the event queue of the management device")
        }
        guard vector < information.vectorCount else { throw .pci(.vector(Int(vector))) }
        do {
            let event = try EventFD()
            vectors[vector] = event
            return event
        } catch {
            throw .system(error)
        }
    }

    /// Makes an arena that this virtual device can reach, and no other.
    public func makeArena(size: Int) throws(VirtioError) -> DMAArena {
        try requirePresent()
        guard size > 0, size <= Int(Int32.max) else { throw .noRoom("an arena of \(size) bytes") }
        let backing = try driver.transport.makeArena(size: (size + 4095) / 4096 * 4096)
        guard let arena = arenas.add(backing) else {
            try driver.transport.releaseArena(backing)
            throw .noRoom("an arena of \(size) bytes behind the device MMU")
        }
        // Before FEATURES_OK the mapping waits for the first queue, to keep the order (AVQ-M-304).
        guard isNegotiated else { return arena }
        do throws(VirtioError) {
            try map(arena)
        } catch {
            _ = arenas.remove(arena)
            try driver.transport.releaseArena(backing)
            throw error
        }
        return arena
    }

    /// Gives an arena back after the device was reset.
    public func releaseArena(_ arena: DMAArena) throws(VirtioError) {
        guard let entry = arenas.entry(of: arena) else { return }
        if entry.isMapped, !isGone {
            try send(.unmap(first: entry.record.first, last: entry.record.last))
        }
        _ = arenas.remove(arena)
        try driver.transport.releaseArena(entry.backing)
    }

    /// Maps part of a BAR of the management device, where the windows of its virtual devices are.
    public func mapPeerWindow(
        bar: Int,
        offset: UInt64,
        size: UInt64
    ) throws(VirtioError) -> BARWindow {
        try requirePresent()
        return try driver.transport.mapPeerWindow(bar: bar, offset: offset, size: size)
    }

    /// The doorbell of a slot of the management device's peer-notify structure.
    public func peerDoorbell(slot: UInt16) throws(VirtioError) -> Doorbell {
        try requirePresent()
        return try driver.transport.peerDoorbell(slot: slot)
    }
}

// What the management driver tells.
extension AdminTransport {
    func queueInterrupt(_ queue: UInt16) {
        guard let vector = queueVectors[queue] else { return }
        vectors[vector]?.signal()
    }

    func configurationInterrupt() {
        guard let vector = configurationVector else { return }
        vectors[vector]?.signal()
    }

    /// Something may have happened: everybody looks.
    func signalAll() {
        for event in vectors.values { event.signal() }
    }

    /// The virtual device is no more: every later call throws `deviceGone`.
    func deviceRemoved() {
        isGone = true
        isInUse = false
        releaseBackings()
        signalAll()
    }

    private func releaseBackings() {
        for entry in arenas.removeAll() { try? driver.transport.releaseArena(entry.backing) }
    }
}

// Single commands.
extension AdminTransport {
    private func requirePresent() throws(VirtioError) {
        guard !isGone else { throw .deviceGone }
    }

    private func send(_ command: VirtualDeviceCommand) throws(VirtioError) {
        _ = try fields(command, 0)
    }

    private func fields(
        _ command: VirtualDeviceCommand,
        _ room: Int
    ) throws(VirtioError) -> WireFields {
        try requirePresent()
        return WireFields(try driver.execute(command, for: id, room: room))
    }

    private func bind(
        _ command: VirtualDeviceCommand,
        _ vector: UInt16
    ) throws(VirtioError) {
        let bound: UInt16 = try fields(command, 2)[0]
        guard bound == vector else { throw .pci(.vector(Int(vector))) }
    }

    private func map(_ arena: DMAArena) throws(VirtioError) {
        guard let entry = arenas.entry(of: arena) else { return }
        try send(.map(entry.record))
        arenas.markMapped(arena)
    }

    private func index(_ queue: Int) throws(VirtioError) -> UInt16 {
        guard queue >= 0, queue < Int(information.queueCount) else {
            throw .configurationRange("there is no queue \(queue)")
        }
        return UInt16(clamping: queue)
    }
}
