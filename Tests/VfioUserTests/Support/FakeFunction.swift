import GuestMemory
import HostSystem
import PCI
import VfioUser

/// A function with registers in BAR 0, MSI-X, a window in BAR 2 and two doorbells, that remembers what
/// was done to it.
final class FakeFunction: PCIEndpoint {
    struct Write: Equatable {
        var bar: Int
        var offset: UInt64
        var width: AccessWidth
        var value: UInt32
    }

    static let registerBytes: UInt64 = 0x4000
    static let windowBytes: UInt64 = 0x10000
    static let table: UInt64 = 0x2000
    static let doorbells: UInt64 = 0x1000

    var space: EmulatedConfigSpace
    var vectors: MSIXTable
    var registers = [UInt8](repeating: 0, count: Int(FakeFunction.registerBytes))
    let windowMemory: MemoryFile
    let mapping: Mapping
    let bells: [EventFD]
    var file: WindowFile?
    /// A second window, in BAR 4, of another file.
    var secondFile: WindowFile?

    var writes: [Write] = []
    var reads: [Write] = []
    var resets = 0
    var memoryChanges = 0
    var farewells = 0
    var isFormerMemoryInUse = false
    /// Called from the places where a device may call back.
    var onWrite: (() -> Void)?
    var onMemoryChange: (() -> Void)?
    private let control: Int
    private(set) weak var host: (any PCIHost)?

    init(vectorCount: Int = 4) throws {
        windowMemory = try MemoryFile(name: "window", size: Int(Self.windowBytes))
        mapping = try windowMemory.map()
        bells = [try EventFD(), try EventFD()]
        vectors = MSIXTable(count: vectorCount)
        space = EmulatedConfigSpace(
            PCIIdentity(vendor: 0x1af4, device: 0x107f, subsystem: 0x1100, classCode: 0x020000)
        )
        guard let low = BaseAddressRegister(size: Self.registerBytes),
            let high = BaseAddressRegister(
                size: Self.windowBytes,
                is64Bit: true,
                isPrefetchable: true
            ),
            case let capability = vectors.capability(
                bar: 0,
                table: UInt32(Self.table),
                pendingBits: 0x3000
            )
        else { throw SystemError("make BARs", .invalidArgument) }
        space.setBAR(0, low)
        space.setBAR(2, high)
        space.setBAR(4, high)
        guard let at = space.addCapability(capability, writable: MSIXTable.capabilityMask) else {
            throw SystemError("add a capability", .noSpace)
        }
        control = at + MSIXTable.controlOffset
        space.write(ConfigurationHeader.command, .word, 6)
    }

    /// A window that a client can map.
    func shareWindow(_ areas: [Range<UInt64>], offset: UInt64 = 0) throws {
        file = WindowFile(
            file: windowMemory.descriptor,
            identity: try windowMemory.descriptor.status().identity,
            offset: offset,
            areas: areas
        )
    }

    /// The function has something to say.
    func fire(_ vector: Int) {
        if vectors.fire(vector) { host?.raise(vector) }
    }

    func isPending(_ vector: Int) -> Bool {
        vectors.readPending(0, .byte) & (1 << UInt32(vector)) != 0
    }

    // MARK: -

    func barSize(_ bar: Int) -> UInt64 { space.bar(bar)?.size ?? 0 }

    func readConfiguration(_ offset: Int, _ width: AccessWidth) -> UInt32 {
        space.read(offset, width)
    }

    func writeConfiguration(_ offset: Int, _ width: AccessWidth, _ value: UInt32) {
        space.write(offset, width, value)
        vectors.setControl(UInt16(truncatingIfNeeded: space.read(control, .word)))
        deliver()
    }

    func readRegister(_ bar: Int, _ offset: UInt64, _ width: AccessWidth) -> UInt32 {
        reads.append(Write(bar: bar, offset: offset, width: width, value: 0))
        guard bar == 0 else {
            return (0..<UInt64(width.rawValue)).reduce(0) { value, index in
                let byte = unsafe mapping.address.load(
                    fromByteOffset: Int(offset + index),
                    as: UInt8.self
                )
                return value | UInt32(byte) << UInt32(8 * index)
            }
        }
        if offset >= Self.table { return vectors.readTable(offset - Self.table, width) }
        let bytes = Array(registers[Int(offset)..<Int(offset) + width.rawValue])
        return width.value(of: bytes)
    }

    func writeRegister(_ bar: Int, _ offset: UInt64, _ width: AccessWidth, _ value: UInt32) {
        writes.append(Write(bar: bar, offset: offset, width: width, value: value))
        let bytes = width.bytes(of: value)
        if bar != 0 {
            for (index, byte) in bytes.enumerated() {
                unsafe mapping.address.storeBytes(
                    of: byte,
                    toByteOffset: Int(offset) + index,
                    as: UInt8.self
                )
            }
        } else if offset >= Self.table {
            vectors.writeTable(offset - Self.table, width, value)
            deliver()
        } else {
            registers.replaceSubrange(Int(offset)..<Int(offset) + bytes.count, with: bytes)
        }
        onWrite?()
    }

    func window(_ bar: Int) -> Mapping? { bar == 2 ? mapping : nil }

    func windowFile(_ bar: Int) -> WindowFile? {
        switch bar {
        case 2: file
        case 4: secondFile
        default: nil
        }
    }

    func doorbellDescriptor(_ bar: Int, _ offset: UInt64) -> Int32? {
        guard bar == 0, offset >= Self.doorbells, offset % 4 == 0 else { return nil }
        let slot = Int((offset - Self.doorbells) / 4)
        return bells.indices.contains(slot) ? bells[slot].descriptor.rawValue : nil
    }

    func attach(_ host: any PCIHost) { self.host = host }

    func reset() {
        resets += 1
        space.reset()
        vectors.reset()
    }

    func memoryChanged() {
        memoryChanges += 1
        onMemoryChange?()
    }

    func clientGone() { farewells += 1 }

    private func deliver() {
        for vector in vectors.takeDeliverable() { host?.raise(vector) }
    }
}
