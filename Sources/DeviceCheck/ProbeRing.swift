internal import GuestMemory
internal import Virtio
internal import VirtioSpec
internal import Virtqueue

/// A split ring whose every field is written by hand, good or bad: `SplitDriverQueue` would refuse
/// what a check wants to see the device refuse.
final class ProbeRing {
    let queue: Int
    let size: UInt16
    private let transport: any VirtioTransport
    private let descriptors: DMABuffer
    private let available: DMABuffer
    private let used: DMABuffer
    private let arena: DMAArena
    private(set) var nextAvailable: UInt16 = 0
    private(set) var nextUsed: UInt16 = 0

    init(_ transport: any VirtioTransport, queue: Int, size: UInt16, arena: DMAArena) throws {
        guard
            let descriptors = arena.allocate(
                SplitRingLayout.descriptorAreaSize(size),
                alignment: 16
            ),
            let available = arena.allocate(SplitRingLayout.driverAreaSize(size)),
            let used = arena.allocate(SplitRingLayout.deviceAreaSize(size))
        else { throw VirtioError.noRoom("the ring of queue \(queue)") }
        self.transport = transport
        self.queue = queue
        self.size = size
        self.arena = arena
        self.descriptors = descriptors
        self.available = available
        self.used = used
    }

    /// Gives the memory back; the device must have been reset.
    func release() {
        for buffer in [descriptors, available, used] { arena.release(buffer) }
    }

    var configuration: QueueConfiguration {
        QueueConfiguration(
            size: size,
            descriptorArea: descriptors.deviceAddress,
            driverArea: available.deviceAddress,
            deviceArea: used.deviceAddress
        )
    }

    /// Starts anew after the queue was reset by itself.
    func rewind() {
        for buffer in [descriptors, available, used] {
            buffer.write([UInt8](repeating: 0, count: buffer.length))
        }
        nextAvailable = 0
        nextUsed = 0
    }

    func setDescriptor(
        _ index: UInt16,
        _ address: UInt64,
        _ length: UInt32,
        flags: UInt16 = 0,
        next: UInt16 = 0
    ) {
        descriptors.write(
            Self.descriptor(address, length, flags: flags, next: next),
            at: SplitRingLayout.descriptorSize * Int(index % size)
        )
    }

    /// A descriptor's bytes, for a table of them elsewhere.
    static func descriptor(
        _ address: UInt64,
        _ length: UInt32,
        flags: UInt16 = 0,
        next: UInt16 = 0
    ) -> [UInt8] {
        var writer = WireWriter()
        writer.integer(address)
        writer.integer(length)
        writer.integer(flags)
        writer.integer(next)
        return writer.bytes
    }

    /// `VIRTQ_AVAIL_F_NO_INTERRUPT` or 0.
    func setFlags(_ flags: UInt16) {
        unsafe SharedCell.storeRelaxed16(available.pointer, flags)
    }

    /// The used index at which the driver wants to be told, with EVENT_IDX.
    func setUsedEvent(_ index: UInt16) {
        unsafe SharedCell.storeRelaxed16(
            available.pointer + SplitRingLayout.usedEventOffset(size),
            index
        )
        SharedCellFence.full()
    }

    /// Puts heads into the available ring and shows them with one store.
    func offer(_ heads: [UInt16]) {
        for head in heads {
            let slot = SplitRingLayout.ringOffset + 2 * Int(nextAvailable % size)
            unsafe SharedCell.storeRelaxed16(available.pointer + slot, head)
            nextAvailable &+= 1
        }
        unsafe SharedCell.storeRelease16(
            available.pointer + SplitRingLayout.indexOffset,
            nextAvailable
        )
    }

    func kick() throws {
        SharedCellFence.full()
        try transport.notifyQueue(queue)
    }

    /// The used index as the device last wrote it.
    var usedIndex: UInt16 {
        unsafe SharedCell.loadAcquire16(used.pointer + SplitRingLayout.indexOffset)
    }

    /// The next used element, `nil` when there is none.
    func take() -> (id: UInt32, length: UInt32)? {
        guard usedIndex != nextUsed else { return nil }
        let slot =
            SplitRingLayout.ringOffset + SplitRingLayout.usedElementSize * Int(nextUsed % size)
        nextUsed &+= 1
        return unsafe (
            SharedCell.loadRelaxed32(used.pointer + slot),
            SharedCell.loadRelaxed32(used.pointer + slot + 4)
        )
    }

    /// Waits for `count` used elements and takes them; fewer at the limit.
    func take(_ count: Int, milliseconds: UInt64 = 1000) -> [(id: UInt32, length: UInt32)] {
        var taken: [(id: UInt32, length: UInt32)] = []
        _ = waits(milliseconds: milliseconds) {
            while taken.count < count, let next = take() { taken.append(next) }
            return taken.count == count
        }
        return taken
    }
}

/// The one barrier a driver needs: between showing a buffer and reading what the device wants.
enum SharedCellFence {
    static func full() { unsafe SharedCell.fence() }
}
