internal import GuestMemory
internal import HostSystem
internal import Synchronization
internal import Virtqueue

/// Everything that a worker touches of one attached port, in pages of its own near the worker.
///
/// The control thread makes it, publishes `state`, and keeps it until the worker has acknowledged
/// that it let go; only then it is freed, and with it the peer's memory table.
@safe
final class PortAttachment {
    // Safety: `pages` holds state, record, ledger words and pairs, initialised from init to deinit.
    let state: UnsafeMutablePointer<PortState>
    let ledger: PortLedger
    /// NUMA node of the peer's memory, where the kernel tells.
    let memoryNode: Int?
    /// Readable when the peer kicked, or the device interrupted.
    let wakeups: [EventFD]
    /// The descriptor of a TAP interface.
    let tapFile: FileDescriptor?

    private let pages: Mapping
    private var memory: MemoryTable?
    /// Tables that the worker may use still, since it has not said that it follows.
    private var former: [MemoryTable] = []
    private let wantedMemory: UnsafeMutablePointer<Atomic<UnsafeRawPointer?>>
    private let pairCount: Int
    private let deviceCount: Int

    /// Takes over the queue pairs of a peer, 1 … `PortPairs.limit`.
    init(
        port: PortID,
        pairs: consuming PortPairs,
        memory: MemoryTable,
        memoryNode: Int?,
        workerNode: Int
    ) throws(SystemError) {
        var pairs = pairs
        let count = pairs.count
        precondition((1...PortPairs.limit).contains(count), "the engine checks the pair count")
        var layout = Layout()
        let place = Places(&layout, pairs: count)
        pages = try PortAttachment.pages(layout.size, node: workerNode)
        unsafe state = (pages.address + place.state).bindMemory(to: PortState.self, capacity: 1)
        let rings = unsafe (pages.address + place.pairs).bindMemory(
            to: PeerPort.self,
            capacity: count
        )
        let receiveEnabled = pairs.receiveEnabled
        let transmitEnabled = pairs.transmitEnabled
        wakeups = pairs.wakeups
        unsafe pairs.release(to: rings)
        let record = unsafe PortAttachment.record(pages, place)
        ledger = PortAttachment.ledger(pages, place)
        unsafe wantedMemory = PortAttachment.wanted(pages, place)
        unsafe state.initialize(
            to: PortState(
                port: port,
                pairs: rings,
                pairCount: count,
                receiveEnabled: receiveEnabled,
                transmitEnabled: transmitEnabled,
                tap: nil,
                devices: nil,
                record: record,
                ledger: ledger,
                wantedMemory: wantedMemory
            )
        )
        self.memory = memory
        self.memoryNode = memoryNode
        pairCount = count
        deviceCount = 0
        tapFile = nil
    }

    /// Takes over an open TAP interface.
    init(port: PortID, tap: FileDescriptor, workerNode: Int) throws(SystemError) {
        var layout = Layout()
        let place = Places(&layout, pairs: 1)
        pages = try PortAttachment.pages(layout.size, node: workerNode)
        unsafe state = (pages.address + place.state).bindMemory(to: PortState.self, capacity: 1)
        let interface = unsafe (pages.address + place.tap).bindMemory(to: TapPort.self, capacity: 1)
        let rings = unsafe (pages.address + place.pairs).bindMemory(
            to: PeerPort.self,
            capacity: 1
        )
        let record = unsafe PortAttachment.record(pages, place)
        ledger = PortAttachment.ledger(pages, place)
        unsafe wantedMemory = PortAttachment.wanted(pages, place)
        unsafe interface.initialize(to: try TapPort(tap))
        unsafe state.initialize(
            to: PortState(
                port: port,
                pairs: rings,
                pairCount: 0,
                receiveEnabled: 1,
                transmitEnabled: 1,
                tap: interface,
                devices: nil,
                record: record,
                ledger: ledger,
                wantedMemory: wantedMemory
            )
        )
        wakeups = []
        memory = nil
        memoryNode = nil
        pairCount = 0
        deviceCount = 0
        tapFile = tap
    }

    /// Takes over the queue pairs of a network device that we drive, 1 … `PortPairs.limit`, and
    /// gives the device its receive buffers.
    init(
        port: PortID,
        device pairs: [PacketPairConfiguration],
        memoryNode: Int?,
        workerNode: Int
    ) throws(EngineError) {
        precondition((1...PortPairs.limit).contains(pairs.count), "the engine checks the count")
        var layout = Layout()
        let place = Places(&layout, pairs: 1, devices: pairs.count)
        do throws(SystemError) {
            pages = try PortAttachment.pages(layout.size, node: workerNode)
        } catch {
            throw .system(error)
        }
        unsafe state = (pages.address + place.state).bindMemory(to: PortState.self, capacity: 1)
        let devices = unsafe (pages.address + place.devices).bindMemory(
            to: DevicePort.self,
            capacity: pairs.count
        )
        for (index, pair) in pairs.enumerated() {
            do throws(QueueError) {
                unsafe (devices + index).initialize(to: try DevicePort(pair))
            } catch {
                unsafe devices.deinitialize(count: index)
                throw .queue(pair: index, error)
            }
        }
        let rings = unsafe (pages.address + place.pairs).bindMemory(
            to: PeerPort.self,
            capacity: 1
        )
        let record = unsafe PortAttachment.record(pages, place)
        ledger = PortAttachment.ledger(pages, place)
        unsafe wantedMemory = PortAttachment.wanted(pages, place)
        let every = UInt64.max >> UInt64(64 - pairs.count)
        unsafe state.initialize(
            to: PortState(
                port: port,
                pairs: rings,
                pairCount: pairs.count,
                receiveEnabled: every,
                transmitEnabled: every,
                tap: nil,
                devices: devices,
                record: record,
                ledger: ledger,
                wantedMemory: wantedMemory
            )
        )
        wakeups = pairs.compactMap(\.wakeup)
        memory = nil
        self.memoryNode = memoryNode
        pairCount = 0
        deviceCount = pairs.count
        tapFile = nil
    }

    deinit {
        unsafe state.pointee.pairs.deinitialize(count: pairCount)
        if let tap = unsafe state.pointee.tap { unsafe tap.deinitialize(count: 1) }
        if let devices = unsafe state.pointee.devices {
            unsafe devices.deinitialize(count: deviceCount)
        }
        unsafe state.deinitialize(count: 1)
    }

    /// Wants another table to be used. Both are kept until `endExchange`.
    func beginExchange(_ table: MemoryTable) {
        if let memory { former.append(memory) }
        memory = table
        let pointer = unsafe UnsafeRawPointer(Unmanaged.passUnretained(table).toOpaque())
        unsafe wantedMemory.pointee.store(pointer, ordering: .releasing)
    }

    /// The worker uses the newest table, and no other.
    func endExchange() {
        former = []
    }

    /// The counters to the last packet. Only when no worker uses the port any more.
    var finalRecord: PortRecord {
        if let devices = unsafe state.pointee.devices {
            for index in 0..<deviceCount { unsafe devices[index].settle() }
        }
        unsafe state.pointee.publish()
        return ledger.record
    }

    /// Offsets in the pages; every object starts on a line pair of its own.
    private struct Layout {
        var size = 0

        mutating func take(_ bytes: Int) -> Int {
            let start = size
            size += (max(1, bytes) + 127) & ~127
            return start
        }
    }

    private struct Places {
        let state: Int
        let record: Int
        let words: Int
        let wanted: Int
        let tap: Int
        let pairs: Int
        let devices: Int

        init(_ layout: inout Layout, pairs count: Int, devices deviceCount: Int = 0) {
            state = layout.take(MemoryLayout<PortState>.stride)
            record = layout.take(MemoryLayout<PortRecord>.stride)
            words = layout.take(PortLedger.count * 8)
            wanted = layout.take(MemoryLayout<UInt>.stride)
            tap = layout.take(MemoryLayout<TapPort>.stride)
            pairs = layout.take(count * MemoryLayout<PeerPort>.stride)
            devices = layout.take(deviceCount * MemoryLayout<DevicePort>.stride)
        }
    }

    private static func pages(_ size: Int, node: Int) throws(SystemError) -> Mapping {
        let mapping = try Mapping.anonymous(length: (size + 4095) & ~4095)
        try Topology.prefer(node: node, for: mapping)
        return mapping
    }

    private static func record(
        _ pages: Mapping,
        _ place: Places
    ) -> UnsafeMutablePointer<PortRecord> {
        let record = unsafe (pages.address + place.record).bindMemory(
            to: PortRecord.self,
            capacity: 1
        )
        unsafe record.initialize(to: PortRecord())
        return unsafe record
    }

    private static func wanted(
        _ pages: Mapping,
        _ place: Places
    ) -> UnsafeMutablePointer<Atomic<UnsafeRawPointer?>> {
        let cell = unsafe (pages.address + place.wanted).bindMemory(
            to: Atomic<UnsafeRawPointer?>.self,
            capacity: 1
        )
        unsafe cell.initialize(to: Atomic<UnsafeRawPointer?>(nil))
        return unsafe cell
    }

    private static func ledger(_ pages: Mapping, _ place: Places) -> PortLedger {
        let words = unsafe (pages.address + place.words).bindMemory(
            to: Atomic<UInt64>.self,
            capacity: PortLedger.count
        )
        for index in 0..<PortLedger.count {
            unsafe (words + index).initialize(to: Atomic<UInt64>(0))
        }
        return unsafe PortLedger(words)
    }
}
