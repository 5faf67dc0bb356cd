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
    /// Page size of the file (2 MiB for hugetlb); guest address, size and offset are multiples.
    public let pageSize: UInt64
    /// The file cannot get shorter any more (HI-I12); of other files a part may vanish (HI-I11).
    public let isSealed: Bool

    /// Describes a checked region.
    public init(
        guestAddress: UInt64,
        size: UInt64,
        userAddress: UInt64,
        fileOffset: UInt64,
        file: FileDescriptor,
        identity: FileIdentity,
        pageSize: UInt64,
        isSealed: Bool = false
    ) {
        self.guestAddress = guestAddress
        self.size = size
        self.userAddress = userAddress
        self.fileOffset = fileOffset
        self.file = file
        self.identity = identity
        self.pageSize = pageSize
        self.isSealed = isSealed
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
    /// Next available entry to take, for a ring that is not being worked on: one that goes on
    /// working from an earlier snapshot (`continues`) is further by now and keeps its own position.
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

extension PeerRegion {
    /// True when `other` is the same run of the same file at the same addresses.
    public func isSame(as other: PeerRegion) -> Bool {
        guestAddress == other.guestAddress && size == other.size
            && userAddress == other.userAddress && fileOffset == other.fileOffset
            && identity == other.identity
    }
}

extension PeerRing {
    /// True when a device that works on `earlier` may go on as it is: the ring is where it was, and
    /// still started. It may have become enabled; its descriptors may have been replaced.
    public func continues(_ earlier: PeerRing) -> Bool {
        isAtSamePlace(as: earlier) && earlier.isStarted && isStarted
            && (isEnabled || !earlier.isEnabled)
    }

    private func isAtSamePlace(as other: PeerRing) -> Bool {
        index == other.index && size == other.size && descriptorArea == other.descriptorArea
            && driverArea == other.driverArea && deviceArea == other.deviceArea
    }

    /// True when nothing differs but possibly the call descriptor, which has its own notice.
    func isSameButForCall(as other: PeerRing) -> Bool {
        isAtSamePlace(as: other) && nextAvailable == other.nextAvailable
            && isStarted == other.isStarted && isEnabled == other.isEnabled
            && kick === other.kick && error === other.error
    }
}

extension PeerDescription {
    /// True when a device that uses this snapshot has to stop before `next` can be true: memory
    /// goes away, or a ring that works stops, moves or is disabled.
    func mustStop(for next: PeerDescription) -> Bool {
        let isMemoryKept = regions.allSatisfy { old in
            next.regions.contains { $0.isSame(as: old) }
        }
        guard isMemoryKept else { return true }
        return rings.contains { old in
            guard old.isStarted else { return false }
            guard features == next.features,
                let new = next.rings.first(where: { $0.index == old.index })
            else { return true }
            return !new.continues(old)
        }
    }

    /// True when a device has nothing to learn from `other` but possibly call descriptors: features,
    /// memory and the rings that are started are the same. Rings still being set up do not count,
    /// or every message of their set-up would be news.
    func isSameButForCalls(as other: PeerDescription) -> Bool {
        let started = rings.filter(\.isStarted)
        let others = other.rings.filter(\.isStarted)
        return features == other.features && regions.count == other.regions.count
            && started.count == others.count
            && zip(regions, other.regions).allSatisfy { $0.isSame(as: $1) }
            && zip(started, others).allSatisfy { $0.isSameButForCall(as: $1) }
    }
}
