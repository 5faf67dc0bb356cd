/// What a vhost-pci-net device reports, for step lines.
public enum DeviceEvent: Sendable, Equatable, CustomStringConvertible {
    /// A front-end connected.
    case peerConnected
    /// Rule F: the windows were laid out for the files of a peer; their lengths, BAR 2 first.
    case windows([UInt64])
    /// The window shows that peer's memory; `unsealed` regions can still be truncated by their
    /// owner (HI-I12).
    case placed(regions: Int, bytes: UInt64, unsealed: Int, generation: UInt32)
    /// The connection is in another state.
    case phase(DeviceState.Phase)
    /// Something was refused or ignored.
    case refused(Refusal)
    /// The device asks its driver for a reset.
    case failed(String)
    /// The front-end went.
    case peerGone(String)

    /// One line for people.
    public var description: String {
        switch self {
        case .peerConnected: "peer connected"
        case .windows(let lengths):
            "windows of \(lengths.map(String.init).joined(separator: " and ")) bytes"
        case .placed(let regions, let bytes, let unsealed, let generation):
            "table \(generation): \(regions) regions, \(bytes) bytes"
                + (unsealed > 0 ? ", \(unsealed) unsealed" : "")
        case .phase(let phase): "state \(phase.rawValue)"
        case .refused(let refusal): "\(refusal)"
        case .failed(let why): "device/needs-reset: \(why)"
        case .peerGone(let why): "peer gone: \(why)"
        }
    }
}
