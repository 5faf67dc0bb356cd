public import GuestMemory
public import HostSystem
public import PCI
public import Virtio
public import VirtioSpec
public import Virtqueue

/// The emulated function of a device, which answers like a good one but for what a test changes.
public final class TamperedFunction<Device: VirtioDevice>: PCIFunction {
    /// The device behind it.
    public let device: Device
    /// The registers of the device.
    public let endpoint: VirtioPCIFunction
    /// The function as it is.
    public let base: InProcessFunction

    /// Configuration bytes that read as something else.
    public var bytes: [Int: UInt8] = [:]
    /// Configuration offsets whose 32-bit writes are kept and read back.
    public var writable: Set<Int> = []
    /// Lengths of BARs that are claimed to be something else.
    public var barSizes: [Int: UInt64] = [:]
    /// Changes what a register of any BAR reads: offset, width, true value.
    public var answer: ((UInt64, AccessWidth, UInt32) -> UInt32)?
    /// Registers of the common configuration whose writes are lost.
    public var deafTo: Set<CommonConfiguration> = []
    /// Everything reads ones and takes nothing, as when the function was pulled out.
    public var isGone = false
    /// The host does not let the function have memory.
    public var refusesArenas: HostRefusal?
    /// What a function reset does instead.
    public var resets: (() throws(PCIError) -> Void)?

    /// Register accesses so far.
    public private(set) var accesses = 0
    /// Values written to the status register.
    public private(set) var statuses: [UInt32] = []
    /// What hears of each vector.
    public private(set) var interrupts: [Int: EventFD] = [:]
    /// Arenas that were made and not given back.
    public private(set) var arenas = 0

    /// Presents a device.
    public init(
        _ device: Device,
        identity: PCIIdentity? = nil,
        vectors: Int? = nil
    ) throws {
        self.device = device
        endpoint = try VirtioPCIFunction(device: device, identity: identity, vectorCount: vectors)
        base = InProcessFunction(endpoint: endpoint)
    }

    /// Offset of the capability of that type, 0 when there is none.
    public func capability(_ type: VirtioCapabilityType) throws -> Int {
        for entry in try CapabilityList(base).entries where entry.identifier == 0x09 {
            let value = try base.readConfiguration(entry.offset + 3, .byte)
            if value == UInt32(type.rawValue) { return entry.offset }
        }
        return 0
    }

    /// Changes a 32-bit field of configuration space.
    public func patch(_ offset: Int, _ value: UInt32) {
        for index in 0..<4 {
            bytes[offset + index] = UInt8(truncatingIfNeeded: value >> UInt32(8 * index))
        }
    }

    /// Puts a capability in front of the list.
    public func insert(_ capability: [UInt8], at offset: Int = 0xc0) throws {
        let first = try readConfiguration(ConfigurationHeader.capabilities, .byte)
        for (index, byte) in capability.enumerated() { bytes[offset + index] = byte }
        bytes[offset + 1] = UInt8(truncatingIfNeeded: first)
        bytes[ConfigurationHeader.capabilities] = UInt8(offset)
    }

    private static func ones(_ width: AccessWidth) -> UInt32 {
        .max >> UInt32(32 - 8 * width.rawValue)
    }
}

// Bent.
extension TamperedFunction {
    /// Reads configuration space, with `bytes` in the place of its own.
    public func readConfiguration(
        _ offset: Int,
        _ width: AccessWidth
    ) throws(PCIError) -> UInt32 {
        if isGone { return Self.ones(width) }
        var value = try base.readConfiguration(offset, width)
        for index in 0..<width.rawValue {
            guard let byte = bytes[offset + index] else { continue }
            value = value & ~(0xff << (8 * index)) | UInt32(byte) << (8 * index)
        }
        return value
    }

    /// Writes configuration space; what is `writable` is kept.
    public func writeConfiguration(
        _ offset: Int,
        _ width: AccessWidth,
        _ value: UInt32
    ) throws(PCIError) {
        if isGone { return }
        if writable.contains(offset) { patch(offset, value) }
        try base.writeConfiguration(offset, width, value)
    }

    /// Length of a BAR, as claimed.
    public func barSize(_ bar: Int) throws(PCIError) -> UInt64 {
        if let size = barSizes[bar] { return size }
        return try base.barSize(bar)
    }

    /// Reads a register and lets `answer` change it.
    public func readRegister(
        _ bar: Int,
        _ offset: UInt64,
        _ width: AccessWidth
    ) throws(PCIError) -> UInt32 {
        accesses += 1
        if isGone { return Self.ones(width) }
        let value = try base.readRegister(bar, offset, width)
        return answer?(offset, width, value) ?? value
    }

    /// Writes a register unless the function is deaf to it.
    public func writeRegister(
        _ bar: Int,
        _ offset: UInt64,
        _ width: AccessWidth,
        _ value: UInt32
    ) throws(PCIError) {
        accesses += 1
        if isGone || deafTo.contains(where: { UInt64($0.offset) == offset }) { return }
        if bar == 0, offset == UInt64(CommonConfiguration.deviceStatus.offset) {
            statuses.append(value)
        }
        try base.writeRegister(bar, offset, width, value)
    }

    /// Connects a vector and notes it.
    public func connectInterrupt(_ vector: Int, to event: EventFD?) throws(PCIError) {
        interrupts[vector] = event
        try base.connectInterrupt(vector, to: event)
    }

    /// Makes an arena and counts it.
    public func makeArena(size: Int) throws(PCIError) -> DMAArena {
        if let refusesArenas { throw .refused(refusesArenas) }
        let arena = try base.makeArena(size: size)
        arenas += 1
        return arena
    }

    /// Takes an arena back and counts it.
    public func releaseArena(_ arena: DMAArena) throws(PCIError) {
        try base.releaseArena(arena)
        arenas -= 1
    }

    /// Resets the function, or does what `resets` says.
    public func reset() throws(PCIError) {
        if let resets { try resets() } else { try base.reset() }
    }
}

// Passed on.
extension TamperedFunction {
    /// Maps part of a BAR.
    public func mapWindow(
        _ bar: Int,
        offset: UInt64,
        size: UInt64
    ) throws(PCIError) -> BARWindow {
        try base.mapWindow(bar, offset: offset, size: size)
    }

    /// The doorbell of a register.
    public func doorbell(
        _ bar: Int,
        _ offset: UInt64,
        value: UInt16
    ) throws(PCIError) -> Doorbell {
        try base.doorbell(bar, offset, value: value)
    }

    /// Number of MSI-X vectors.
    public var interruptVectorCount: Int {
        get throws(PCIError) { try base.interruptVectorCount }
    }

    /// Maps an arena.
    public func mapDMA(_ arena: DMAArena) throws(PCIError) { try base.mapDMA(arena) }

    /// Takes an arena away.
    public func unmapDMA(_ arena: DMAArena) throws(PCIError) { try base.unmapDMA(arena) }
}
