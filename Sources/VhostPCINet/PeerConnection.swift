public import GuestMemory
public import HostSystem
public import VirtioSpec
public import Virtqueue

/// One ring of a peer, ready to be worked on as its device.
public struct PeerRingSetup: Sendable {
    /// Peer virtqueue index: even receive, odd transmit.
    public let index: Int
    /// The peer transmits on it, so we receive from it (VPN-M-08).
    public let isPeerTransmit: Bool
    /// Enabled: packets may go over it. While not, nothing is delivered to it, and what it transmits
    /// is dropped (VU-R-04).
    public let isEnabled: Bool
    /// Started: the ring may be touched at all.
    public let isStarted: Bool
    /// Addresses in the peer's memory, all inside the connection's table, and where to start.
    public let configuration: QueueConfiguration
    /// Interrupts the peer's driver.
    public let doorbell: Doorbell
    /// Readable when the peer kicked the ring; only for rings that the peer transmits on.
    public let wakeup: EventFD?

    /// Describes a ring.
    public init(
        index: Int,
        isPeerTransmit: Bool,
        isEnabled: Bool,
        isStarted: Bool,
        configuration: QueueConfiguration,
        doorbell: Doorbell,
        wakeup: EventFD? = nil
    ) {
        self.index = index
        self.isPeerTransmit = isPeerTransmit
        self.isEnabled = isEnabled
        self.isStarted = isStarted
        self.configuration = configuration
        self.doorbell = doorbell
        self.wakeup = wakeup
    }
}

/// What the driver may work on between ON and OFF.
public struct PeerConnection: Sendable {
    /// Peer address (GPA) to address in the window. Whoever works on a ring keeps it.
    public let memory: MemoryTable
    /// What the peer agreed to; the ring features in each configuration follow from it.
    public let features: FeatureBits
    /// The usable rings, ascending by index. A pair with a ring that cannot be used is left out.
    public let rings: [PeerRingSetup]
    /// Number of the table.
    public let generation: UInt32

    /// Describes a connection.
    public init(
        memory: MemoryTable,
        features: FeatureBits,
        rings: [PeerRingSetup],
        generation: UInt32
    ) {
        self.memory = memory
        self.features = features
        self.rings = rings
        self.generation = generation
    }
}

/// Who moves packets once a peer is connected. Calls come from the control thread.
public protocol PeerConnectionHost: AnyObject {
    /// ON: memory and rings may be touched.
    func peerConnected(_ connection: PeerConnection)

    /// OFF: makes every thread let go of the window, and waits for it, but not longer than so many
    /// milliseconds.
    ///
    /// - Returns: true when no thread touches the window any more; false when one may. It is then
    ///   asked again, for what was never acknowledged, until it says true.
    func peerDisconnecting(milliseconds: UInt64) -> Bool

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
