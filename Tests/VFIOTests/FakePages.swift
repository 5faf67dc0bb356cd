import HostSystem

@testable import VFIO

/// Plays huge pages and physical memory: ordinary files, and frames as a test says.
final class FakePages: PhysicalPages {
    /// What `pagemap` says of page `index`, counted over all pages ever taken.
    var entry: (Int) throws(SystemError) -> UInt64 = { FakePages.present(0x4000_0000 + $0 << 21) }
    /// Answers to `take`, one each; plenty when there is none left.
    var failures: [Errno?] = []
    /// How pages were taken, in order.
    var taken: [String] = []

    private var pagesTaken = 0
    private var first: [ObjectIdentifier: Int] = [:]
    // A mapping that went would leave its identity to another.
    private var kept: [Mapping] = []

    static func present(_ address: Int) -> UInt64 { 1 << 63 | UInt64(address >> 12) }

    func take(
        _ count: Int,
        isDescending: Bool
    ) throws(SystemError) -> (file: MemoryFile, mapping: Mapping) {
        taken.append("\(count)\(isDescending ? " down" : " up")")
        if !failures.isEmpty, let error = failures.removeFirst() {
            throw SystemError("take \(count) pages", error)
        }
        let file = try MemoryFile(name: "pages", size: count * UIOMemory.hugePage)
        let mapping = try file.map()
        kept.append(mapping)
        first[ObjectIdentifier(mapping)] = pagesTaken
        pagesTaken += count
        return (file, mapping)
    }

    func entry(of mapping: Mapping, at position: Int) throws(SystemError) -> UInt64 {
        try entry((first[ObjectIdentifier(mapping)] ?? 0) + position / UIOMemory.hugePage)
    }
}
