public import HostSystem
public import VirtioSpec

/// One region of a front-end's memory, as it announced it and after checks (HI-D11 … HI-D14).
public struct PeerRegion: Sendable {
    /// Guest physical address of the first byte.
    public let guestAddress: UInt64
    /// Length in bytes.
    public let size: UInt64
    /// The front-end's own address of the first byte; ring addresses are given in it.
    public let userAddress: UInt64
    /// Offset of the first byte in `file`.
    public let fileOffset: UInt64
    /// The file behind the region.
    public let file: FileDescriptor
    /// Which file it is, so that regions of one file are recognised.
    public let identity: FileIdentity
    /// Page size of the file (2 MiB for hugetlb).
    public let pageSize: UInt64

    /// Describes a checked region.
    public init(
        guestAddress: UInt64,
        size: UInt64,
        userAddress: UInt64,
        fileOffset: UInt64,
        file: FileDescriptor,
        identity: FileIdentity,
        pageSize: UInt64
    ) {
        self.guestAddress = guestAddress
        self.size = size
        self.userAddress = userAddress
        self.fileOffset = fileOffset
        self.file = file
        self.identity = identity
        self.pageSize = pageSize
    }
}

/// One ring as the front-end described it. Addresses are guest addresses, converted from user
/// addresses by the region table.
public struct PeerRing: Sendable {
    /// Ring index.
    public var index: Int
    /// Number of descriptors.
    public var size: UInt16
    /// Descriptor table.
    public var descriptorArea: UInt64
    /// Available ring.
    public var driverArea: UInt64
    /// Used ring.
    public var deviceArea: UInt64
    /// Next available entry to take.
    public var nextAvailable: UInt16
    /// SET_VRING_KICK was seen and GET_VRING_BASE was not (VU-R-01).
    public var isStarted: Bool
    /// SET_VRING_ENABLE 1, or no protocol features (VU-R-05).
    public var isEnabled: Bool
    /// How the front-end wakes us; `nil` asks for polling (VU-B-15).
    public var kick: FileDescriptor?
    /// How we interrupt the driver behind the front-end.
    public var call: FileDescriptor?
    /// Where a broken ring is reported.
    public var error: FileDescriptor?

    /// Describes a ring.
    public init(
        index: Int,
        size: UInt16,
        descriptorArea: UInt64,
        driverArea: UInt64,
        deviceArea: UInt64,
        nextAvailable: UInt16,
        isStarted: Bool,
        isEnabled: Bool,
        kick: FileDescriptor?,
        call: FileDescriptor?,
        error: FileDescriptor?
    ) {
        self.index = index
        self.size = size
        self.descriptorArea = descriptorArea
        self.driverArea = driverArea
        self.deviceArea = deviceArea
        self.nextAvailable = nextAvailable
        self.isStarted = isStarted
        self.isEnabled = isEnabled
        self.kick = kick
        self.call = call
        self.error = error
    }
}

/// All a front-end has said about its device: an immutable snapshot.
public struct PeerDescription: Sendable {
    /// The features it acknowledged.
    public var features: FeatureBits
    /// Its memory, ascending by guest address.
    public var regions: [PeerRegion]
    /// Rings whose addresses are known and resolve, started or not, ascending by index.
    public var rings: [PeerRing]

    /// Describes a peer.
    public init(features: FeatureBits, regions: [PeerRegion], rings: [PeerRing]) {
        self.features = features
        self.regions = regions
        self.rings = rings
    }
}
