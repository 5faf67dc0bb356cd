public import Virtio
public import VirtioSpec

/// What may be chosen when a network device is made.
public struct NetDeviceOptions: Sendable {
    /// Its own address: six bytes, unicast.
    public var macAddress: [UInt8]
    /// Longest packet without Ethernet header, for drivers that ask; `nil` leaves it open.
    public var mtu: UInt16?
    /// Queue pairs, 1 … 64.
    public var queuePairs: Int
    /// Most entries of a ring, a power of two.
    public var ringSize: UInt16
    /// Offers VIRTIO_F_ACCESS_PLATFORM, without which a driver behind an IOMMU gives addresses that
    /// nobody can reach.
    public var offersAccessPlatform: Bool

    /// One queue pair of 256 entries, for any driver.
    public init(
        macAddress: [UInt8],
        mtu: UInt16? = 1500,
        queuePairs: Int = 1,
        ringSize: UInt16 = 256,
        offersAccessPlatform: Bool = true
    ) {
        self.macAddress = macAddress
        self.mtu = mtu.map { max(NetConfiguration.leastMTU, $0) }
        self.queuePairs = min(max(1, queuePairs), 64)
        let size = min(max(2, ringSize), 32768)
        self.ringSize = UInt16(1) << UInt16(15 - size.leadingZeroBitCount)
        self.offersAccessPlatform = offersAccessPlatform
    }
}

/// What a network device reports, for step lines.
public enum NetDeviceEvent: Sendable, Equatable, CustomStringConvertible {
    /// The driver set DRIVER_OK: the features that it took.
    case running(features: FeatureBits)
    /// So many rings are worked.
    case attached(rings: Int)
    /// No ring is worked any more.
    case detached
    /// The rings are out of reach since the driver's memory changed; they are waited for.
    case waiting(DeviceFault)
    /// Something was refused: the stable id, and what it was.
    case refused(id: String, detail: String)
    /// The device asks its driver for a reset.
    case failed(DeviceFault)
    /// The driver reset the device, or its machine is gone.
    case stopped

    /// One line for people.
    public var description: String {
        switch self {
        case .running(let features):
            "driver ready, features 0x" + String(features.rawValue, radix: 16)
        case .attached(let rings): "\(rings) rings attached"
        case .detached: "rings detached"
        case .waiting(let fault): "waiting for memory: \(fault)"
        case .refused(let id, let detail): "\(id): \(detail)"
        case .failed(let fault): "device/needs-reset: \(fault)"
        case .stopped: "stopped"
        }
    }
}
