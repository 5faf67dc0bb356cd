public import HostSystem

/// The part of a BAR in which one device shows its peer's memory.
public struct PeerWindowSlice: Sendable {
    /// The memory behind the BAR, mapped for as long as the function exists.
    public let mapping: Mapping
    /// Number of the BAR, told to the driver.
    public let bar: Int
    /// First byte of the slice, from the start of the BAR; a multiple of 4096.
    public let offset: Int
    /// Length in bytes; a multiple of 4096.
    public let size: Int

    /// Names a slice; without size, all that follows the offset.
    ///
    /// The slice must lie in the mapping: handing out slices is this program's own business.
    public init(mapping: Mapping, bar: Int = 2, offset: Int = 0, size: Int? = nil) {
        let size = size ?? mapping.length - offset
        precondition(
            offset >= 0 && size > 0 && offset % 4096 == 0 && size % 4096 == 0
                && offset <= mapping.length && size <= mapping.length - offset,
            "a slice of \(size) bytes at \(offset) is outside a BAR of \(mapping.length)"
        )
        self.mapping = mapping
        self.bar = bar
        self.offset = offset
        self.size = size
    }
}
