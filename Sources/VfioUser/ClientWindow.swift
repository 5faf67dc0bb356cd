internal import HostSystem
internal import PCI

/// A mapped part of a region: the areas that the server lets be mapped, where they belong, and zero
/// pages of our own between them, so that offsets in the region are offsets here.
///
/// The file is the server's, who may cut it short at any time: an access then finds zeros (HI-I11).
final class ClientWindow: Sendable {
    private let pages: GuardedMapping
    /// Where the first byte asked for is in it.
    private let start: Int

    /// Maps what can be of `size` bytes at `offset` of a region; `nil` when that is nothing.
    init?(_ region: ClientRegion, offset: UInt64, size: UInt64) throws(SystemError) {
        guard let file = region.file else { return nil }
        let first = offset / region.page * region.page
        let last = (offset + size + region.page - 1) / region.page * region.page
        let parts = region.areas.map { $0.clamped(to: first..<last) }.filter { !$0.isEmpty }
        guard !parts.isEmpty, let length = Int(exactly: last - first) else { return nil }
        let space = try Mapping.anonymous(length: length, alignment: Int(region.page))
        for part in parts {
            try space.place(
                file,
                offset: region.fileOffset + part.lowerBound,
                at: Int(part.lowerBound - first),
                length: Int(part.upperBound - part.lowerBound),
                writable: region.isWritable
            )
        }
        pages = try GuardedMapping(space)
        start = Int(offset - first)
    }

    /// Where the first byte asked for is mapped.
    @unsafe var address: UnsafeMutableRawPointer { unsafe pages.mapping.address + start }
}
