internal import GuestMemory
internal import HostSystem
internal import VhostUser
internal import VirtioSpec

/// A peer's memory in the device's window: file pages mapped over zero pages, and zero pages again
/// when the peer goes. Nothing is ever unmapped, so a driver that still looks there cannot fault
/// (VPN-D-17).
final class PeerWindow {
    private struct Placed {
        let extent: WindowPlacement.Extent
        let busFaults: BusFaultGuard
    }

    /// Where the window is; a second one where two files have a BAR each (rule F).
    private(set) var slices: [PeerWindowSlice]
    /// Which file is shown where, under rule F; kept when the peer goes, since a client may come and
    /// map it. `nil` under rule P.
    private(set) var layout: WindowLayout?

    /// What the driver is told of the table; empty while nothing is placed.
    private(set) var regions: [PeerMemoryInformation.Region] = []
    /// The table itself: peer address to address in the window.
    private(set) var memory = MemoryTable.empty

    private var placed: [Placed] = []
    private var sources: [PeerRegion] = []

    init(slice: PeerWindowSlice) {
        slices = [slice]
    }

    /// Takes windows of another length; nothing is shown in the old ones.
    func adopt(_ slices: [PeerWindowSlice]) {
        precondition(placed.isEmpty && !slices.isEmpty, "windows are exchanged while in use")
        self.slices = slices
    }

    /// Shows what comes next by rule F.
    func adopt(_ layout: WindowLayout) {
        self.layout = layout
    }

    /// The slice that the driver reports the address of.
    var slice: PeerWindowSlice { slices[0] }

    /// True when something is shown.
    var isShowing: Bool { !placed.isEmpty }

    /// A region whose file shrank (HI-I11). Whoever touched it here got zeros; a client that maps the
    /// file itself touches it elsewhere, so the length of the file tells as well.
    var loss: MemoryLoss? {
        for item in placed {
            guard sources.indices.contains(item.extent.region) else { continue }
            let region = sources[item.extent.region]
            guard item.busFaults.hasFaulted || region.isBeyondEnd else { continue }
            return MemoryLoss(
                name: "\(region.file.name) (inode \(region.identity.inode))",
                first: region.guestAddress,
                count: region.size
            )
        }
        return nil
    }

    /// Shows these regions and nothing else, by the layout's rule F or, without one, by rule P. A
    /// table that is shown already is left alone: its pages need not be faulted in again.
    func place(_ regions: [PeerRegion]) throws(Refusal) {
        if isShown(regions) { return }
        guard clear() else {
            throw Refusal("limit/memory", "the window still shows an earlier table")
        }
        let placement = try placement(of: regions)
        for extent in placement.extents {
            do throws(SystemError) {
                try map(extent, of: regions[extent.region])
            } catch {
                clear()
                throw refusal(error, for: regions[extent.region])
            }
        }
        try publish(placement, of: regions)
        sources = regions
    }

    /// Shows zero pages; false, and tried again next time, when the kernel has no room for it.
    @discardableResult
    func clear() -> Bool {
        memory = .empty
        regions = []
        sources = []
        // The pages go first and their guard after: a fault in between is still contained.
        placed.removeAll { item in
            let position = Int(item.extent.position)
            let mapping = slices[item.extent.window].mapping
            return (try? mapping.clear(at: position, length: Int(item.extent.length))) != nil
        }
        return placed.isEmpty
    }

    private func placement(of regions: [PeerRegion]) throws(Refusal) -> WindowPlacement {
        guard let layout else {
            return try WindowPlacement.packed(
                regions.map { WindowPlacement.Region($0) },
                base: UInt64(UInt(bitPattern: unsafe slice.mapping.address)),
                offset: UInt64(slice.offset),
                size: UInt64(slice.size)
            )
        }
        try layout.require(regions)
        return try WindowPlacement.byFile(
            regions.map { WindowPlacement.Region($0, window: layout.index(of: $0.identity) ?? 0) },
            windows: slices.map { UInt64($0.offset)..<UInt64($0.offset + $0.size) }
        )
    }

    private func isShown(_ regions: [PeerRegion]) -> Bool {
        guard !sources.isEmpty, sources.count == regions.count, loss == nil else { return false }
        return zip(sources, regions).allSatisfy { $0.isSameMemory(as: $1) }
    }

    private func map(
        _ extent: WindowPlacement.Extent,
        of region: PeerRegion
    ) throws(SystemError) {
        let (position, length) = (Int(extent.position), Int(extent.length))
        // A fixed mapping that fails leaves a hole where zero pages were, and a driver that looks
        // there would fault. So the file is tried somewhere else first.
        let trial = try Mapping.file(region.file, offset: extent.fileOffset, length: length)
        // Ordinary pages come on demand: a guest's memory is not filled for it.
        if region.pageSize > WindowPlacement.granule {
            try trial.populate(at: 0, length: length)
        }
        let mapping = slices[extent.window].mapping
        let busFaults = try BusFaultGuard(mapping, at: position, length: length)
        placed.append(Placed(extent: extent, busFaults: busFaults))
        try mapping.place(
            region.file,
            offset: extent.fileOffset,
            at: position,
            length: length
        )
    }

    private func publish(
        _ placement: WindowPlacement,
        of regions: [PeerRegion]
    ) throws(Refusal) {
        var entries: [MemoryRegion] = []
        for extent in placement.extents {
            let region = regions[extent.region]
            // Safety: the extent was mapped above, inside the slice that the mapping owns.
            let entry = unsafe MemoryRegion(
                start: region.guestAddress,
                size: region.size,
                host: slices[extent.window].mapping.address + Int(extent.barOffset)
            )
            guard let entry else { preconditionFailure("placement lets no such region through") }
            entries.append(entry)
            self.regions.append(
                PeerMemoryInformation.Region(
                    guestAddress: region.guestAddress,
                    size: region.size,
                    userAddress: region.userAddress,
                    barOffset: extent.barOffset,
                    bar: slices.count > 1 ? UInt32(slices[extent.window].bar) : 0
                )
            )
        }
        do throws(MemoryTable.Problem) {
            memory = try MemoryTable(entries, owners: slices.map(\.mapping))
        } catch {
            preconditionFailure("placement lets no overlap through")
        }
    }

    private func refusal(_ error: SystemError, for region: PeerRegion) -> Refusal {
        guard error.errno == .noMemory else { return Refusal("mem/map", "\(error)") }
        return Refusal(
            region.pageSize > WindowPlacement.granule ? "mem/no-pages" : "limit/memory",
            "\(error)"
        )
    }
}

extension WindowPlacement.Region {
    fileprivate init(_ region: PeerRegion, window: Int = 0) {
        self.init(
            guestAddress: region.guestAddress,
            size: region.size,
            fileOffset: region.fileOffset,
            pageSize: region.pageSize,
            window: window
        )
    }
}

extension PeerRegion {
    /// Part of the region is behind the end that its file has now.
    fileprivate var isBeyondEnd: Bool {
        guard let status = try? file.status() else { return false }
        return status.size < fileOffset || status.size - fileOffset < size
    }

    /// The same bytes of the same file at the same addresses.
    func isSameMemory(as other: PeerRegion) -> Bool {
        guestAddress == other.guestAddress && size == other.size
            && userAddress == other.userAddress && fileOffset == other.fileOffset
            && identity == other.identity
    }
}
