public import HostSystem

/// The queue pairs of one peer on their way from the control thread to a worker: handed over once.
///
///     var pairs = PortPairs()
///     pairs.append(port)
///     try engine.attach(id, pairs: pairs, memory: table)
@safe
public struct PortPairs: ~Copyable {
    // Safety: `storage` has room for `limit` pairs, of which the first `count` are initialised;
    // they leave with `release` or are destroyed in deinit.
    /// Most queue pairs of one port.
    public static var limit: Int { 64 }

    private let storage: UnsafeMutablePointer<PeerPort>
    /// Pairs, one bit each, into whose receive ring packets may be put.
    private(set) var receiveEnabled: UInt64 = 0
    /// Pairs, one bit each, whose transmit ring is forwarded; of the others, packets are discarded.
    private(set) var transmitEnabled: UInt64 = 0
    /// Pairs so far. More than `limit` are counted here and refused at `attach`.
    public private(set) var count = 0

    /// Readable when the peer kicked; a worker that sleeps waits for them and takes their counts.
    private(set) var wakeups: [EventFD] = []

    /// No pair yet.
    public init() {
        unsafe storage = .allocate(capacity: PortPairs.limit)
    }

    /// One pair with both rings enabled.
    public init(_ port: consuming PeerPort) {
        self.init()
        append(port)
    }

    deinit {
        unsafe storage.deinitialize(count: min(count, PortPairs.limit))
        unsafe storage.deallocate()
    }

    /// Adds a pair. A ring that is started and not enabled (VU-R-04) is worked all the same: what
    /// the peer transmits is discarded, and nothing is put into its receive ring.
    ///
    /// `wakeup` becomes readable when the peer kicks its transmit ring. Without it, whoever sees
    /// the kick calls `Engine.wake`. Nobody else may read it while the pair is attached.
    public mutating func append(
        _ port: consuming PeerPort,
        isReceiveEnabled: Bool = true,
        isTransmitEnabled: Bool = true,
        wakeup: EventFD? = nil
    ) {
        if count < PortPairs.limit {
            unsafe (storage + count).initialize(to: port)
            if isReceiveEnabled { receiveEnabled |= 1 << UInt64(count) }
            if isTransmitEnabled { transmitEnabled |= 1 << UInt64(count) }
            if let wakeup { wakeups.append(wakeup) }
        }
        count += 1
    }

    /// Moves all pairs to `target`, which has room for them; none is left here.
    @unsafe
    mutating func release(to target: UnsafeMutablePointer<PeerPort>) {
        unsafe target.moveInitialize(from: storage, count: count)
        count = 0
    }
}
