/// The device status byte (virtio 1.3 §2.1).
public struct DeviceStatus: OptionSet, Hashable, Sendable, CustomStringConvertible {
    /// The byte.
    public let rawValue: UInt8

    /// Takes the byte as it is.
    public init(rawValue: UInt8) {
        self.rawValue = rawValue
    }

    /// The driver has found the device.
    public static let acknowledge = DeviceStatus(rawValue: 1)
    /// The driver knows how to drive it.
    public static let driver = DeviceStatus(rawValue: 2)
    /// The driver is ready.
    public static let driverOK = DeviceStatus(rawValue: 4)
    /// Feature negotiation is done.
    public static let featuresOK = DeviceStatus(rawValue: 8)
    /// A virtual device's address translation failed (virtual-device transport RFC).
    public static let mmuFail = DeviceStatus(rawValue: 32)
    /// The device met an error it cannot recover from without a reset.
    public static let needsReset = DeviceStatus(rawValue: 64)
    /// The driver has given up.
    public static let failed = DeviceStatus(rawValue: 128)

    /// Bits that the device owns: what a driver writes there is ignored (AVQ-D-312).
    public static let deviceOwned: DeviceStatus = [.mmuFail, .needsReset]

    /// Names of the set bits.
    public var description: String {
        let names: [(DeviceStatus, String)] = [
            (.acknowledge, "ACKNOWLEDGE"), (.driver, "DRIVER"), (.featuresOK, "FEATURES_OK"),
            (.driverOK, "DRIVER_OK"), (.mmuFail, "DEVICE_MMU_FAIL"),
            (.needsReset, "DEVICE_NEEDS_RESET"), (.failed, "FAILED"),
        ]
        let set = names.filter { contains($0.0) }.map(\.1)
        return set.isEmpty ? "RESET" : set.joined(separator: "|")
    }
}
