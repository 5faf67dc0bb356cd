public import VirtioSpec
public import Virtqueue

/// Who moves packets for a vhost-pci-net driver, between ON and OFF: the host is asked again for what
/// it did not let go of, and OFF is never acknowledged before.
public protocol VhostPCINetHost: PeerConnectionHost {
    /// Something worth a line happened.
    func driverReport(_ event: DriverEvent)
}

/// What a driver of a vhost-pci-net device reports.
public enum DriverEvent: Sendable, Equatable, CustomStringConvertible {
    /// The device is driven: its features, and the address made up for the interface.
    case ready(features: FeatureBits, address: LocalMACAddress)
    /// The device told where the peer's memory is, and the window is mapped.
    case memory(regions: Int, bytes: UInt64, generation: UInt32)
    /// ON was taken: that many rings are usable.
    case connected(rings: Int, generation: UInt32)
    /// OFF was taken, and answered.
    case disconnected
    /// A message or a queue was refused; the connection is as before.
    case refused(Refusal)
    /// The device asks for a reset; it was stopped and reset (VPN-M-17).
    case needsReset
    /// The device is dead (VPN-M-18): everything stopped, nothing was waited for.
    case deviceGone
    /// The device could not be driven.
    case failed(String)
    /// The driver has let go of the device.
    case stopped

    /// One line for people.
    public var description: String {
        switch self {
        case .ready(let features, let address):
            "ready, features \(features.rawValue.hexadecimal), address \(address)"
        case .memory(let regions, let bytes, let generation):
            "table \(generation): \(regions) regions, \(bytes) bytes"
        case .connected(let rings, let generation): "ON, table \(generation), \(rings) rings"
        case .disconnected: "OFF"
        case .refused(let refusal): "\(refusal)"
        case .needsReset: "device/needs-reset"
        case .deviceGone: "pci/device-gone"
        case .failed(let why): why
        case .stopped: "stopped"
        }
    }
}
