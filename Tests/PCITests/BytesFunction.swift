import GuestMemory
import HostSystem
import PCI
import Virtqueue

/// A function that has nothing but configuration bytes.
final class BytesFunction: PCIFunction {
    private let bytes: [UInt8]

    init(_ bytes: [UInt8]) {
        self.bytes = bytes
    }

    func readConfiguration(_ offset: Int, _ width: AccessWidth) throws(PCIError) -> UInt32 {
        (0..<width.rawValue).reduce(0) { value, index in
            let at = offset + index
            return value | UInt32(bytes.indices.contains(at) ? bytes[at] : 0xff) << (8 * index)
        }
    }

    func writeConfiguration(
        _ offset: Int,
        _ width: AccessWidth,
        _ value: UInt32
    ) throws(PCIError) {}

    func barSize(_ bar: Int) throws(PCIError) -> UInt64 { 0 }

    func readRegister(
        _ bar: Int,
        _ offset: UInt64,
        _ width: AccessWidth
    ) throws(PCIError) -> UInt32 { throw .range(bar: bar, offset: offset, size: 0) }

    func writeRegister(
        _ bar: Int,
        _ offset: UInt64,
        _ width: AccessWidth,
        _ value: UInt32
    ) throws(PCIError) { throw .range(bar: bar, offset: offset, size: 0) }

    func mapWindow(_ bar: Int, offset: UInt64, size: UInt64) throws(PCIError) -> BARWindow {
        throw .notSupported("windows")
    }

    func doorbell(_ bar: Int, _ offset: UInt64, value: UInt16) throws(PCIError) -> Doorbell {
        throw .notSupported("doorbells")
    }

    func connectInterrupt(_ vector: Int, to event: EventFD?) throws(PCIError) {
        throw .vector(vector)
    }

    var interruptVectorCount: Int { get throws(PCIError) { 0 } }

    func mapDMA(_ arena: DMAArena) throws(PCIError) { throw .notSupported("DMA") }

    func unmapDMA(_ arena: DMAArena) throws(PCIError) { throw .notSupported("DMA") }

    func makeArena(size: Int) throws(PCIError) -> DMAArena { throw .notSupported("DMA") }

    func releaseArena(_ arena: DMAArena) throws(PCIError) { throw .notSupported("DMA") }

    func reset() throws(PCIError) {}
}
