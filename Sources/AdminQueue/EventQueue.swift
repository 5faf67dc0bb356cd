internal import Virtio
internal import VirtioSpec

/// The event queue on the device's side: buffers that the driver posted, and the backlog of events
/// that found none.
final class EventQueue {
    private(set) var backlog = EventBacklog()
    private var buffers: DeviceBufferQueue?
    /// Most buffers looked at for one event, so that useless ones cannot hold us up (R3).
    private let limit: Int

    init(limit: Int) {
        self.limit = limit
    }

    /// Uses this queue from now on; `nil` when the driver left it off.
    func attach(_ buffers: DeviceBufferQueue?) {
        self.buffers = buffers
    }

    /// Forgets queue, subscription and backlog: a reset of the management device (AVQ-D-905).
    func reset() {
        buffers = nil
        backlog = EventBacklog()
    }

    func subscribe(_ mask: AdminEventMask) throws(AdminError) {
        try backlog.subscribe(mask)
    }

    /// Sends an event, or leaves it to the backlog (AVQ-D-324).
    func send(_ event: AdminEvent) {
        guard backlog.wants(event) else { return }
        flush()
        guard let buffer = nextBuffer() else { return backlog.keepOrCount(event) }
        buffers?.complete(buffer, writing: backlog.stamp(event).bytes)
    }

    /// The driver posted buffers: what waited goes out.
    func flush() {
        while !backlog.held.isEmpty, let buffer = nextBuffer() {
            guard let event = backlog.takeHeld() else { return }
            buffers?.complete(buffer, writing: event.bytes)
        }
    }

    /// Drops what waits for a virtual device that was reset or destroyed.
    func forget(_ id: UInt64) {
        backlog.forget(id)
    }

    /// A buffer with room for a whole event; smaller ones go back empty.
    private func nextBuffer() -> DeviceBufferQueue.Buffer? {
        for _ in 0..<limit {
            guard let buffer = buffers?.next() else { return nil }
            if buffer.writableCount >= AdminEvent.size { return buffer }
            buffers?.complete(buffer, writing: [])
        }
        return nil
    }
}
