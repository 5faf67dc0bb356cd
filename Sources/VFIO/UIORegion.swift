internal import HostSystem
internal import PCI

/// One BAR as sysfs describes it.
struct UIORegion: Equatable {
    private static let isPort: UInt64 = 0x100
    private static let isMemory: UInt64 = 0x200
    private static let isUnset: UInt64 = 0x2000_0000

    /// Length in bytes, 0 when the function does not have the BAR or it has no address.
    let size: UInt64
    /// Where the BAR starts in its first page: pages are mapped, and a small BAR need not start one.
    let start: Int
    /// Ports, which can only be read and written through the file.
    let hasPorts: Bool

    static let absent = UIORegion(size: 0, start: 0, hasPorts: false)

    /// Takes the six first lines of `resource` apart: first address, last address, flags. A line that
    /// makes no sense is an absent BAR.
    static func list(_ text: String) -> [UIORegion] {
        var regions = text.split(separator: "\n", omittingEmptySubsequences: false)
            .prefix(ConfigurationHeader.baseAddressCount).map(region)
        while regions.count < ConfigurationHeader.baseAddressCount { regions.append(.absent) }
        return regions
    }

    private static func region(_ line: Substring) -> UIORegion {
        let words = line.split(separator: " ").map { word in
            word.hasPrefix("0x") ? UInt64(word.dropFirst(2), radix: 16) : nil
        }
        guard words.count == 3, let first = words[0], let last = words[1], let flags = words[2],
            flags & (isPort | isMemory) != 0, flags & isUnset == 0, last >= first,
            last - first < UInt64(Int64.max), first > 0 || last > 0
        else { return .absent }
        return UIORegion(
            size: last - first + 1,
            start: Int(first % VFIORegion.page),
            hasPorts: flags & isMemory == 0
        )
    }

    /// `length` bytes at `offset` are inside.
    func holds(_ offset: UInt64, _ length: UInt64) -> Bool {
        offset <= size && length <= size - offset
    }

    /// Bytes to map: whole pages around the BAR.
    var mappedLength: Int? {
        let (end, wraps) = size.addingReportingOverflow(UInt64(start) + VFIORegion.page - 1)
        return wraps ? nil : Int(exactly: end / VFIORegion.page * VFIORegion.page)
    }
}
