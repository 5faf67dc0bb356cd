public import GuestMemory
internal import HostSystem
public import VirtioSpec
public import Virtqueue

/// The memory of one split ring, and the hands of a driver that may do anything to it.
///
/// Ring areas lie at the start of the first region, buffers wherever a test puts them. Nothing here
/// checks anything: that is the subject's work.
@safe
public final class SplitRingRig {
    /// A region to lay down: where the driver sees it, how long, and who may write.
    public struct Area {
        let start: UInt64
        let size: Int
        let access: MemoryAccess

        /// Describes a region.
        public init(_ start: UInt64, _ size: Int, _ access: MemoryAccess = .readWrite) {
            self.start = start
            self.size = size
            self.access = access
        }
    }

    /// Where the default region starts.
    public static let base: UInt64 = 0x10_0000
    /// Where buffers can start in the default region: behind the areas of the largest ring.
    public static let buffers: UInt64 = base + 0x10_0000

    /// The set-up of the ring.
    public let configuration: QueueConfiguration
    /// The memory as the device sees it.
    public let table: MemoryTable
    /// The available index as the driver would go on from it.
    public var available: UInt16

    private let mappings: [(start: UInt64, mapping: Mapping)]

    /// Lays regions down, each in a mapping of its own, and a ring at the first one's start.
    public init(
        size: UInt16 = 8,
        features: QueueFeatures = [],
        areas: [Area] = [Area(base, 0x30_0000)],
        start: UInt16 = 0
    ) throws {
        let first = areas[0].start
        let descriptors = UInt64(SplitRingLayout.descriptorAreaSize(size))
        let driver = UInt64(SplitRingLayout.driverAreaSize(size))
        configuration = QueueConfiguration(
            size: size,
            descriptorArea: first,
            driverArea: first + descriptors,
            deviceArea: (first + descriptors + driver + 63) & ~63,
            nextAvailable: start,
            features: features
        )
        available = start
        var mappings: [(start: UInt64, mapping: Mapping)] = []
        var regions: [MemoryRegion] = []
        for area in areas {
            let mapping = try Mapping.anonymous(length: area.size)
            mappings.append((area.start, mapping))
            let region = unsafe MemoryRegion(
                start: area.start,
                size: UInt64(area.size),
                host: mapping.address,
                access: area.access
            )
            if let region { regions.append(region) }
        }
        self.mappings = mappings
        table = try MemoryTable(regions, owners: mappings.map(\.mapping))
        storeIndex(start)
        store16(configuration.deviceArea + 2, start)
    }

    /// Both rings as a driver lays them down anew: empty, from `start` on.
    public func reset(start: UInt16 = 0) {
        unsafe pointer(configuration.driverArea).initializeMemory(
            as: UInt8.self,
            repeating: 0,
            count: SplitRingLayout.driverAreaSize(configuration.size)
        )
        unsafe pointer(configuration.deviceArea).initializeMemory(
            as: UInt8.self,
            repeating: 0,
            count: SplitRingLayout.deviceAreaSize(configuration.size)
        )
        available = start
        storeIndex(start)
        usedIndex = start
    }

    /// Where an address is mapped; only for addresses inside one region.
    @unsafe
    public func pointer(_ address: UInt64) -> UnsafeMutableRawPointer {
        for (start, mapping) in mappings where address >= start {
            if address - start < UInt64(mapping.length) {
                return unsafe mapping.address + Int(address - start)
            }
        }
        preconditionFailure("a test looks outside its own memory")
    }

    /// Writes a descriptor of the ring's table.
    public func setDescriptor(_ index: Int, _ descriptor: SplitDescriptor) {
        setEntry(configuration.descriptorArea + 16 * UInt64(index), descriptor)
    }

    /// Writes a descriptor anywhere, at any alignment.
    public func setEntry(_ address: UInt64, _ descriptor: SplitDescriptor) {
        unsafe pointer(address).storeBytes(of: descriptor.address, as: UInt64.self)
        unsafe pointer(address + 8).storeBytes(of: descriptor.high, as: UInt64.self)
    }

    /// Puts a head into the next available slot and shows it.
    public func offer(_ head: UInt16) {
        setSlot(available, head)
        available = available &+ 1
        storeIndex(available)
    }

    /// Writes one buffer into descriptor `head` and offers it.
    public func offer(_ head: UInt16, _ address: UInt64, _ length: UInt32, flags: UInt16 = 0) {
        setDescriptor(Int(head), SplitDescriptor(address: address, length: length, flags: flags))
        offer(head)
    }

    /// Writes a chain of buffers into the descriptors from `head` on and offers it.
    public func offerChain(_ head: UInt16, _ buffers: [SplitDescriptor]) {
        for (index, buffer) in buffers.enumerated() {
            var descriptor = buffer
            let at = head &+ UInt16(index)
            if index + 1 < buffers.count {
                descriptor.flags |= SplitDescriptor.nextFlag
                descriptor.next = at &+ 1
            }
            setDescriptor(Int(at), descriptor)
        }
        offer(head)
    }

    /// Writes an available slot without showing it.
    public func setSlot(_ index: UInt16, _ head: UInt16) {
        let slot = UInt64(index & (configuration.size &- 1))
        store16(configuration.driverArea + 4 + 2 * slot, head)
    }

    /// Writes the available index.
    public func storeIndex(_ index: UInt16) {
        unsafe SharedCell.storeRelease16(pointer(configuration.driverArea + 2), index)
    }

    /// The driver's flags.
    public var driverFlags: UInt16 {
        get { load16(configuration.driverArea) }
        set { store16(configuration.driverArea, newValue) }
    }

    /// The device's flags.
    public var deviceFlags: UInt16 {
        get { load16(configuration.deviceArea) }
        set { store16(configuration.deviceArea, newValue) }
    }

    /// The used index; a hostile device may set it.
    public var usedIndex: UInt16 {
        get { load16(configuration.deviceArea + 2) }
        set { store16(configuration.deviceArea + 2, newValue) }
    }

    /// What the driver asks to be told of, under EVENT_IDX.
    public var usedEvent: UInt16 {
        get { load16(configuration.driverArea + eventOffset(2)) }
        set { store16(configuration.driverArea + eventOffset(2), newValue) }
    }

    /// What the device asks to be told of, under EVENT_IDX.
    public var availableEvent: UInt16 {
        get { load16(configuration.deviceArea + eventOffset(8)) }
        set { store16(configuration.deviceArea + eventOffset(8), newValue) }
    }

    /// The used element in the slot of `index`.
    public func usedElement(_ index: UInt16) -> (id: UInt32, length: UInt32) {
        let at = usedSlot(index)
        return unsafe (
            pointer(at).load(as: UInt32.self), pointer(at + 4).load(as: UInt32.self)
        )
    }

    /// Plays the device: writes the next used element and shows it.
    public func use(_ id: UInt32, _ length: UInt32 = 0) {
        let index = usedIndex
        unsafe pointer(usedSlot(index)).storeBytes(of: id, as: UInt32.self)
        unsafe pointer(usedSlot(index) + 4).storeBytes(of: length, as: UInt32.self)
        unsafe SharedCell.storeRelease16(pointer(configuration.deviceArea + 2), index &+ 1)
    }

    /// The available index as memory has it.
    public var availableIndex: UInt16 { load16(configuration.driverArea + 2) }

    /// The head in an available slot.
    public func slot(_ index: UInt16) -> UInt16 {
        load16(configuration.driverArea + 4 + 2 * UInt64(index & (configuration.size &- 1)))
    }

    /// A descriptor of the ring's table, as memory has it.
    public func descriptor(_ index: UInt16) -> SplitDescriptor {
        let at = configuration.descriptorArea + 16 * UInt64(index)
        return unsafe SplitDescriptor(
            low: pointer(at).load(as: UInt64.self),
            high: pointer(at + 8).load(as: UInt64.self)
        )
    }

    /// Writes bytes, one region at a time.
    public func write(_ bytes: [UInt8], at address: UInt64) {
        for (index, byte) in bytes.enumerated() {
            unsafe pointer(address + UInt64(index)).storeBytes(of: byte, as: UInt8.self)
        }
    }

    /// Reads bytes.
    public func read(_ address: UInt64, _ count: Int) -> [UInt8] {
        (0..<count).map { unsafe pointer(address + UInt64($0)).load(as: UInt8.self) }
    }

    private func eventOffset(_ element: UInt64) -> UInt64 {
        4 + element * UInt64(configuration.size)
    }

    private func usedSlot(_ index: UInt16) -> UInt64 {
        configuration.deviceArea + 4 + 8 * UInt64(index & (configuration.size &- 1))
    }

    private func load16(_ address: UInt64) -> UInt16 {
        unsafe SharedCell.loadAcquire16(pointer(address))
    }

    private func store16(_ address: UInt64, _ value: UInt16) {
        unsafe SharedCell.storeRelaxed16(pointer(address), value)
    }
}

/// The bytes of a burst's entry, in order.
public func bytes(of burst: borrowing ChainBurst, _ index: Int) -> [UInt8] {
    let entry = unsafe burst.entries[index]
    var bytes: [UInt8] = []
    for position in 0..<Int(entry.segmentCount) {
        let segment = unsafe burst.segments[Int(entry.firstSegment) + position]
        unsafe bytes.append(
            contentsOf: UnsafeRawBufferPointer(start: segment.pointer, count: Int(segment.length))
        )
    }
    return bytes
}
