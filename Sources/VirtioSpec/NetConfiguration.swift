/// The configuration space of a network device (virtio 1.3 §5.1.4): where each field is, which is
/// there only with its feature.
public enum NetConfiguration {
    /// Six bytes of address (VIRTIO_NET_F_MAC).
    public static let macAddress = 0..<6
    /// 16 bits of status (VIRTIO_NET_F_STATUS).
    public static let status = 6..<8
    /// 16 bits: most queue pairs (VIRTIO_NET_F_MQ).
    public static let maximumPairs = 8..<10
    /// 16 bits: longest packet without Ethernet header (VIRTIO_NET_F_MTU).
    public static let mtu = 10..<12
    /// Bytes of the fields above.
    public static let length = 12

    /// Bit of `status`: the link is up.
    public static let linkUp: UInt16 = 1
    /// Least MTU that a device may name (virtio 1.3 §5.1.4.1).
    public static let leastMTU: UInt16 = 68
    /// Numbers of queue pairs that a device may name (virtio 1.3 §5.1.4.1).
    public static let pairRange: ClosedRange<UInt16> = 1...0x8000
}

/// A command of a network device's control queue (virtio 1.3 §5.1.6.5). The answer is one byte.
public enum NetControl: Equatable, Sendable, CustomStringConvertible {
    /// Takes in frames for other stations, or stops that (needs VIRTIO_NET_F_CTRL_RX).
    case promiscuous(Bool)
    /// Takes in all multicast frames, or stops that (needs VIRTIO_NET_F_CTRL_RX).
    case allMulticast(Bool)
    /// Uses so many queue pairs (needs VIRTIO_NET_F_MQ).
    case queuePairs(UInt16)

    /// Class and command that announce tables of addresses to be taken in (needs
    /// VIRTIO_NET_F_CTRL_RX); what follows has any length.
    public static let setAddressTable: [UInt8] = [1, 0]
    /// The answer of a device that did as told.
    public static let accepted: UInt8 = 0
    /// The answer of a device that did not.
    public static let refused: UInt8 = 1

    /// Class, command and data, as the device reads them.
    public var encoded: [UInt8] {
        switch self {
        case .promiscuous(let on): [0, 0, on ? 1 : 0]
        case .allMulticast(let on): [0, 1, on ? 1 : 0]
        case .queuePairs(let count):
            [4, 0, UInt8(truncatingIfNeeded: count), UInt8(truncatingIfNeeded: count >> 8)]
        }
    }

    /// Reads a command; `nil` for one that this project does not know.
    public init?(_ bytes: [UInt8]) {
        switch (bytes.prefix(2), bytes.dropFirst(2).count) {
        case ([0, 0], 1): self = .promiscuous(bytes[2] != 0)
        case ([0, 1], 1): self = .allMulticast(bytes[2] != 0)
        case ([4, 0], 2): self = .queuePairs(UInt16(bytes[2]) | UInt16(bytes[3]) << 8)
        default: return nil
        }
    }

    /// The command for people.
    public var description: String {
        switch self {
        case .promiscuous(let on): "promiscuous \(on ? "on" : "off")"
        case .allMulticast(let on): "all multicast \(on ? "on" : "off")"
        case .queuePairs(let count): "\(count) queue pairs"
        }
    }
}
