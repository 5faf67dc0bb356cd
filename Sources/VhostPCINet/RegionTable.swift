internal import VirtioSpec

/// The driver's check of PEER_MEM_INFO: a window and regions that can be mapped and looked up.
struct RegionTable: Equatable, Sendable {
    /// Part of a BAR.
    struct Window: Equatable, Sendable {
        /// The BAR.
        let bar: Int
        /// Start in the BAR.
        var offset: UInt64
        /// Length in bytes.
        var size: UInt64
    }

    /// The window that the message names, then, where it says that there are more, what its regions
    /// need of other BARs.
    let windows: [Window]
    /// Number of this version.
    let generation: UInt32
    /// Regions, ascending, disjoint, inside the window.
    let regions: [PeerMemoryInformation.Region]

    /// Bytes of all regions.
    var byteCount: UInt64 { regions.reduce(0) { $0 &+ $1.size } }

    init(checking information: PeerMemoryInformation) throws(Refusal) {
        let bar: Int
        switch information.location {
        case .address(let address):
            // An address from outside is never followed (HI-G4).
            throw Refusal("vpci/gva", "a window at \(address.hexadecimal) was not announced by us")
        case .bar(let number): bar = try Self.bar(number)
        }
        guard !information.flags.contains(.translatedAddresses) else {
            throw Refusal("mem/range", "not supported: peer addresses that are IOVAs")
        }
        let end = information.windowOffset.addingReportingOverflow(information.windowSize)
        guard information.windowSize > 0, !end.overflow else {
            throw Refusal(
                "vpci/bar",
                "a window of \(information.windowSize.hexadecimal) bytes"
                    + " at \(information.windowOffset.hexadecimal)"
            )
        }
        let isSplit = information.flags.contains(.splitWindow)
        var windows = [
            Window(bar: bar, offset: information.windowOffset, size: information.windowSize)
        ]
        var regions: [PeerMemoryInformation.Region] = []
        var lowest: UInt64 = 0
        for var region in information.regions {
            region.bar = UInt32(isSplit ? try Self.bar(UInt64(region.bar)) : bar)
            let isNamed = Int(region.bar) == bar
            let limit = isNamed ? information.windowOffset..<end.partialValue : 0..<UInt64.max
            try Self.check(region, window: limit)
            if !isNamed { Self.extend(&windows, over: region) }
            regions.append(region)
            guard region.guestAddress >= lowest else {
                throw Refusal("mem/overlap", "at \(region.guestAddress.hexadecimal)")
            }
            lowest = region.guestAddress + region.size
        }
        self.windows = windows
        self.regions = regions
        generation = information.generation
    }

    /// Index of the window that a region of the table lies in.
    func window(of region: PeerMemoryInformation.Region) -> Int {
        windows.firstIndex { $0.bar == Int(region.bar) } ?? 0
    }

    private static func bar(_ number: UInt64) throws(Refusal) -> Int {
        guard number <= 5 else { throw Refusal("vpci/bar", "there is no BAR \(number)") }
        return Int(number)
    }

    /// Makes the window of another BAR reach over a region that was checked.
    private static func extend(
        _ windows: inout [Window],
        over region: PeerMemoryInformation.Region
    ) {
        let bar = Int(region.bar)
        guard let index = windows.firstIndex(where: { $0.bar == bar }) else {
            windows.append(Window(bar: bar, offset: region.barOffset, size: region.size))
            return
        }
        let window = windows[index]
        let start = min(window.offset, region.barOffset)
        let end = max(window.offset + window.size, region.barOffset + region.size)
        windows[index] = Window(bar: bar, offset: start, size: end - start)
    }

    /// VPN-D-12, seen from the other side.
    private static func check(
        _ region: PeerMemoryInformation.Region,
        window: Range<UInt64>
    ) throws(Refusal) {
        let guestEnd = region.guestAddress.addingReportingOverflow(region.size)
        let barEnd = region.barOffset.addingReportingOverflow(region.size)
        guard region.size > 0, region.size % WindowPlacement.granule == 0,
            region.guestAddress % WindowPlacement.granule == 0,
            region.barOffset % WindowPlacement.granule == 0,
            !guestEnd.overflow, !barEnd.overflow,
            region.barOffset >= window.lowerBound, barEnd.partialValue <= window.upperBound
        else {
            throw Refusal(
                "mem/range",
                "\(region.size.hexadecimal) bytes at \(region.guestAddress.hexadecimal)"
                    + " in BAR offset \(region.barOffset.hexadecimal)"
            )
        }
    }
}
