public import VirtioSpec

/// What a back-end offers to every front-end.
public struct BackendOffer: Sendable {
    /// Virtio features; bit 30 is added by the back-end (VU-B-01).
    public var features: FeatureBits
    /// Features without which a front-end is refused (HI-D28).
    public var requiredFeatures: FeatureBits
    /// Queue pairs of the network device: rings 0 … 2 * queuePairs - 1, even ones the driver's
    /// receive rings, odd ones its transmit rings (VU-B-07).
    public var queuePairs: Int
    /// Largest ring.
    public var maximumRingSize: UInt16
    /// Memory regions that a front-end may have, for GET_MAX_MEM_SLOTS.
    public var memorySlots: Int
    /// Protocol features; those that are not served are never offered (VU-B-02).
    public var protocolFeatures: ProtocolFeatures

    /// Describes an offer. `queuePairs` is held to 1 … 128, `memorySlots` to 8 … 509.
    public init(
        features: FeatureBits,
        requiredFeatures: FeatureBits = .version1,
        queuePairs: Int = 1,
        maximumRingSize: UInt16 = 32768,
        memorySlots: Int = 32,
        protocolFeatures: ProtocolFeatures = .served
    ) {
        self.features = features
        self.requiredFeatures = requiredFeatures
        self.queuePairs = min(max(1, queuePairs), 128)
        self.maximumRingSize = maximumRingSize
        self.memorySlots = min(max(MemoryTablePayload.largestCount, memorySlots), 509)
        self.protocolFeatures = protocolFeatures.intersection(.served)
    }

    /// Number of rings.
    public var ringCount: Int { queuePairs * 2 }

    /// What GET_FEATURES answers.
    public var offeredFeatures: FeatureBits { features.union(.vhostUserProtocol) }
}
