/// Names a port of an engine, from `addPort`, `addTap` or `addDevice` on; never reused.
public struct PortID: Hashable, Sendable {
    /// Position in the engine's table, and in its reports as long as no port was removed. Another port
    /// has it when this one was.
    public let index: Int
    /// Ports that the engine had before.
    let serial: UInt64

    init(_ index: Int, serial: UInt64 = 0) {
        self.index = index
        self.serial = serial
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
