public import GuestMemory
internal import VirtioSpec

/// A running split virtqueue of which we are the device (virtio 1.3 §2.7).
///
/// The driver is not trusted: the available index, heads and descriptors are each fetched once into
/// locals and checked there. The first violation breaks the queue: it takes and returns nothing
/// from then on, and only a new queue (after a reset) revives it. Chains are returned in the order
/// of the calls; packets always in the order in which they were taken.
///
///     var queue = try SplitDeviceQueue(configuration, memory: table)
///     var burst = ChainBurst()
///     let taken = queue.takeReadable(into: &burst, limit: 32)
///     // … use the segments …
///     queue.releaseTaken(burst)
///     if queue.shouldNotifyDriver() { doorbell.ring() }
@safe
public struct SplitDeviceQueue: ~Copyable {
    // Safety: `areas` and `view` point into mappings that `memory` keeps; `scratch` is our own
    // and holds `size` descriptors. Every index into an area is masked or checked against `size`.
    /// The set-up, as given.
    public let configuration: QueueConfiguration
    var memory: MemoryTable
    var view: MemoryView
    var areas: SplitRingAreas
    /// The region in which the last readable buffer lay: the next is likely to lie there, too.
    var readRegion: MemoryRegion
    /// The same for writable buffers.
    var writeRegion: MemoryRegion
    /// Private copy of an indirect table while it is walked (HI-C11); absent without the feature.
    let scratch: UnsafeMutableRawPointer?
    /// Pieces of the buffers that one packet is spread over, and a slot for its header.
    let targets: UnsafeMutablePointer<Segment>
    /// Chains that a delivery has looked at.
    let plain: UnsafeMutablePointer<PlainTarget>
    let size: UInt16
    /// EVENT_IDX was negotiated.
    let usesEventIndex: Bool

    /// The next available entry to take (vhost-user GET_VRING_BASE).
    public internal(set) var nextAvailable: UInt16
    /// The available index as last read and checked: never behind `nextAvailable`.
    var knownAvailable: UInt16
    /// Where the next used element goes.
    var nextUsed: UInt16
    /// The used index that the driver can see.
    var publishedUsed: UInt16
    /// The used index at the last decision on a notification.
    var notifiedUsed: UInt16
    /// False until the first decision: the first one always notifies under EVENT_IDX, because the
    /// driver's `used_event` may predate this device.
    var hasNotified = false
    /// Descriptors that deliveries may still walk over before the next publication: what a driver
    /// posts decides how far a walk is, and others wait for its end (HI-C14, R3).
    var walkBudget: Int
    /// Segments of length 0 that were passed over (HI-A11).
    public internal(set) var skippedSegments: UInt64 = 0
    /// The one bit of `fault` that the packet path looks at.
    public internal(set) var isBroken = false
    /// Why the queue broke; `nil` while it runs.
    public internal(set) var fault: QueueFault?

    /// Checks and resolves the set-up.
    ///
    /// The used index is read from memory (VU-R-06). When it lags behind `nextAvailable` by chains
    /// that a device before us took and never returned, these are taken again.
    public init(
        _ configuration: QueueConfiguration,
        memory: MemoryTable,
        maximumSize: UInt16 = 32768
    ) throws(QueueError) {
        unsafe areas = try SplitRingAreas(
            configuration,
            memory: memory,
            maximumSize: maximumSize,
            side: .device
        )
        self.configuration = configuration
        self.memory = memory
        unsafe view = memory.view
        unsafe readRegion = MemoryRegion(empty: areas.used)
        writeRegion = readRegion
        size = configuration.size
        usesEventIndex = configuration.features.contains(.eventIndex)
        unsafe scratch =
            configuration.features.contains(.indirect)
            ? .allocate(byteCount: 16 * Int(configuration.size), alignment: 16) : nil
        unsafe targets = .allocate(capacity: Self.mostTargets + 1)
        unsafe plain = .allocate(capacity: ChainBurst.capacity)
        let used = unsafe SharedCell.loadRelaxed16(areas.used + SplitRingLayout.indexOffset)
        let isBehind = configuration.nextAvailable &- used <= configuration.size
        let start = isBehind ? used : configuration.nextAvailable
        nextAvailable = start
        knownAvailable = start
        nextUsed = start
        publishedUsed = start
        notifiedUsed = start
        walkBudget = Self.mostWalked(size)
        fault = nil
    }

    /// A queue that is not there: nothing ever arrives on it, and it takes nothing. It is a ring of
    /// one entry in private zeroed memory, so that no packet path has to ask.
    public static var absent: SplitDeviceQueue { SplitDeviceQueue() }

    private init() {
        let zeroes = UnsafeMutableRawPointer.allocate(byteCount: 64, alignment: 16)
        unsafe zeroes.initializeMemory(as: UInt64.self, repeating: 0, count: 8)
        unsafe areas = SplitRingAreas(absent: zeroes)
        configuration = QueueConfiguration(
            size: 1,
            descriptorArea: 0,
            driverArea: 0,
            deviceArea: 0
        )
        memory = .empty
        unsafe view = memory.view
        unsafe readRegion = MemoryRegion(empty: zeroes)
        writeRegion = readRegion
        size = 1
        usesEventIndex = false
        unsafe scratch = unsafe zeroes
        unsafe targets = .allocate(capacity: Self.mostTargets + 1)
        unsafe plain = .allocate(capacity: ChainBurst.capacity)
        nextAvailable = 0
        knownAvailable = 0
        nextUsed = 0
        publishedUsed = 0
        notifiedUsed = 0
        walkBudget = Self.mostWalked(1)
        fault = nil
    }

    private var isAbsent: Bool { unsafe scratch == areas.descriptors }

    deinit {
        unsafe scratch?.deallocate()
        unsafe targets.deallocate()
        unsafe plain.deallocate()
    }

    /// Why the queue broke; `nil` while it runs.
    public var error: QueueError? { @_noLocks get { isBroken ? fault?.error : nil } }

    /// Chains taken and not yet returned to the driver's sight.
    public var inFlight: Int { Int(nextAvailable &- publishedUsed) }

    @_noLocks
    mutating func setFault(_ reason: QueueFault) {
        isBroken = true
        fault = reason
    }

    /// Something was published since the last decision on a notification.
    public var hasUnnotified: Bool { @_noLocks get { notifiedUsed != publishedUsed } }

    /// Stops the queue with what a walk found.
    @_noLocks
    mutating func breakQueue(_ cursor: ChainCursor) {
        isBroken = true
        unsafe fault = cursor.fault
    }

    /// Stops the queue for good; the first reason stays.
    @_noLocks
    public mutating func breakQueue(_ reason: QueueFault) {
        if !isBroken { setFault(reason) }
    }

    /// Resolves the areas anew in another table (a changed memory map); chains in flight stay so. From
    /// then on nothing of the table before is used. Throws, and changes nothing, where the areas are
    /// out of reach. An absent queue has no areas.
    public mutating func rebind(to memory: MemoryTable) throws(QueueError) {
        guard !isAbsent else { return }
        unsafe areas = try SplitRingAreas(
            configuration,
            memory: memory,
            maximumSize: SplitRingLayout.maximumSize,
            side: .device
        )
        unsafe view = memory.view
        unsafe readRegion = MemoryRegion(empty: areas.used)
        writeRegion = readRegion
        self.memory = memory
    }

    /// Chains that can be taken now, at most `limit`; reads the available index only when those
    /// known of do not suffice. Breaks the queue on a jump (HI-A1, HI-A2, HI-A21).
    @_noLocks
    @inline(__always)
    mutating func availableChains(_ limit: Int) -> Int {
        guard !isBroken else { return 0 }
        var pending = Int(knownAvailable &- nextAvailable)
        if pending < limit {
            // Acquire: descriptors that the index announces are read behind it (VPN-M-11).
            let index = unsafe SharedCell.loadAcquire16(
                areas.available + SplitRingLayout.indexOffset
            )
            let now = Int(index &- nextAvailable)
            // Behind what was announced before means that the driver took chains back.
            guard now >= pending, now <= Int(size) else {
                setFault(QueueFault(.availableJump, value: UInt64(index)))
                return 0
            }
            guard now + Int(nextAvailable &- publishedUsed) <= Int(size) else {
                setFault(QueueFault(.inFlight, value: UInt64(index)))
                return 0
            }
            knownAvailable = index
            pending = now
        }
        return min(pending, limit)
    }

    /// The head in available slot `index`, not checked yet.
    @_noLocks
    @inline(__always)
    func fetchHead(_ index: UInt16) -> UInt16 {
        let slot = Int(index & (size &- 1))
        return unsafe SharedCell.loadRelaxed16(
            areas.available + (SplitRingLayout.ringOffset + 2 * slot)
        )
    }

    /// Writes the next used element; the driver sees it with the next `publishUsed`.
    @_noLocks
    @inline(__always)
    mutating func writeUsed(head: UInt16, written: UInt32) {
        let slot = Int(nextUsed & (size &- 1))
        let element = unsafe areas.used + (SplitRingLayout.ringOffset + 8 * slot)
        unsafe SharedCell.storeRelaxed32(element, UInt32(head))
        unsafe SharedCell.storeRelaxed32(element + 4, written)
        nextUsed = nextUsed &+ 1
    }

    /// Shows the driver all used elements written so far, with one release store (VPN-M-11).
    @_noLocks
    @inline(__always)
    mutating func publishUsed() {
        guard !isBroken, nextUsed != publishedUsed else { return }
        unsafe SharedCell.storeRelease16(areas.used + SplitRingLayout.indexOffset, nextUsed)
        publishedUsed = nextUsed
    }
}
