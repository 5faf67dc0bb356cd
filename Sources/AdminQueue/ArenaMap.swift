internal import GuestMemory
internal import HostSystem
internal import VirtioSpec

/// Where a virtual device's driver lets its device see memory: arenas of the management device's DMA
/// space at addresses of the virtual device's own. A value; the transport sends the mappings.
struct ArenaMap {
    struct Entry {
        /// What the driver of the virtual device works with.
        let arena: DMAArena
        /// What the management device reaches.
        let backing: DMAArena
        /// The mapping was sent.
        var isMapped = false

        var record: MappingRecord {
            MappingRecord(
                first: arena.deviceAddress,
                last: arena.deviceAddress + UInt64(arena.mapping.length) - 1,
                target: backing.deviceAddress,
                flags: [.read, .write]
            )
        }
    }

    private(set) var entries: [Entry] = []
    private let first: UInt64
    private let last: UInt64

    private static let page: UInt64 = 4096
    /// Addresses above are left alone, so that no sum of two of them wraps.
    private static let highest: UInt64 = .max / 2

    /// Takes what the device says of its MMU; `nil` when pages of 4096 bytes do not suit it or it
    /// can map nothing.
    init?(_ limits: MMUInformation) {
        let granule = limits.pageSizeMask & (~limits.pageSizeMask &+ 1)
        let last = min(limits.last, Self.highest)
        guard granule > 0, granule <= Self.page, limits.first <= last else { return nil }
        first = (max(Self.page, limits.first) + Self.page - 1) / Self.page * Self.page
        self.last = last
    }

    /// Makes an arena over `backing` in the lowest hole, a page away from any other, so that a run
    /// over its end meets nothing; `nil` when there is no hole.
    mutating func add(_ backing: DMAArena) -> DMAArena? {
        let length = UInt64(backing.mapping.length)
        var first = first
        var place = 0
        while place < entries.count, entries[place].record.first - first < length + Self.page {
            first = entries[place].record.last + 1 + Self.page
            place += 1
        }
        guard length > 0, last >= first, last - first >= length - 1 else { return nil }
        let arena = DMAArena(sharing: backing, deviceAddress: first)
        entries.insert(Entry(arena: arena, backing: backing), at: place)
        return arena
    }

    /// Takes an arena out.
    mutating func remove(_ arena: DMAArena) -> Entry? {
        guard let index = entries.firstIndex(where: { $0.arena === arena }) else { return nil }
        return entries.remove(at: index)
    }

    /// Takes all arenas out.
    mutating func removeAll() -> [Entry] {
        defer { entries = [] }
        return entries
    }

    /// Arenas whose mapping was not sent yet.
    var unmapped: [DMAArena] { entries.filter { !$0.isMapped }.map(\.arena) }

    /// Notes that a mapping was sent.
    mutating func markMapped(_ arena: DMAArena) {
        guard let index = entries.firstIndex(where: { $0.arena === arena }) else { return }
        entries[index].isMapped = true
    }

    /// The entry of an arena.
    func entry(of arena: DMAArena) -> Entry? {
        entries.first { $0.arena === arena }
    }

    /// True when a run of bytes lies in one arena.
    func covers(_ address: UInt64, _ length: UInt64) -> Bool {
        entries.contains { entry in
            let record = entry.record
            return address >= record.first && address <= record.last
                && length <= record.last - address + 1
        }
    }
}
