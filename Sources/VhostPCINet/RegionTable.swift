internal import VirtioSpec

/// The driver's check of PEER_MEM_INFO: a window and regions that can be mapped and looked up.
struct RegionTable: Equatable, Sendable {
    /// BAR that holds the window.
    let bar: Int
    /// Start of the window in the BAR.
    let windowOffset: UInt64
    /// Its length.
    let windowSize: UInt64
    /// Number of this version.
    let generation: UInt32
    /// Regions, ascending, disjoint, inside the window.
    let regions: [PeerMemoryInformation.Region]

    /// Bytes of all regions.
    var byteCount: UInt64 { regions.reduce(0) { $0 &+ $1.size } }

    init(checking information: PeerMemoryInformation) throws(Refusal) {
        switch information.location {
        case .address(let address):
            // An address from outside is never followed (HI-G4).
            throw Refusal("vpci/gva", "a window at \(address.hexadecimal) was not announced by us")
        case .bar(let number):
            guard number <= 5 else { throw Refusal("vpci/bar", "there is no BAR \(number)") }
            bar = Int(number)
        }
        guard !information.flags.contains(.splitWindow) else {
            throw Refusal("vpci/bar", "not supported: a window over several BARs")
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
        windowOffset = information.windowOffset
        windowSize = information.windowSize
        generation = information.generation
        regions = information.regions
        var lowest: UInt64 = 0
        for region in regions {
            try Self.check(region, window: windowOffset..<end.partialValue)
            guard region.guestAddress >= lowest else {
                throw Refusal("mem/overlap", "at \(region.guestAddress.hexadecimal)")
            }
            lowest = region.guestAddress + region.size
        }
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
