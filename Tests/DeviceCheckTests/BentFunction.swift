import GuestMemory
import HostSystem
import PCI
import Virtio
import VirtioSpec
import Virtqueue

/// The function of a network stub, whose answers a test may bend.
final class BentFunction: PCIFunction {
    let device = NetStub()
    private let base: InProcessFunction
    /// Configuration bytes that read as something else.
    var bytes: [Int: UInt8] = [:]
    /// Lengths of BARs that are claimed to be something else.
    var barSizes: [Int: UInt64] = [:]
    /// Changes what a register of BAR 0 reads: offset, true value.
    var answer: ((UInt64, UInt32) -> UInt32)?
    /// Changes what a single byte of BAR 0 reads: offset, true value.
    var answerByte: ((UInt64, UInt32) -> UInt32)?
    /// What hears of each vector.
    private(set) var interrupts: [Int: EventFD] = [:]
    /// Registers whose writes are lost.
    var deafTo: Set<CommonConfiguration> = []
    /// Configuration offsets whose writes are kept and read back.
    var writable: Set<Int> = []
    /// What a function reset does.
    var resets: (() throws(PCIError) -> Void)?

    init(identity: PCIIdentity? = nil) throws {
        let endpoint = try VirtioPCIFunction(device: device, identity: identity)
        base = InProcessFunction(endpoint: endpoint)
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

    func readConfiguration(_ offset: Int, _ width: AccessWidth) throws(PCIError) -> UInt32 {
        var value = try base.readConfiguration(offset, width)
        for index in 0..<width.rawValue {
            guard let byte = bytes[offset + index] else { continue }
            value = value & ~(0xff << (8 * index)) | UInt32(byte) << (8 * index)
        }
        return value
    }

    func writeConfiguration(
        _ offset: Int,
        _ width: AccessWidth,
        _ value: UInt32
    ) throws(PCIError) {
        if writable.contains(offset) { patch(offset, value) }
        try base.writeConfiguration(offset, width, value)
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
        let value = try base.readRegister(bar, offset, width)
        if width == .byte, let answerByte { return answerByte(offset, value) }
        return answer?(offset, value) ?? value
    }

    func writeRegister(
        _ bar: Int,
        _ offset: UInt64,
        _ width: AccessWidth,
        _ value: UInt32
    ) throws(PCIError) {
        if deafTo.contains(where: { UInt64($0.offset) == offset }) { return }
        try base.writeRegister(bar, offset, width, value)
    }

    func mapWindow(_ bar: Int, offset: UInt64, size: UInt64) throws(PCIError) -> BARWindow {
        try base.mapWindow(bar, offset: offset, size: size)
    }

    func doorbell(_ bar: Int, _ offset: UInt64, value: UInt16) throws(PCIError) -> Doorbell {
        try base.doorbell(bar, offset, value: value)
    }

    func connectInterrupt(_ vector: Int, to event: EventFD?) throws(PCIError) {
        interrupts[vector] = event
        try base.connectInterrupt(vector, to: event)
    }

    var interruptVectorCount: Int { get throws(PCIError) { try base.interruptVectorCount } }

    func mapDMA(_ arena: DMAArena) throws(PCIError) { try base.mapDMA(arena) }

    func unmapDMA(_ arena: DMAArena) throws(PCIError) { try base.unmapDMA(arena) }

    func makeArena(size: Int) throws(PCIError) -> DMAArena { try base.makeArena(size: size) }

    func releaseArena(_ arena: DMAArena) throws(PCIError) { try base.releaseArena(arena) }

    func reset() throws(PCIError) {
        if let resets { try resets() } else { try base.reset() }
    }
}
