/// Addresses for arenas: where a driver lets its device see memory.
///
/// Starts at 4 GiB, so that no address is 0 and none meets the interrupt range of x86 IOMMUs, and
/// stays below 2^39, which every IOMMU can translate.
struct DeviceAddressSpace {
    private static let first: UInt64 = 1 << 32
    private static let end: UInt64 = 1 << 39
    /// Arenas start on 2 MiB boundaries and so never touch.
    private static let step: UInt64 = 1 << 21

    private var taken: [Range<UInt64>] = []

    /// Takes the lowest hole of `size` bytes and an untouched step behind it; `nil` when there is
    /// none.
    mutating func take(_ size: UInt64) -> UInt64? {
        guard size > 0, size < Self.end else { return nil }
        let extent = (size / Self.step + 2) * Self.step
        var start = Self.first
        var index = 0
        while index < taken.count, taken[index].lowerBound - start < extent {
            start = taken[index].upperBound
            index += 1
        }
        guard Self.end - start >= extent else { return nil }
        taken.insert(start..<start + extent, at: index)
        return start
    }

    /// Gives back what `take` returned.
    mutating func release(_ start: UInt64) {
        taken.removeAll { $0.lowerBound == start }
    }
}
