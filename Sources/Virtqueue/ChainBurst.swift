/// One piece of a buffer, translated: where it is mapped here and how long it is.
@frozen
@unsafe
public struct Segment: BitwiseCopyable {
    /// First byte.
    public var pointer: UnsafeMutableRawPointer
    /// Length in bytes, never 0.
    public var length: UInt32

    /// Names a run of mapped bytes.
    @_noLocks
    @inlinable
    public init(pointer: UnsafeMutableRawPointer, length: UInt32) {
        unsafe self.pointer = unsafe pointer
        unsafe self.length = length
    }
}

/// One descriptor chain, or the packet in it: a run of segments of a burst.
@frozen
public struct BurstEntry: BitwiseCopyable {
    /// Index of the first segment in the burst.
    public var firstSegment: UInt32
    /// Number of segments, at most 65,535.
    public var segmentCount: UInt16
    /// How often its bytes were copied on the way into this burst: 0 for a packet that lies in its
    /// peer's memory still, 1 for one that the kernel gave us.
    public var copies: UInt16
    /// Bytes over all segments.
    public var byteCount: UInt32
    /// Head index of the chain on its ring.
    public var head: UInt16
    /// 1 when the packet is to be passed over (dropped), 0 when it is good.
    public var isDropped: UInt16

    /// Describes a chain.
    @_noLocks
    @inlinable
    public init(
        firstSegment: UInt32,
        segmentCount: UInt16,
        byteCount: UInt32,
        head: UInt16,
        copies: UInt16 = 0
    ) {
        self.firstSegment = firstSegment
        self.segmentCount = segmentCount
        self.byteCount = byteCount
        self.head = head
        isDropped = 0
        self.copies = copies
    }
}

/// Room for one burst of chains and their segments, allocated once per worker.
///
/// Entries and segments are private copies: what the other party changes in its descriptors after
/// they were taken has no effect (HI-A18). The bytes they point to stay in the other's memory.
@safe
public struct ChainBurst: ~Copyable {
    // Safety: both arrays are allocated in init and freed in deinit; indices are produced by this
    // project's own loops and stay below the two capacities.
    /// The chains; `count` of them are valid.
    @unsafe public let entries: UnsafeMutablePointer<BurstEntry>
    /// The segments of all chains.
    @unsafe public let segments: UnsafeMutablePointer<Segment>
    /// Valid entries.
    public var count: Int = 0
    /// Segments in use.
    public var segmentCount: Int = 0
    /// Most segments.
    public let segmentCapacity: Int

    /// Most chains in a burst (perf: 32 hides the line transfers, more gains nothing).
    @inlinable public static var capacity: Int { @_noLocks get { 32 } }

    /// Makes room for 32 chains; one chain of `longestChain` segments always fits.
    public init(longestChain: Int = 32768) {
        segmentCapacity = longestChain + 512
        precondition(segmentCapacity <= UInt16.max, "an entry counts its segments in 16 bits")
        unsafe entries = .allocate(capacity: ChainBurst.capacity)
        unsafe segments = .allocate(capacity: segmentCapacity)
    }

    deinit {
        unsafe entries.deallocate()
        unsafe segments.deallocate()
    }

    /// Forgets all entries.
    @inlinable
    @inline(__always)
    public mutating func clear() {
        count = 0
        segmentCount = 0
    }
}
