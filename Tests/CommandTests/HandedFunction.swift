import GuestMemory
import HostSystem
import PCI
import VFIO
import Virtqueue

/// A function of this process that a kernel seems to have handed out.
final class HandedFunction: HostFunction {
    let address = PCIAddress(domain: 0, bus: 9, device: 0, function: 0)
    let interface = "group"
    let canReset = true
    let warning: String? = nil
    /// Says something in the kernel's place.
    var tell: ((HostFunctionEvent) -> Void)?
    /// Everything reads as ones.
    var isGone = false
    /// A BAR that the machine gave no address.
    var unassigned: Int?
    private let base: InProcessFunction

    init(_ base: InProcessFunction) {
        self.base = base
    }

    func watch(
        on loop: EventLoop,
        line: Bool,
        _ tell: @escaping (HostFunctionEvent) -> Void
    ) throws(PCIError) {
        self.tell = tell
    }

    func stopWatching() { tell = nil }

    func setLineMasked(_ isMasked: Bool) throws(PCIError) {}

    func readConfiguration(_ offset: Int, _ width: AccessWidth) throws(PCIError) -> UInt32 {
        isGone ? .max >> UInt32(32 - 8 * width.rawValue) : try base.readConfiguration(offset, width)
    }

    func writeConfiguration(
        _ offset: Int,
        _ width: AccessWidth,
        _ value: UInt32
    ) throws(PCIError) {
        try base.writeConfiguration(offset, width, value)
    }

    func barSize(_ bar: Int) throws(PCIError) -> UInt64 {
        bar == unassigned ? 0 : try base.barSize(bar)
    }

    func readRegister(
        _ bar: Int,
        _ offset: UInt64,
        _ width: AccessWidth
    ) throws(PCIError) -> UInt32 {
        isGone ? .max >> UInt32(32 - 8 * width.rawValue) : try base.readRegister(bar, offset, width)
    }

    func writeRegister(
        _ bar: Int,
        _ offset: UInt64,
        _ width: AccessWidth,
        _ value: UInt32
    ) throws(PCIError) {
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
