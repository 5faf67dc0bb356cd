internal import HostSystem

/// Huge pages, and where they lie in physical memory. Tests play it.
protocol PhysicalPages: AnyObject {
    /// Takes zeroed pages of 2 MiB, which do not move; the last first when `isDescending`.
    func take(
        _ count: Int,
        isDescending: Bool
    ) throws(SystemError) -> (file: MemoryFile, mapping: Mapping)

    /// What `pagemap` says of the page at `position` of a mapping.
    func entry(of mapping: Mapping, at position: Int) throws(SystemError) -> UInt64
}

/// The pages of this machine.
final class LinuxPhysicalPages: PhysicalPages {
    func take(
        _ count: Int,
        isDescending: Bool
    ) throws(SystemError) -> (file: MemoryFile, mapping: Mapping) {
        let page = UIOMemory.hugePage
        let file = try MemoryFile(name: "dma", size: count * page, hugePageShift: 21)
        let mapping = try file.map()
        for index in 0..<count {
            let at = isDescending ? count - 1 - index : index
            try mapping.populate(at: at * page, length: page)
        }
        return (file, mapping)
    }

    func entry(of mapping: Mapping, at position: Int) throws(SystemError) -> UInt64 {
        let file = try FileDescriptor.open("/proc/self/pagemap", writable: false)
        let number = unsafe (UInt(bitPattern: mapping.address) + UInt(position)) / 4096
        let bytes = try file.read(at: UInt64(number) * 8, count: 8)
        guard let entry = AnswerBytes(bytes: bytes).field64(0) else {
            throw SystemError("read /proc/self/pagemap", .ioFailure)
        }
        return entry
    }
}
