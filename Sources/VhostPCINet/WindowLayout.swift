internal import HostSystem
internal import PCI
internal import VhostUser

/// Which file of a peer stands behind which BAR, and how large the BARs are (placement rule F): a
/// value, nothing is mapped here.
///
/// Under this rule a region lies where it lies in its file, so that one file, mapped from its start,
/// is the BAR: the only thing that a vfio-user region can be for its client. There are two BARs for
/// it, and so two files at the most.
struct WindowLayout: Sendable {
    /// One BAR.
    struct Window: Sendable {
        /// Its number.
        let bar: Int
        /// Its length in bytes: a power of two.
        let size: UInt64
        /// Page size of the file.
        let pageSize: UInt64
        /// The file; it is kept while the layout is, since a client may map it at any time.
        let file: FileDescriptor
        /// Which file it is.
        let identity: FileIdentity
        /// Where the peer has memory in it: offsets in the file, ascending, disjoint.
        let areas: [Range<UInt64>]
    }

    /// What bounds a layout.
    enum Room: Sendable {
        /// Windows are made for the peer: so many times the memory it has now, and no window larger
        /// than `limit`.
        case made(headroom: UInt64, limit: UInt64)
        /// The windows are there already, with these lengths.
        case given([UInt64])
    }

    /// One BAR for each file, in the order of the peer's addresses.
    let windows: [Window]

    /// BARs of windows, in order.
    static let bars = [2, 4]

    /// Lays out windows for the files of these regions.
    init(of regions: [PeerRegion], in room: Room) throws(Refusal) {
        let files = Self.files(of: regions)
        guard !files.isEmpty else { throw Refusal("mem/count", "a table without regions") }
        let count = room.windowCount
        guard files.count <= count else {
            throw Refusal(
                "mem/files",
                "the peer's memory lies in \(files.count) files, there is room for \(count)"
            )
        }
        var windows: [Window] = []
        for (index, file) in files.enumerated() {
            let shown = regions.filter { $0.identity == file.identity }
            guard let areas = Self.areas(of: shown), let end = areas.last?.upperBound else {
                throw Refusal("mem/range", "a region that wraps in its file")
            }
            windows.append(
                Window(
                    bar: Self.bars[index],
                    size: try room.size(of: index, for: end),
                    pageSize: Self.page(file),
                    file: file.file,
                    identity: file.identity,
                    areas: areas
                )
            )
        }
        self.windows = windows
    }

    /// Index of the window that shows a file.
    func index(of file: FileIdentity) -> Int? { windows.firstIndex { $0.identity == file } }

    /// The file behind each BAR, for clients that map it.
    func file(_ bar: Int) -> WindowFile? {
        guard let window = windows.first(where: { $0.bar == bar }) else { return nil }
        return WindowFile(
            file: window.file,
            identity: window.identity,
            offset: 0,
            areas: window.areas
        )
    }

    /// Refuses regions that cannot be shown as things are: of other files (`mem/file`), or beyond
    /// the end of a window (`mem/window`). The same files may come and go.
    func require(_ regions: [PeerRegion]) throws(Refusal) {
        for region in regions {
            guard let index = index(of: region.identity) else {
                throw Refusal(
                    "mem/file",
                    "a client has mapped the files of an earlier peer, and this one brings others"
                )
            }
            let end = region.fileOffset.addingReportingOverflow(region.size)
            guard !end.overflow, end.partialValue <= windows[index].size else {
                throw Refusal(
                    "mem/window",
                    Self.needed(end.overflow ? .max : end.partialValue, windows[index].size)
                )
            }
        }
    }

    /// True when a client that maps what is laid out here gets all of these regions: they are all
    /// in the areas, and nobody keeps a file open for nothing.
    func suits(_ regions: [PeerRegion]) -> Bool {
        guard Set(regions.map(\.identity)) == Set(windows.map(\.identity)) else { return false }
        return regions.allSatisfy { region in
            let end = region.fileOffset.addingReportingOverflow(region.size)
            guard let index = index(of: region.identity), !end.overflow else { return false }
            return windows[index].areas.contains {
                $0.lowerBound <= region.fileOffset && end.partialValue <= $0.upperBound
            }
        }
    }

    static func needed(_ size: UInt64, _ window: UInt64) -> String {
        "the peer's memory needs a window of \(size) bytes, this one has \(window)"
    }

    /// The first region of each file, in the order of guest addresses.
    private static func files(of regions: [PeerRegion]) -> [PeerRegion] {
        var seen = Set<FileIdentity>()
        return regions.sorted { $0.guestAddress < $1.guestAddress }
            .filter { seen.insert($0.identity).inserted }
    }

    /// Whole pages, ascending; parts of a file that several regions show, or that touch, are one.
    private static func areas(of regions: [PeerRegion]) -> [Range<UInt64>]? {
        var areas: [Range<UInt64>] = []
        for region in regions.sorted(by: { $0.fileOffset < $1.fileOffset }) {
            let page = page(region)
            let end = region.fileOffset.addingReportingOverflow(region.size)
            guard region.size > 0, !end.overflow, let upper = end.partialValue.roundedUp(to: page)
            else { return nil }
            let area = region.fileOffset & ~(page - 1)..<upper
            if let last = areas.last, area.lowerBound <= last.upperBound {
                areas[areas.count - 1] = last.lowerBound..<max(last.upperBound, area.upperBound)
            } else {
                areas.append(area)
            }
        }
        return areas
    }

    private static func page(_ region: PeerRegion) -> UInt64 {
        max(WindowPlacement.granule, region.pageSize.nonzeroBitCount == 1 ? region.pageSize : 0)
    }
}

extension WindowLayout.Room {
    fileprivate var windowCount: Int {
        switch self {
        case .made: WindowLayout.bars.count
        case .given(let sizes): min(sizes.count, WindowLayout.bars.count)
        }
    }

    /// Length of a window whose file is needed up to `end`.
    fileprivate func size(of index: Int, for end: UInt64) throws(Refusal) -> UInt64 {
        switch self {
        case .given(let sizes):
            guard end <= sizes[index] else {
                throw Refusal("mem/window", WindowLayout.needed(end, sizes[index]))
            }
            return sizes[index]
        case .made(let headroom, let limit):
            let wanted = end.multipliedReportingOverflow(by: max(1, headroom))
            guard !wanted.overflow, wanted.partialValue <= limit else {
                throw Refusal(
                    "mem/window",
                    WindowLayout.needed(wanted.overflow ? .max : wanted.partialValue, limit)
                )
            }
            var size = WindowPlacement.granule
            // The limit is checked above, and far below the last power of two.
            while size < wanted.partialValue { size *= 2 }
            return size
        }
    }
}
