/// What an engine has done, from its start to one moment: totals that survive a peer's coming and
/// going.
public struct EngineReport: Sendable {
    /// Packets one way.
    public struct Traffic: Sendable, Equatable {
        /// Frames.
        public var packets: UInt64 = 0
        /// Their bytes, without virtio-net header.
        public var bytes: UInt64 = 0
    }

    /// One polling thread.
    public struct Worker: Sendable {
        /// CPU it is bound to.
        public var core: Int
        /// NUMA node of that CPU.
        public var node: Int
        /// Time-stamp cycles of turns that moved packets.
        public var busyCycles: UInt64
        /// Time-stamp cycles of turns that moved none, sleep included.
        public var idleCycles: UInt64
        /// Turns over all its ports.
        public var turns: UInt64
        /// Turns that moved no packet.
        public var emptyPolls: UInt64
        /// Times it slept.
        public var sleeps: UInt64
    }

    /// A ring that was broken by what its driver wrote.
    public struct RingError: Sendable, Equatable {
        /// Queue pair.
        public var pair: Int
        /// Error id, such as `ring/loop`.
        public var id: String
    }

    /// One port. Directions are ours: received is what we took from it.
    public struct Port: Sendable {
        /// The port.
        public var id: PortID
        /// Its name.
        public var name: String
        /// What stands behind it.
        public var kind: PortKind
        /// True while its rings or its interface are attached.
        public var isAttached: Bool
        /// Times it was attached.
        public var connections: Int
        /// Why the last attempt to attach it failed; `nil` since one succeeded.
        public var failure: String?
        /// Attempts to attach it that failed.
        public var attachFailures: UInt64 = 0
        /// CPU of the worker that serves it.
        public var core: Int?
        /// NUMA node of the peer's memory, where known; another than the worker's costs speed.
        public var memoryNode: Int?
        /// Good packets taken from it.
        public var received = Traffic()
        /// Packets put into it.
        public var transmitted = Traffic()
        /// Of `received`: those that a sink or source took in.
        public var consumed: UInt64 = 0
        /// How often the bytes of the packets that were transmitted or consumed here were copied on
        /// their way, all together; a copy that the kernel makes at a TAP interface counts.
        public var copies: UInt64 = 0
        /// Of `transmitted`: frames that a source made.
        public var generated: UInt64 = 0
        /// Copies of `received` packets beyond the first, made because their destination was
        /// everybody or unknown.
        public var floodCopies: UInt64 = 0
        /// Source addresses that found no room in the switch's table.
        public var unlearnedAddresses: UInt64 = 0
        /// Packets not delivered, by error id: at their destination where they had one, otherwise
        /// at their source.
        public var drops: [String: UInt64] = [:]
        /// Notifications given to the peer.
        public var kicksSent: UInt64 = 0
        /// Notifications that the peer spared us.
        public var kicksSuppressed: UInt64 = 0
        /// Notifications that were not needed: the peer's counter was full (HI-D25).
        public var notifyFull: UInt64 = 0
        /// Receive buffers of which a device claimed to have filled more than there was; the length
        /// was cut (`ring/used-len`, HI-A43).
        public var cutLengths: UInt64 = 0
        /// Packets of `transmitted` that a device had not said to be done with when its port was
        /// taken away: they may be on the wire or not (HI-A48).
        public var unfinished: UInt64 = 0
        /// The first broken ring of the present attachment.
        public var ringError: RingError?
        /// Attachments so far that ended, or rest, with a ring broken, by error id.
        public var ringErrors: [String: UInt64] = [:]
        /// Queue pairs with a broken ring; neither of their rings is worked on any more.
        public var brokenPairs: [Int] = []
        /// The interface of a TAP port was deleted (`tap/gone`).
        public var isGone = false
        /// How long the port has taken no packet that was for it (`peer/stalled`); `nil` when it
        /// takes them.
        public var stalledNanoseconds: UInt64?
        /// Drops of packets that were received or generated first.
        var forwardingDrops: UInt64 = 0
    }

    /// What the workers do.
    public var mode: ForwardingMode
    /// Rate of all cycle counts.
    public var cyclesPerSecond: UInt64
    /// One for each core.
    public var workers: [Worker]
    /// One for each port, in the order they were added.
    public var ports: [Port]

    /// What was done at a port; `nil` for one that was removed.
    public func port(_ id: PortID) -> Port? {
        if ports.indices.contains(id.index), ports[id.index].id == id { return ports[id.index] }
        return ports.first { $0.id == id }
    }

    /// Received packets that are neither delivered, consumed nor dropped by name. 0 once traffic
    /// has ended, if no port was removed; while it flows, ports are read some turns apart.
    public var unaccounted: Int64 {
        var balance: Int64 = 0
        for port in ports {
            let arrived = port.received.packets &+ port.floodCopies &+ port.generated
            let left = port.transmitted.packets &+ port.consumed &+ port.forwardingDrops
            balance &+= Int64(bitPattern: arrived &- left)
        }
        return balance
    }
}
