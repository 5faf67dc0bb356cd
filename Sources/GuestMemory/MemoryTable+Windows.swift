/// A run of addresses of one space, and where it lies in another: what an address translation unit
/// holds for one mapping.
public struct AddressWindow: Sendable {
    /// First address, in the space that the users of the translated table know.
    public let first: UInt64
    /// Last address; it belongs to the window.
    public let last: UInt64
    /// Where `first` is, in the space of the table below.
    public let target: UInt64
    /// What may be done through the window.
    public let access: MemoryAccess

    /// Describes a window; `nil` when it is inverted or its target wraps.
    public init?(first: UInt64, last: UInt64, target: UInt64, access: MemoryAccess) {
        guard first <= last, !target.addingReportingOverflow(last - first).overflow else {
            return nil
        }
        self.first = first
        self.last = last
        self.target = target
        self.access = access
    }
}

extension MemoryTable {
    /// The part of this table that is visible through `windows`, at the windows' own addresses and
    /// with no more rights than both allow (AVQ-D-320).
    ///
    /// A piece of a window whose target is no memory is simply not there. The result keeps this
    /// table, and with it the mappings, alive.
    public func seen(through windows: [AddressWindow]) throws(Problem) -> MemoryTable {
        var pieces: [MemoryRegion] = []
        for window in windows.sorted(by: { $0.first < $1.first }) {
            for region in all {
                guard let piece = MemoryTable.piece(of: region, through: window) else {
                    continue
                }
                if let joined = pieces.last.flatMap({ MemoryTable.join($0, piece) }) {
                    pieces[pieces.count - 1] = joined
                } else {
                    pieces.append(piece)
                }
            }
        }
        return try MemoryTable(pieces, owners: [self])
    }

    /// The part of a region that a window shows, at the window's address.
    private static func piece(
        of region: MemoryRegion,
        through window: AddressWindow
    ) -> MemoryRegion? {
        let low = max(window.target, region.start)
        let high = min(
            window.target + (window.last - window.first),
            region.start + (region.size - 1)
        )
        guard low <= high else { return nil }
        return unsafe MemoryRegion(
            start: window.first + (low - window.target),
            size: high - low + 1,
            host: region.base + Int(low - region.start),
            access: region.access.intersection(window.access)
        )
    }

    /// Two pieces as one, where they follow each other in addresses and in our mapping: a buffer
    /// over two mappings of one block is then one run, as behind an IOMMU; `nil` where they do not.
    public static func join(_ low: MemoryRegion, _ high: MemoryRegion) -> MemoryRegion? {
        // The low one may end with the last address there is.
        guard low.start &+ low.size == high.start, high.start > low.start,
            low.access == high.access,
            unsafe low.base + Int(low.size) == high.base
        else { return nil }
        return unsafe MemoryRegion(
            start: low.start,
            size: low.size + high.size,
            host: low.base,
            access: low.access
        )
    }
}
