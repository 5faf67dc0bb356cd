internal import VirtioSpec

/// Which features go from the driver to the peer and back (VPN-D-06, VPN-D-07).
struct FeatureMirror: Equatable, Sendable {
    /// What driver and peer can agree on. No offload: a packet goes over as it is.
    static let supported: FeatureBits = [
        .version1, .netMergeableBuffers, .indirectDescriptors, .eventIndex, .inOrder,
    ]

    /// Of these, what is about packets; the rest is about rings, our own as well as the peer's.
    static let network: FeatureBits = [.netMergeableBuffers]

    /// What the driver accepted; `nil` while there is no driver.
    var driver: FeatureBits?
    /// What the peer agreed to; `nil` while that is not known.
    var peer: FeatureBits?

    /// For GET_FEATURES: what the peer may agree to.
    var offerToPeer: FeatureBits {
        driver.map { $0.intersection(Self.supported) } ?? Self.supported
    }

    /// For the driver: network features only as far as the peer agreed to them.
    var offerToDriver: FeatureBits {
        guard let peer else { return Self.supported }
        return Self.supported.subtracting(Self.network.subtracting(peer))
    }

    /// What both use; `nil` when the peer agreed to more than the driver accepts and has to be
    /// brought to the smaller set, or does not follow today's specification at all.
    var agreed: FeatureBits? {
        guard let peer else { return nil }
        let relevant = peer.intersection(Self.supported)
        return relevant.isSubset(of: offerToPeer) && relevant.contains(.version1) ? relevant : nil
    }
}
