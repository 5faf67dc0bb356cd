import HostSystem
import PCI

@testable import VFIO

/// Plays the kernel: a device with MSI-X in BAR 1 and registers in BAR 4, unless a test says otherwise.
class FakeKernel: VFIOKernel {
    static let configurationOffset = 0x70000
    static let deviceBytes = 1 << 20

    /// The device file: BARs at 0x10000 times their number, configuration space at 0x70000.
    let memory: MemoryFile
    let memoryView: Mapping
    /// Refusals by the end of the path that is opened.
    var openErrors: [String: Errno] = [:]
    /// Refusals by the name of a request.
    var errors: [String: Errno] = [:]
    /// What was asked, in order.
    var calls: [String] = []
    var version = 0
    var extensions: Set<UInt32> = [VFIOLayout.type1v2]
    var groupFlags: UInt32 = 1
    var device: [UInt8] = Answer.device()
    var regions: [Int: [UInt8]] = [:]
    var interrupts: [Int: [UInt8]] = [:]
    var iommu: [UInt8] = Answer.iommu(ranges: [(0, 0xfedf_ffff), (0xfef0_0000, (1 << 39) - 1)])
    var hotReset: [UInt8] = []
    var changes: [VFIOInterruptChange] = []
    /// Vectors that the host has, `nil` for plenty.
    var vectorsAvailable: Int?
    var locked = LockedMemory(limit: .max, used: 0, isExempt: false)
    var mapped: [UInt64: UInt64] = [:]
    var unmapsShort = false
    var ioasRanges = IOMMUFDRanges(pairs: [0x10000, (1 << 40) - 1], alignment: 4096)
    /// Everything reads ones, as after a surprise removal.
    var isGone = false
    /// Bytes that a read of the device file brings at most.
    var readLimit = Int.max

    init() throws {
        memory = try MemoryFile(name: "device", size: Self.deviceBytes)
        memoryView = try memory.map()
        for index in 0..<9 { regions[index] = Answer.region(size: 0, offset: 0, flags: 0) }
        regions[1] = Answer.region(
            size: 0x1000,
            offset: 0x10000,
            flags: 0xf,
            capabilities: [(VFIOLayout.messageMappableCapability, [])]
        )
        regions[4] = Answer.region(size: 0x4000, offset: 0x40000, flags: 7)
        regions[7] = Answer.region(size: 256, offset: UInt64(Self.configurationOffset), flags: 3)
        interrupts[0] = Answer.interrupts(count: 1, flags: 7)
        interrupts[1] = Answer.interrupts(count: 0, flags: 9)
        interrupts[2] = Answer.interrupts(count: 4, flags: 1)
        interrupts[3] = Answer.interrupts(count: 1, flags: 9)
        interrupts[4] = Answer.interrupts(count: 1, flags: 9)
        // Vendor, device, command off, a capability list with MSI-X in BAR 1 at 0.
        poke(Self.configurationOffset, [0xf4, 0x1a, 0x41, 0x10, 0, 0, 0x10, 0])
        poke(Self.configurationOffset + 0x34, [0x40])
        poke(Self.configurationOffset + 0x40, [0x11, 0, 3, 0, 1, 0, 0, 0])
    }

    /// Puts bytes into the device file.
    func poke(_ offset: Int, _ bytes: [UInt8]) {
        _ = try? memory.descriptor.write(at: UInt64(offset), bytes)
    }

    /// Reads bytes of the device file.
    func peek(_ offset: Int, _ count: Int) -> [UInt8] {
        (try? memory.descriptor.read(at: UInt64(offset), count: count)) ?? []
    }

    private func call(_ name: String) throws(SystemError) {
        calls.append(name)
        if let error = errors[name] { throw SystemError(name, error) }
    }

    func open(_ path: String) throws(SystemError) -> FileDescriptor {
        calls.append("open \(path.split(separator: "/").last ?? "")")
        for (suffix, error) in openErrors where path.hasSuffix(suffix) {
            throw SystemError("open \(path)", error)
        }
        return try memory.descriptor.duplicate()
    }

    func read(_ file: FileDescriptor, at: UInt64, count: Int) throws(SystemError) -> [UInt8] {
        if let error = errors["read"] { throw SystemError("read", error) }
        if isGone { return [UInt8](repeating: 0xff, count: count) }
        return try memory.descriptor.read(at: at, count: min(count, readLimit))
    }

    func write(_ file: FileDescriptor, at: UInt64, _ bytes: [UInt8]) throws(SystemError) -> Int {
        if let error = errors["write"] { throw SystemError("write", error) }
        calls.append("write")
        return isGone ? bytes.count : try memory.descriptor.write(at: at, bytes)
    }

    func map(_ file: FileDescriptor, at: UInt64, length: Int) throws(SystemError) -> Mapping {
        try call("map")
        return try Mapping.file(memory.descriptor, offset: at, length: length)
    }

    func lockedMemory() -> LockedMemory { locked }

    func apiVersion(_ container: FileDescriptor) throws(SystemError) -> Int {
        try call("version")
        return version
    }

    func checkExtension(_ file: FileDescriptor, _ number: UInt32) throws(SystemError) -> Int {
        try call("extension")
        return extensions.contains(number) ? 1 : 0
    }

    func setIOMMU(_ container: FileDescriptor, _ type: UInt32) throws(SystemError) {
        try call("setIOMMU")
    }

    func iommuAnswer(_ file: FileDescriptor, capacity: Int) throws(SystemError) -> [UInt8] {
        try call("iommu")
        return iommu
    }

    func mapDMA(_ file: FileDescriptor, _ memory: Mapping, at: UInt64) throws(SystemError) {
        try call("mapDMA")
        mapped[at] = UInt64(memory.length)
    }

    func unmapDMA(
        _ container: FileDescriptor,
        at: UInt64,
        size: UInt64
    ) throws(SystemError) -> UInt64 {
        try call("unmapDMA")
        if unmapsShort { return size / 2 }
        return mapped.removeValue(forKey: at) ?? 0
    }

    func groupStatus(_ group: FileDescriptor) throws(SystemError) -> UInt32 {
        try call("status")
        return groupFlags
    }

    func setContainer(_ group: FileDescriptor, _ file: FileDescriptor) throws(SystemError) {
        try call("setContainer")
    }

    func unsetContainer(_ group: FileDescriptor) throws(SystemError) { try call("unsetContainer") }

    func device(_ group: FileDescriptor, _ name: String) throws(SystemError) -> FileDescriptor {
        try call("device")
        calls.append(name)
        return try memory.descriptor.duplicate()
    }

    func deviceAnswer(_ device: FileDescriptor) throws(SystemError) -> [UInt8] {
        try call("info")
        return self.device
    }

    func regionAnswer(
        _ device: FileDescriptor,
        _ index: Int,
        capacity: Int
    ) throws(SystemError) -> [UInt8] {
        guard let answer = regions[index] else {
            throw SystemError("region \(index)", .invalidArgument)
        }
        return answer
    }

    func interruptAnswer(_ device: FileDescriptor, _ index: Int) throws(SystemError) -> [UInt8] {
        guard let answer = interrupts[index] else {
            throw SystemError("interrupts \(index)", .invalidArgument)
        }
        return answer
    }

    func setInterrupts(
        _ device: FileDescriptor,
        _ change: VFIOInterruptChange
    ) throws(SystemError) -> Int {
        try call("setInterrupts")
        changes.append(change)
        if let vectorsAvailable, change.count > vectorsAvailable { return vectorsAvailable }
        return 0
    }

    func reset(_ device: FileDescriptor) throws(SystemError) { try call("reset") }

    func hotResetAnswer(_ file: FileDescriptor, capacity: Int) throws(SystemError) -> [UInt8] {
        try call("hotReset")
        return hotReset
    }

    func storeOnEvent(
        _ device: FileDescriptor,
        at: UInt64,
        value: UInt16,
        event: EventFD
    ) throws(SystemError) {
        try call("storeOnEvent")
        calls.append("\(at) \(value)")
    }

    func bind(_ device: FileDescriptor, to iommufd: FileDescriptor) throws(SystemError) -> UInt32 {
        try call("bind")
        return 1
    }

    func attach(_ device: FileDescriptor, to addressSpace: UInt32) throws(SystemError) {
        try call("attach \(addressSpace)")
    }

    func allocateAddressSpace(_ iommufd: FileDescriptor) throws(SystemError) -> UInt32 {
        try call("allocate")
        return 7
    }

    func addressRanges(
        _ iommufd: FileDescriptor,
        _ addressSpace: UInt32
    ) throws(SystemError) -> IOMMUFDRanges {
        try call("ranges")
        return ioasRanges
    }

    func map(
        _ iommufd: FileDescriptor,
        _ addressSpace: UInt32,
        _ memory: Mapping,
        at iova: UInt64
    ) throws(SystemError) {
        try call("ioasMap")
        mapped[iova] = UInt64(memory.length)
    }

    func unmap(
        _ iommufd: FileDescriptor,
        _ addressSpace: UInt32,
        at iova: UInt64,
        size: UInt64
    ) throws(SystemError) -> UInt64 {
        try call("ioasUnmap")
        return mapped.removeValue(forKey: iova) ?? 0
    }

    func destroy(_ iommufd: FileDescriptor, _ id: UInt32) throws(SystemError) {
        try call("destroy")
    }
}

/// Answers of the kernel, byte by byte.
enum Answer {
    static func device(flags: UInt32 = 3, regions: UInt32 = 9) -> [UInt8] {
        words(16, flags, regions, 5)
    }

    static func region(
        size: UInt64,
        offset: UInt64,
        flags: UInt32,
        capabilities: [(UInt16, [UInt8])] = []
    ) -> [UInt8] {
        words(32, flags, 0, capabilities.isEmpty ? 0 : 32) + long(size) + long(offset)
            + chain(capabilities, from: 32)
    }

    static func interrupts(count: UInt32, flags: UInt32) -> [UInt8] { words(16, flags, 0, count) }

    static func iommu(
        ranges: [(UInt64, UInt64)],
        left: UInt32? = nil,
        pageSizes: UInt64 = 0x4000_1000
    ) -> [UInt8] {
        var capabilities: [(UInt16, [UInt8])] = [
            (VFIOLayout.rangeCapability, pairs(ranges))
        ]
        if let left { capabilities.append((VFIOLayout.mappingsCapability, words(left, 0))) }
        return words(24, 3) + long(pageSizes) + words(24, 0) + chain(capabilities, from: 24)
    }

    static func pairs(_ pairs: [(UInt64, UInt64)], claimed: UInt32? = nil) -> [UInt8] {
        words(claimed ?? UInt32(pairs.count), 0) + pairs.flatMap { long($0.0) + long($0.1) }
    }

    static func words(_ values: UInt32...) -> [UInt8] {
        values.flatMap { value in (0..<4).map { UInt8(truncatingIfNeeded: value >> (8 * $0)) } }
    }

    static func long(_ value: UInt64) -> [UInt8] {
        (0..<8).map { UInt8(truncatingIfNeeded: value >> (8 * $0)) }
    }

    private static func chain(_ capabilities: [(UInt16, [UInt8])], from start: Int) -> [UInt8] {
        var bytes: [UInt8] = []
        for (index, (identifier, body)) in capabilities.enumerated() {
            let next = start + bytes.count + 8 + body.count
            let isLast = index == capabilities.count - 1
            bytes += words(UInt32(identifier) | 1 << 16, isLast ? 0 : UInt32(next)) + body
        }
        return bytes
    }
}
