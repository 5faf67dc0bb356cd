public import HostSystem

/// What a front-end has said about one ring, in whatever order it said it (HI-D37).
///
/// Started and enabled are independent, and neither needs addresses or memory: a ring is worked on
/// once all of it has come (vhost-user: Ring states).
public struct RingState: Sendable {
    /// Number of descriptors; 0 before SET_VRING_NUM.
    public var size: UInt16 = 0
    /// Addresses in the front-end's own space; `nil` before SET_VRING_ADDR.
    public var addresses: VringAddress?
    /// Next available entry to take.
    public var base: UInt16 = 0
    /// SET_VRING_KICK came, and nothing stopped the ring since (VU-R-01).
    public var isStarted = false
    /// SET_VRING_ENABLE 1, or no feature bit 30 (VU-R-05).
    public var isEnabled = false
    /// How the front-end kicks; `nil` asks for polling (VU-B-15).
    public var kick: FileDescriptor?
    /// How the driver is interrupted.
    public var call: FileDescriptor?
    /// Where a broken ring is reported.
    public var error: FileDescriptor?

    /// A ring nobody has spoken of.
    public init() {}

    /// Stops the ring; the descriptor that started it goes with it, the others stay.
    public mutating func stop() {
        isStarted = false
        kick = nil
    }

    /// Where the three areas are, as guest addresses.
    public struct Areas: Sendable, Equatable {
        /// Descriptor table.
        public var descriptorArea: UInt64
        /// Available ring.
        public var driverArea: UInt64
        /// Used ring.
        public var deviceArea: UInt64
    }

    /// The areas in a table; `nil` while size, addresses or memory are unknown.
    ///
    /// Lengths and alignments are those of a split ring with its event words (virtio 1.3 §2.7).
    /// An area must lie in one region, and be aligned in guest addresses, which are what is used.
    public func areas(in memory: RegionTable) throws(Violation) -> Areas? {
        guard let addresses, size > 0, !memory.regions.isEmpty else { return nil }
        let count = UInt64(size)
        return Areas(
            descriptorArea: try resolve(addresses.descriptorArea, 16 * count, 16, memory),
            driverArea: try resolve(addresses.driverArea, 6 + 2 * count, 2, memory),
            deviceArea: try resolve(addresses.deviceArea, 6 + 8 * count, 4, memory)
        )
    }

    /// True when everything is known and yet the addresses lead nowhere (VU-B-17).
    public func isUnresolvable(in memory: RegionTable) -> Bool {
        do {
            _ = try areas(in: memory)
            return false
        } catch {
            return true
        }
    }

    /// The ring as the device gets it; `nil` while it cannot be worked on.
    public func description(index: Int, memory: RegionTable) -> PeerRing? {
        guard let found = try? areas(in: memory) else { return nil }
        return PeerRing(
            index: index,
            size: size,
            descriptorArea: found.descriptorArea,
            driverArea: found.driverArea,
            deviceArea: found.deviceArea,
            nextAvailable: base,
            isStarted: isStarted,
            isEnabled: isEnabled,
            kick: kick,
            call: call,
            error: error
        )
    }

    private func resolve(
        _ user: UInt64,
        _ length: UInt64,
        _ alignment: UInt64,
        _ memory: RegionTable
    ) throws(Violation) -> UInt64 {
        guard let guest = memory.guestAddress(of: user, length: length) else {
            throw Violation(.ringArea, "\(length) bytes at \(hex(user)) are in no region")
        }
        guard guest % alignment == 0 else {
            throw Violation(.ringAlignment, "\(hex(guest)) is no multiple of \(alignment)")
        }
        return guest
    }
}
