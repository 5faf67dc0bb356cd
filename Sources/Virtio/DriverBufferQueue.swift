public import GuestMemory
internal import HostSystem
internal import VirtioSpec
public import Virtqueue

/// A control queue of a driver: whole commands out, whole answers back. Control thread only.
///
/// Buffers come from an arena that the device can reach; one is made per command in flight and used
/// again. Nothing the device does to descriptors or lengths reaches past what was posted.
public final class DriverBufferQueue {
    /// An answer.
    public struct Completion: Equatable, Sendable {
        /// What `submit` returned for this command.
        public let token: UInt16
        /// The bytes the device wrote, at most `writableCount` of them (HI-A43).
        public let written: [UInt8]
    }

    private struct Slot {
        let buffer: DMABuffer
        let writableOffset: Int
    }

    private let transport: any VirtioTransport
    private let index: Int
    private let bufferSize: Int
    private let arena: DMAArena
    /// The three areas; empty once they were given back.
    private var rings: [DMABuffer]
    private var queue: SplitDriverQueue
    private var idle: [DMABuffer] = []
    private var slots: [UInt16: Slot] = [:]

    /// Makes the rings of queue `queue` in the arena and enables the queue.
    ///
    /// `size` is cut to what the device allows. A command and its answer together have at most
    /// `bufferSize` bytes. `vector`, if any, is delivered on used-buffer notifications.
    public init(
        transport: any VirtioTransport,
        queue index: Int,
        size: UInt16,
        bufferSize: Int,
        arena: DMAArena,
        features: QueueFeatures,
        vector: UInt16?
    ) throws(VirtioError) {
        let limit = min(size, try transport.queueLimit(index), SplitRingLayout.maximumSize)
        // The largest power of two within the limit; 0 stays 0 and is refused as such.
        let size = limit == 0 ? 0 : UInt16(1) << UInt16(15 - limit.leadingZeroBitCount)
        let areas = try Self.makeRings(arena, size: size, queue: index)
        let configuration = QueueConfiguration(
            size: size,
            descriptorArea: areas[0].deviceAddress,
            driverArea: areas[1].deviceAddress,
            deviceArea: areas[2].deviceAddress,
            features: features
        )
        do throws(QueueError) {
            queue = try SplitDriverQueue(configuration, memory: Self.table(of: arena))
        } catch {
            for area in areas { arena.release(area) }
            throw .queue(index, error)
        }
        self.transport = transport
        self.index = index
        self.bufferSize = bufferSize
        self.arena = arena
        rings = areas
        do throws(VirtioError) {
            try transport.enableQueue(index, configuration, vector: vector)
        } catch {
            release()
            throw error
        }
    }

    /// Commands that the device has.
    public var outstanding: Int { queue.outstanding }

    /// Posts a command with room for an answer of `writableCount` bytes and returns its token; the
    /// device is not notified yet. `limit/memory` when ring or arena are full, or it is too long.
    public func submit(readable: [UInt8], writableCount: Int) throws(VirtioError) -> UInt16 {
        if let error = queue.error { throw .queue(index, error) }
        guard !rings.isEmpty else { throw .noRoom("a command on queue \(index), which is closed") }
        guard writableCount >= 0, readable.count + writableCount > 0,
            readable.count + writableCount <= bufferSize
        else {
            throw .noRoom("\(readable.count) + \(writableCount) bytes in \(bufferSize)")
        }
        guard let buffer = idle.popLast() ?? arena.allocate(bufferSize) else {
            throw .noRoom("a buffer of queue \(index)")
        }
        buffer.write(readable)
        var parts: [DriverBuffer] = []
        if !readable.isEmpty {
            parts.append(
                DriverBuffer(
                    address: buffer.deviceAddress,
                    length: UInt32(readable.count),
                    isWritable: false
                )
            )
        }
        if writableCount > 0 {
            parts.append(
                DriverBuffer(
                    address: buffer.deviceAddress + UInt64(readable.count),
                    length: UInt32(writableCount),
                    isWritable: true
                )
            )
        }
        guard let head = queue.post(parts.span) else {
            idle.append(buffer)
            throw .noRoom("a command on queue \(index)")
        }
        slots[head] = Slot(buffer: buffer, writableOffset: readable.count)
        queue.publish()
        return head
    }

    /// Notifies the device, unless it asked not to be or nothing was submitted since.
    public func notify() throws(VirtioError) {
        if !rings.isEmpty, queue.shouldNotifyDevice() { try transport.notifyQueue(index) }
    }

    /// The next answer; `nil` when there is none.
    public func poll() throws(VirtioError) -> Completion? {
        guard !rings.isEmpty else { return nil }
        // Under EVENT_IDX the device interrupts for the one answer that we name (virtio 1.3 §2.7.7).
        let used = queue.reap() ?? (queue.requestInterrupts() ? queue.reap() : nil)
        if let error = queue.error { throw .queue(index, error) }
        guard let used, let slot = slots.removeValue(forKey: used.head) else { return nil }
        idle.append(slot.buffer)
        return Completion(
            token: used.head,
            written: slot.buffer.read(at: slot.writableOffset, count: Int(used.written))
        )
    }

    /// Gives rings and buffers back to the arena. Only after the device was reset.
    public func release() {
        for buffer in idle + slots.values.map(\.buffer) + rings { arena.release(buffer) }
        idle = []
        slots = [:]
        rings = []
    }

    private static func makeRings(
        _ arena: DMAArena,
        size: UInt16,
        queue: Int
    ) throws(VirtioError) -> [DMABuffer] {
        var areas: [DMABuffer] = []
        for length in [
            SplitRingLayout.descriptorAreaSize(size), SplitRingLayout.driverAreaSize(size),
            SplitRingLayout.deviceAreaSize(size),
        ] {
            guard let area = arena.allocate(length) else {
                for area in areas { arena.release(area) }
                throw .noRoom("the rings of queue \(queue)")
            }
            areas.append(area)
        }
        return areas
    }

    private static func table(of arena: DMAArena) -> MemoryTable {
        let region = unsafe MemoryRegion(
            start: arena.deviceAddress,
            size: UInt64(arena.mapping.length),
            host: arena.mapping.address
        )
        guard let region, let table = try? MemoryTable([region], owners: [arena.mapping]) else {
            return .empty
        }
        return table
    }
}
