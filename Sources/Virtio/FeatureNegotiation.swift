public import VirtioSpec

/// Feature bits between a device and its driver, seen through windows of 32 bits
/// (virtio 1.3 §2.2, §4.1.4.3).
public struct FeatureNegotiation: Sendable, Equatable {
    /// Word of the offer that is shown.
    public var deviceSelect: UInt32 = 0
    /// Word of the choice that is shown and written.
    public var driverSelect: UInt32 = 0
    /// What the driver chose so far.
    public var driverFeatures: FeatureBits = []

    /// Starts with nothing chosen.
    public init() {}

    /// A device's offer as any driver sees it: VERSION_1 is always part of it (VPN-D-08).
    public static func offer(of device: any VirtioDevice) -> FeatureBits {
        device.offeredFeatures.union(.version1)
    }

    /// The selected word of an offer; words beyond those defined are 0 (HI-H17).
    public func deviceWord(of offer: FeatureBits) -> UInt32 {
        Self.word(deviceSelect, of: offer)
    }

    /// The selected word of the driver's choice.
    public var driverWord: UInt32 {
        get { Self.word(driverSelect, of: driverFeatures) }
        set {
            guard driverSelect < 2 else { return }
            let shift = UInt64(driverSelect) * 32
            let kept = driverFeatures.rawValue & ~(0xffff_ffff << shift)
            driverFeatures = FeatureBits(rawValue: kept | UInt64(newValue) << shift)
        }
    }

    /// True when a device can serve the choice: part of its offer, with VERSION_1, and to the
    /// device's own liking.
    public func isAcceptable(to device: any VirtioDevice) -> Bool {
        Self.offer(of: device).isSuperset(of: driverFeatures)
            && driverFeatures.contains(.version1)
            && device.acceptsFeatures(driverFeatures)
    }

    private static func word(_ select: UInt32, of features: FeatureBits) -> UInt32 {
        guard select < 2 else { return 0 }
        return UInt32(truncatingIfNeeded: features.rawValue >> (UInt64(select) * 32))
    }
}
