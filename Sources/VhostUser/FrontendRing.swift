public import HostSystem

/// One region of the front-end's memory, as it is shared with a back-end.
public struct FrontendRegion: Sendable {
    /// Address of the first byte in descriptors.
    public var guestAddress: UInt64
    /// Length in bytes.
    public var size: UInt64
    /// Address of the first byte in the front-end's own space; it only has to be unique, and is the
    /// guest address unless said otherwise.
    public var userAddress: UInt64
    /// Offset of the first byte in `file`.
    public var fileOffset: UInt64
    /// The file to share.
    public var file: FileDescriptor

    /// Describes a region.
    public init(
        guestAddress: UInt64,
        size: UInt64,
        userAddress: UInt64? = nil,
        fileOffset: UInt64 = 0,
        file: FileDescriptor
    ) {
        self.guestAddress = guestAddress
        self.size = size
        self.userAddress = userAddress ?? guestAddress
        self.fileOffset = fileOffset
        self.file = file
    }

    /// All of a memory file, from `guestAddress` on.
    public init(_ file: MemoryFile, guestAddress: UInt64) {
        self.init(
            guestAddress: guestAddress,
            size: UInt64(file.size),
            file: file.descriptor
        )
    }

    var payload: MemoryRegionPayload {
        MemoryRegionPayload(
            guestAddress: guestAddress,
            length: size,
            userAddress: userAddress,
            fileOffset: fileOffset
        )
    }
}

/// One ring that a front-end gives to its back-end: where it is, and the three eventfds.
public struct FrontendRing: Sendable {
    /// Ring index.
    public let index: Int
    /// Number of descriptors.
    public let size: UInt16
    /// Descriptor table, as a guest address.
    public let descriptorArea: UInt64
    /// Available ring, as a guest address.
    public let driverArea: UInt64
    /// Used ring, as a guest address.
    public let deviceArea: UInt64
    /// Next available index from which the back-end goes on; 0 for a fresh ring.
    public var nextAvailable: UInt16
    /// We signal it when buffers are available.
    public let kick: EventFD
    /// The back-end signals it when buffers are used.
    public let call: EventFD
    /// The back-end signals it when the ring is broken (HI-D66).
    public let error: EventFD

    /// Describes a ring and makes its eventfds.
    public init(
        index: Int,
        size: UInt16,
        descriptorArea: UInt64,
        driverArea: UInt64,
        deviceArea: UInt64,
        nextAvailable: UInt16 = 0
    ) throws(SystemError) {
        self.index = index
        self.size = size
        self.descriptorArea = descriptorArea
        self.driverArea = driverArea
        self.deviceArea = deviceArea
        self.nextAvailable = nextAvailable
        kick = try EventFD()
        call = try EventFD()
        error = try EventFD()
    }
}
