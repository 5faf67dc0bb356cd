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
    /// Block device.
    public static let block = DeviceType(2)
    /// Console.
    public static let console = DeviceType(3)
    /// Traditional memory balloon.
    public static let balloon = DeviceType(5)
    /// SCSI host.
    public static let scsi = DeviceType(8)
    /// Graphics.
    public static let gpu = DeviceType(16)
    /// Socket device (vsock).
    public static let socket = DeviceType(19)
    /// File system.
    public static let fileSystem = DeviceType(26)
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
    public var description: String { Self.names[rawValue] ?? "virtio type \(rawValue)" }

    // virtio 1.3 §5, in the words that drivers use; 62 and 63 are ours.
    private static let names: [UInt32: String] = [
        1: "virtio-net", 2: "virtio-blk", 3: "virtio-console", 4: "virtio-rng",
        5: "virtio-balloon", 8: "virtio-scsi", 9: "virtio-9p", 16: "virtio-gpu",
        17: "virtio-clock", 18: "virtio-input", 19: "virtio-vsock", 20: "virtio-crypto",
        23: "virtio-iommu", 24: "virtio-mem", 25: "virtio-sound", 26: "virtio-fs",
        27: "virtio-pmem", 28: "virtio-rpmb", 32: "virtio-scmi", 33: "virtio-nitro-secmod",
        34: "virtio-i2c", 35: "virtio-watchdog", 36: "virtio-can", 38: "virtio-parameter-server",
        39: "virtio-audio-policy", 40: "virtio-bluetooth", 41: "virtio-gpio",
        62: "management", 63: "vhost-pci-net",
    ]
}
