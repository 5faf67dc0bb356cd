/// Where each region of a peer's memory goes in a window: numbers only, nothing is mapped here.
struct WindowPlacement: Equatable, Sendable {
    /// A region to be placed.
    struct Region: Equatable, Sendable {
        var guestAddress: UInt64
        var size: UInt64
        var fileOffset: UInt64
        var pageSize: UInt64
    }

    /// A region in its place.
    struct Extent: Equatable, Sendable {
        /// Index of the region in the list that was given.
        var region: Int
        /// Where its mapping starts, from the start of the BAR.
        var position: UInt64
        /// Length of the mapping.
        var length: UInt64
        /// Where its mapping starts in the file.
        var fileOffset: UInt64
        /// The region's first byte, from the start of the BAR.
        var barOffset: UInt64
    }

    /// The extents, ascending by guest address.
    let extents: [Extent]

    /// Least alignment of a region in the window, in its file and in guest addresses (VPN-D-12).
    static let granule: UInt64 = 4096

    /// Rule P: one region behind the other, each aligned to the page size of its file.
    ///
    /// `base` is the address at which the BAR is mapped here: a huge page needs its alignment in the
    /// address space, not in the BAR.
    static func packed(
        _ regions: [Region],
        base: UInt64,
        offset: UInt64,
        size: UInt64
    ) throws(Refusal) -> WindowPlacement {
        guard !regions.isEmpty, regions.count <= 32 else {
            throw Refusal("mem/count", "\(regions.count) regions, a table has 1 to 32")
        }
        var extents: [Extent] = []
        var used: UInt64 = 0
        var lowest: UInt64 = 0
        for (index, region) in regions.enumerated().sorted(by: ascending) {
            try check(region)
            guard region.guestAddress >= lowest else {
                throw Refusal("mem/overlap", "at \(region.guestAddress.hexadecimal)")
            }
            lowest = region.guestAddress + region.size
            let page = max(granule, region.pageSize.nonzeroBitCount == 1 ? region.pageSize : 0)
            let lead = region.fileOffset % page
            // Checked above: offset plus size does not wrap, and pages are far below 2^63.
            let length = lead.addingReportingOverflow(region.size).partialValue
                .roundedUp(to: page)
            let start = (base &+ offset &+ used).roundedUp(to: page).map { $0 &- base &- offset }
            guard let length, let start, start <= size, length <= size - start else {
                let total = regions.reduce(UInt64(0)) { $0 &+ $1.size }
                throw Refusal(
                    "mem/window",
                    "\(total) bytes in \(regions.count) regions do not fit a window of \(size)"
                )
            }
            extents.append(
                Extent(
                    region: index,
                    position: offset + start,
                    length: length,
                    fileOffset: region.fileOffset - lead,
                    barOffset: offset + start + lead
                )
            )
            used = start + length
        }
        return WindowPlacement(extents: extents)
    }

    private static func ascending(
        _ first: (offset: Int, element: Region),
        _ second: (offset: Int, element: Region)
    ) -> Bool {
        first.element.guestAddress < second.element.guestAddress
    }

    private static func check(_ region: Region) throws(Refusal) {
        let aligned = [region.guestAddress, region.size, region.fileOffset]
            .allSatisfy { $0 % granule == 0 }
        let ends = [region.guestAddress, region.fileOffset]
            .map { $0.addingReportingOverflow(region.size) }
        guard aligned, region.size > 0, ends.allSatisfy({ !$0.overflow }) else {
            throw Refusal(
                "mem/range",
                "\(region.size.hexadecimal) bytes at \(region.guestAddress.hexadecimal),"
                    + " file offset \(region.fileOffset.hexadecimal)"
            )
        }
    }
}

extension UInt64 {
    /// The next multiple of a power of two; `nil` when there is none below 2^64.
    func roundedUp(to step: UInt64) -> UInt64? {
        let (sum, overflow) = addingReportingOverflow(step - 1)
        return overflow ? nil : sum & ~(step - 1)
    }
}
