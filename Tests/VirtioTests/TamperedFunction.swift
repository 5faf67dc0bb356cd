import GuestMemory
import HostSystem
import PCI
import VirtioSpec
import Virtqueue

@testable import Virtio

/// A function that answers like a good one, but for what a test changes.
final class TamperedFunction: PCIFunction {
    let device: EchoDevice
    let base: InProcessFunction
    /// Configuration bytes that read as something else.
    var bytes: [Int: UInt8] = [:]
    /// Lengths of BARs that are claimed to be something else.
    var barSizes: [Int: UInt64] = [:]
    /// Changes what a register of BAR 0 reads: offset, width, true value.
    var answer: ((UInt64, AccessWidth, UInt32) -> UInt32)?
    /// Registers whose writes are lost.
    var deafTo: Set<CommonConfiguration> = []
    /// Everything reads ones and takes nothing.
    var isGone = false
    /// Register accesses so far.
    private(set) var accesses = 0

    init(_ device: EchoDevice = EchoDevice()) throws {
        self.device = device
        base = InProcessFunction(endpoint: try VirtioPCIFunction(device: device))
    }

    /// Offset of the capability of that type.
    func capability(_ type: VirtioCapabilityType) throws -> Int {
        for entry in try CapabilityList(base).entries where entry.identifier == 0x09 {
            let value = try base.readConfiguration(entry.offset + 3, .byte)
            if value == UInt32(type.rawValue) { return entry.offset }
        }
        return 0
    }

    /// Changes a 32-bit field.
    func patch(_ offset: Int, _ value: UInt32) {
        for index in 0..<4 {
            bytes[offset + index] = UInt8(truncatingIfNeeded: value >> UInt32(8 * index))
        }
    }

    /// Puts a capability in front of the list.
    func insert(_ capability: [UInt8], at offset: Int = 0xc0) throws {
        let first = try readConfiguration(ConfigurationHeader.capabilities, .byte)
        for (index, byte) in capability.enumerated() { bytes[offset + index] = byte }
        bytes[offset + 1] = UInt8(truncatingIfNeeded: first)
        bytes[ConfigurationHeader.capabilities] = UInt8(offset)
    }

    func readConfiguration(_ offset: Int, _ width: AccessWidth) throws(PCIError) -> UInt32 {
        var value = try base.readConfiguration(offset, width)
        for index in 0..<width.rawValue {
            guard let byte = isGone ? 0xff : bytes[offset + index] else { continue }
            value = value & ~(0xff << (8 * index)) | UInt32(byte) << (8 * index)
        }
        return value
    }

    func writeConfiguration(
        _ offset: Int,
        _ width: AccessWidth,
        _ value: UInt32
    ) throws(PCIError) {
        if !isGone { try base.writeConfiguration(offset, width, value) }
    }

    func barSize(_ bar: Int) throws(PCIError) -> UInt64 {
        if let size = barSizes[bar] { return size }
        return try base.barSize(bar)
    }

    func readRegister(
        _ bar: Int,
        _ offset: UInt64,
        _ width: AccessWidth
    ) throws(PCIError) -> UInt32 {
        accesses += 1
        if isGone { return UInt32.max >> UInt32(32 - 8 * width.rawValue) }
        let value = try base.readRegister(bar, offset, width)
        return answer?(offset, width, value) ?? value
    }

    func writeRegister(
        _ bar: Int,
        _ offset: UInt64,
        _ width: AccessWidth,
        _ value: UInt32
    ) throws(PCIError) {
        accesses += 1
        if isGone || deafTo.contains(where: { UInt64($0.offset) == offset }) { return }
        try base.writeRegister(bar, offset, width, value)
    }

    func mapWindow(_ bar: Int, offset: UInt64, size: UInt64) throws(PCIError) -> BARWindow {
        try base.mapWindow(bar, offset: offset, size: size)
    }

    func doorbell(_ bar: Int, _ offset: UInt64, value: UInt16) throws(PCIError) -> Doorbell {
        try base.doorbell(bar, offset, value: value)
    }

    func connectInterrupt(_ vector: Int, to event: EventFD?) throws(PCIError) {
        try base.connectInterrupt(vector, to: event)
    }

    var interruptVectorCount: Int { get throws(PCIError) { try base.interruptVectorCount } }

    func mapDMA(_ arena: DMAArena) throws(PCIError) { try base.mapDMA(arena) }

    func unmapDMA(_ arena: DMAArena) throws(PCIError) { try base.unmapDMA(arena) }

    func makeArena(size: Int) throws(PCIError) -> DMAArena { try base.makeArena(size: size) }

    func releaseArena(_ arena: DMAArena) throws(PCIError) { try base.releaseArena(arena) }

    func reset() throws(PCIError) { try base.reset() }
}
