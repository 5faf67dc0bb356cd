/// Where each region of a peer's memory goes in a window: numbers only, nothing is mapped here.
struct WindowPlacement: Equatable, Sendable {
    /// A region to be placed.
    struct Region: Equatable, Sendable {
        var guestAddress: UInt64
        var size: UInt64
        var fileOffset: UInt64
        var pageSize: UInt64
        /// Index of the window that shows its file, under rule F.
        var window = 0
    }

    /// A region in its place.
    struct Extent: Equatable, Sendable {
        /// Index of the region in the list that was given.
        var region: Int
        /// Index of the window.
        var window = 0
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
        var extents: [Extent] = []
        var used: UInt64 = 0
        for (index, region) in try checked(regions) {
            let page = region.page
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

    /// Rule F: each region where it lies in its file, in the window of that file. Windows are given
    /// as parts of their BARs.
    static func byFile(
        _ regions: [Region],
        windows: [Range<UInt64>]
    ) throws(Refusal) -> WindowPlacement {
        var extents: [Extent] = []
        for (index, region) in try checked(regions) {
            let window = windows[region.window]
            let lead = region.fileOffset % region.page
            let start = region.fileOffset - lead
            // Checked: offset plus size does not wrap.
            let size = UInt64(window.count)
            guard let end = (region.fileOffset + region.size).roundedUp(to: region.page),
                end <= size
            else {
                throw Refusal(
                    "mem/window",
                    WindowLayout.needed(region.fileOffset + region.size, size)
                )
            }
            extents.append(
                Extent(
                    region: index,
                    window: region.window,
                    position: window.lowerBound + start,
                    length: end - start,
                    fileOffset: start,
                    barOffset: window.lowerBound + region.fileOffset
                )
            )
        }
        return WindowPlacement(extents: extents)
    }

    /// The regions in the order of their guest addresses; they make a table (VPN-D-12).
    private static func checked(
        _ regions: [Region]
    ) throws(Refusal) -> [(offset: Int, element: Region)] {
        guard !regions.isEmpty, regions.count <= 32 else {
            throw Refusal("mem/count", "\(regions.count) regions, a table has 1 to 32")
        }
        let sorted = regions.enumerated().sorted(by: ascending)
        var lowest: UInt64 = 0
        for (_, region) in sorted {
            try check(region)
            guard region.guestAddress >= lowest else {
                throw Refusal("mem/overlap", "at \(region.guestAddress.hexadecimal)")
            }
            lowest = region.guestAddress + region.size
        }
        return sorted
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

extension WindowPlacement.Region {
    /// The page size of its file, where that is one.
    fileprivate var page: UInt64 {
        max(WindowPlacement.granule, pageSize.nonzeroBitCount == 1 ? pageSize : 0)
    }
}

extension UInt64 {
    /// The next multiple of a power of two; `nil` when there is none below 2^64.
    func roundedUp(to step: UInt64) -> UInt64? {
        let (sum, overflow) = addingReportingOverflow(step - 1)
        return overflow ? nil : sum & ~(step - 1)
    }
}
