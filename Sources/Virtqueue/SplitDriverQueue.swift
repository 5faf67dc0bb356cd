public import GuestMemory
internal import VirtioSpec

/// One buffer to post: where the device sees it.
@frozen
public struct DriverBuffer: BitwiseCopyable, Sendable, Equatable {
    /// Address in the device's space.
    public var address: UInt64
    /// Length in bytes; must not be 0.
    public var length: UInt32
    /// The device writes it; otherwise it reads it.
    public var isWritable: Bool

    /// Describes a buffer.
    @_noLocks
    @inlinable
    public init(address: UInt64, length: UInt32, isWritable: Bool) {
        self.address = address
        self.length = length
        self.isWritable = isWritable
    }
}

/// One chain that the device gave back.
@frozen
public struct UsedChain: BitwiseCopyable, Sendable, Equatable {
    /// The head under which it was posted.
    public var head: UInt16
    /// Bytes the device says it wrote, at most those that were posted as writable (HI-A43).
    public var written: UInt32

    /// Describes a chain.
    @_noLocks
    @inlinable
    public init(head: UInt16, written: UInt32) {
        self.head = head
        self.written = written
    }
}

/// A running split virtqueue of which we are the driver (virtio 1.3 §2.7).
///
/// The device is not trusted: what was posted is remembered in private memory and the descriptor
/// table is only ever written (HI-A46). Heads are names for the posted chains; a caller keeps its
/// own state in an array indexed by them.
///
///     if let head = queue.post(DriverBuffer(address: a, length: 2048, isWritable: true)) { … }
///     queue.publish()
///     if queue.shouldNotifyDevice() { doorbell.ring() }
///     let count = queue.reap(into: chains, limit: 32)
@safe
public struct SplitDriverQueue: ~Copyable {
    // Safety: `areas` point into mappings that `memory` keeps; `shadow` is our own and has `size`
    // entries. Indices are masked, checked against `size`, or come from `shadow`.

    /// What is remembered of a descriptor. Packed into 8 bytes: one line holds eight.
    struct Shadow: BitwiseCopyable {
        /// Next descriptor of the chain or of the free list.
        var next: UInt16
        /// Descriptors of the chain when this is an outstanding head, otherwise 0.
        var count: UInt16
        /// Bytes posted as writable, for a head.
        var writable: UInt32
    }

    /// The set-up, as given.
    public let configuration: QueueConfiguration
    let memory: MemoryTable
    let areas: SplitRingAreas
    let shadow: UnsafeMutablePointer<Shadow>
    let size: UInt16
    let usesEventIndex: Bool
    let usesIndirect: Bool
    /// A used length beyond the posted bytes breaks the queue instead of being cut.
    let isStrict: Bool
    var freeHead: UInt16 = 0
    var freeCount: UInt16
    var nextAvailable: UInt16 = 0
    var publishedAvailable: UInt16 = 0
    var notifiedAvailable: UInt16 = 0
    var nextUsed: UInt16 = 0
    /// Chains that the device has.
    public internal(set) var outstanding: Int = 0
    /// Used lengths that were cut to what was posted (`ring/used-len`, HI-A43).
    public internal(set) var cutLengths: UInt64 = 0
    /// True once the queue broke; `fault` tells why.
    public internal(set) var isBroken = false
    /// Why the queue broke; `nil` while it runs.
    public internal(set) var fault: QueueFault?

    /// Checks and resolves the set-up, and clears both rings: the device must not be running yet.
    ///
    /// With `isStrict`, a device that claims to have written more than was posted breaks the queue.
    public init(
        _ configuration: QueueConfiguration,
        memory: MemoryTable,
        isStrict: Bool = false
    ) throws(QueueError) {
        unsafe areas = try SplitRingAreas(
            configuration,
            memory: memory,
            maximumSize: SplitRingLayout.maximumSize,
            side: .driver
        )
        self.configuration = configuration
        self.memory = memory
        self.isStrict = isStrict
        size = configuration.size
        usesEventIndex = configuration.features.contains(.eventIndex)
        usesIndirect = configuration.features.contains(.indirect)
        freeCount = configuration.size
        fault = nil
        unsafe shadow = .allocate(capacity: Int(configuration.size))
        for index in 0..<configuration.size {
            unsafe shadow[Int(index)] = Shadow(next: index &+ 1, count: 0, writable: 0)
        }
        unsafe SharedCell.storeRelaxed16(areas.available, 0)
        unsafe SharedCell.storeRelaxed16(areas.available + SplitRingLayout.indexOffset, 0)
    }

    deinit {
        unsafe shadow.deallocate()
    }

    /// Why the queue broke; `nil` while it runs.
    public var error: QueueError? { @_noLocks get { isBroken ? fault?.error : nil } }

    /// Descriptors that can be posted now.
    public var freeDescriptors: Int { isBroken ? 0 : Int(freeCount) }

    @_noLocks
    mutating func setFault(_ error: QueueError, head: UInt16, _ value: UInt64) {
        isBroken = true
        fault = QueueFault(error, head: head, value: value)
    }
}
