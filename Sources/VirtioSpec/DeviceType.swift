/// A virtio device type (virtio 1.3 §5), and the PCI device id that follows from it.
public struct DeviceType: Hashable, Sendable, CustomStringConvertible {
    /// The number; 0 is invalid.
    public let rawValue: UInt32

    /// Any number, also one this project does not know.
    public init(_ rawValue: UInt32) {
        self.rawValue = rawValue
    }

    /// Network device.
    public static let net = DeviceType(1)
    /// Our management device; not registered with anybody, hence configurable.
    public static let management = DeviceType(62)
    /// Our vhost-pci-net device; not registered with anybody, hence configurable.
    public static let vhostPCINet = DeviceType(63)

    /// PCI device id of the non-transitional function (virtio 1.3 §4.1.2.1), or `nil` when the type
    /// has none below 0x1080.
    public var pciDeviceID: UInt16? {
        guard rawValue >= 1, rawValue <= 63 else { return nil }
        return 0x1040 + UInt16(rawValue)
    }

    /// The name for people.
    public var description: String {
        switch self {
        case .net: "virtio-net"
        case .management: "management"
        case .vhostPCINet: "vhost-pci-net"
        default: "virtio type \(rawValue)"
        }
    }
}
