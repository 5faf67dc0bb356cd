public import HostSystem

/// The file behind a BAR that a client may map for itself: what a vfio-user server puts into the
/// region's description (vfio-user: VFIO_USER_DEVICE_GET_REGION_INFO, sparse mmap areas).
///
/// One file, and a constant between offsets in the BAR and offsets in the file: a region's
/// description has room for no more.
public struct WindowFile: Sendable {
    /// The file; it stays open for as long as anybody holds this value.
    public let file: FileDescriptor
    /// Which file it is: a client keeps what it mapped, so a later file must be the same one.
    public let identity: FileIdentity
    /// Offset in the file of the BAR's first byte.
    public let offset: UInt64
    /// What may be mapped, as offsets in the BAR: whole pages of the file, ascending, disjoint, not
    /// empty. The rest of the BAR is reached by accesses that are trapped.
    public let areas: [Range<UInt64>]

    /// Describes a file. The areas are this program's own, in the order that is promised.
    public init(
        file: FileDescriptor,
        identity: FileIdentity,
        offset: UInt64,
        areas: [Range<UInt64>]
    ) {
        precondition(
            areas.allSatisfy { !$0.isEmpty }
                && zip(areas, areas.dropFirst()).allSatisfy { $0.upperBound <= $1.lowerBound },
            "areas of a window that overlap or are out of order"
        )
        self.file = file
        self.identity = identity
        self.offset = offset
        self.areas = areas
    }
}
