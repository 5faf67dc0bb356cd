/// Names a port of an engine, from `addPort`, `addTap` or `addDevice` on; never reused.
public struct PortID: Hashable, Sendable {
    /// Position in the engine's table and in its reports.
    public let index: Int

    init(_ index: Int) {
        self.index = index
    }
}

/// What stands behind a port.
public enum PortKind: String, Sendable, CaseIterable {
    /// A peer's virtio-net rings, there while the peer is attached.
    case peer
    /// A TAP interface of this host.
    case tap
    /// A network device that we drive.
    case device
}
