import HostSystem
import PCI

/// A function with a page of plain registers in BAR 0, a window in BAR 2, and MSI-X in BAR 0 behind
/// the registers. Every access is recorded.
final class FakeEndpoint: PCIEndpoint {
    static let vectors: UInt64 = 0x1000
    var space: EmulatedConfigSpace
    var table = MSIXTable(count: 4)
    var registers = [UInt8](repeating: 0, count: 4096)
    let windowMemory: Mapping
    let bell: EventFD
    private(set) var resets = 0
    private(set) var memoryChanges = 0
    private(set) weak var host: (any PCIHost)?
    private let control: Int

    init() throws {
        space = EmulatedConfigSpace(
            PCIIdentity(vendor: 0x1af4, device: 0x107f, classCode: 0x020000)
        )
        windowMemory = try Mapping.anonymous(length: 8192)
        bell = try EventFD()
        if let bar = BaseAddressRegister(size: 0x4000) { space.setBAR(0, bar) }
        if let bar = BaseAddressRegister(size: 8192, is64Bit: true, isPrefetchable: true) {
            space.setBAR(2, bar)
        }
        let capability = table.capability(bar: 0, table: 0x1000, pendingBits: 0x2000)
        control =
            MSIXTable.controlOffset
            + (space.addCapability(capability, writable: MSIXTable.capabilityMask) ?? 0)
    }

    func barSize(_ bar: Int) -> UInt64 { space.bar(bar)?.size ?? 0 }

    func readConfiguration(_ offset: Int, _ width: AccessWidth) -> UInt32 {
        space.read(offset, width)
    }

    func writeConfiguration(_ offset: Int, _ width: AccessWidth, _ value: UInt32) {
        space.write(offset, width, value)
        table.setControl(UInt16(truncatingIfNeeded: space.read(control, .word)))
    }

    func readRegister(_ bar: Int, _ offset: UInt64, _ width: AccessWidth) -> UInt32 {
        guard bar == 0, space.command.contains(.memorySpace) else { return .max }
        if offset >= Self.vectors { return table.readTable(offset - Self.vectors, width) }
        return (0..<width.rawValue).reduce(0) {
            $0 | UInt32(registers[Int(offset) + $1]) << UInt32(8 * $1)
        }
    }

    func writeRegister(_ bar: Int, _ offset: UInt64, _ width: AccessWidth, _ value: UInt32) {
        guard bar == 0, space.command.contains(.memorySpace) else { return }
        if offset >= Self.vectors {
            table.writeTable(offset - Self.vectors, width, value)
            return
        }
        for index in 0..<width.rawValue {
            registers[Int(offset) + index] = UInt8(truncatingIfNeeded: value >> UInt32(8 * index))
        }
    }

    func window(_ bar: Int) -> Mapping? { bar == 2 ? windowMemory : nil }

    func doorbellDescriptor(_ bar: Int, _ offset: UInt64) -> Int32? {
        bar == 0 && offset == 64 ? bell.descriptor.rawValue : nil
    }

    func attach(_ host: any PCIHost) { self.host = host }

    func reset() {
        resets += 1
        space.reset()
        table.reset()
    }

    func memoryChanged() { memoryChanges += 1 }

    func fire(_ vector: Int) {
        if table.fire(vector) { host?.raise(vector) }
    }
}
