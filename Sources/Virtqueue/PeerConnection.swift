public import GuestMemory
public import HostSystem
public import VirtioSpec

/// One ring of another machine's network device, ready to be worked on as its device.
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

/// What may be worked on of another machine: its memory and the rings of its network device.
public struct PeerConnection: Sendable {
    /// The peer's addresses to addresses here. Whoever works on a ring keeps it.
    public internal(set) var memory: MemoryTable
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

    /// The same rings in another table; `nil` where one of them is out of reach in it.
    public func moved(to table: MemoryTable) -> PeerConnection? {
        for ring in rings where ring.isStarted {
            guard (try? ring.configuration.check(in: table)) != nil else { return nil }
        }
        var copy = self
        copy.memory = table
        return copy
    }
}

/// Why rings that were handed over are worked by nobody.
public struct PeerConnectionFailure: Error, Sendable, Equatable, CustomStringConvertible {
    /// The stable error id.
    public let id: String
    /// What failed.
    public let detail: String

    /// Describes a failure.
    public init(_ id: String, _ detail: String) {
        self.id = id
        self.detail = detail
    }

    /// One line for people.
    public var description: String { "\(id): \(detail)" }
}

/// Who moves packets once rings can be worked. Calls come from the control thread.
public protocol PeerConnectionHost: AnyObject {
    /// Memory and rings may be touched. Where this throws nobody is going to, and the rings are given
    /// back; they may be handed over again.
    func peerConnected(_ connection: PeerConnection) throws(PeerConnectionFailure)

    /// Makes every thread let go of memory and rings, and waits for it, but not longer than so many
    /// milliseconds.
    ///
    /// - Returns: true when no thread touches them any more; false when one may. It is then asked
    ///   again, until it says true.
    func peerDisconnecting(milliseconds: UInt64) -> Bool

    /// The table is another one, in which all rings lie where they lay. True when no thread uses the one
    /// before any more; false when the host cannot do that, and has to be asked to let go.
    func peerMemoryChanged(_ memory: MemoryTable, milliseconds: UInt64) -> Bool

    /// Queue pairs whose rings broke, and are worked no more, with the error id. Asked now and then
    /// by whoever can tell the driver.
    var brokenPairs: [Int: String] { get }
}

extension PeerConnectionHost {
    /// It cannot.
    public func peerMemoryChanged(_ memory: MemoryTable, milliseconds: UInt64) -> Bool { false }

    /// Nobody says.
    public var brokenPairs: [Int: String] { [:] }
}
