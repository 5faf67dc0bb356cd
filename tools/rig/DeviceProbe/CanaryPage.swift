import HostSystem

/// A page of this process that no device was given, and where it lies in the machine's memory.
struct CanaryPage {
    static let size = 4096

    /// Where it lies.
    let physicalAddress: UInt64
    private let mapping: Mapping
    private let expected: [UInt8]

    /// Makes one that holds a frame that would cross, and a pattern behind it.
    init(holding frame: [UInt8]) throws {
        expected = frame + (frame.count..<Self.size).map { UInt8(truncatingIfNeeded: $0 &* 7) }
        mapping = try MemoryFile(name: "canary", size: Self.size).map()
        unsafe UnsafeMutableRawBufferPointer(start: mapping.address, count: Self.size)
            .copyBytes(from: expected)
        let virtual = unsafe UInt64(UInt(bitPattern: mapping.address))
        let pagemap = try FileDescriptor.open("/proc/self/pagemap", writable: false)
        let bytes = try pagemap.read(at: virtual / UInt64(Self.size) * 8, count: 8)
        let entry = bytes.reversed().reduce(UInt64(0)) { $0 << 8 | UInt64($1) }
        // Bits 0-54 are the page frame number, 63 says that it is in memory (Linux: pagemap.rst).
        let number = entry & (1 << 55 - 1)
        guard bytes.count == 8, entry >> 63 == 1, number != 0 else {
            throw ProbeError.noPhysicalAddress
        }
        physicalAddress = number * UInt64(Self.size)
    }

    /// The first byte that has changed.
    var firstChange: Int? {
        let found = unsafe [UInt8](
            UnsafeRawBufferPointer(start: mapping.address, count: Self.size)
        )
        return zip(found, expected).enumerated().first { $0.element.0 != $0.element.1 }?.offset
    }
}
