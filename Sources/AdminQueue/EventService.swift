internal import HostSystem
internal import Virtio
internal import VirtioSpec

/// The event queue on the driver's side: keeps buffers posted and hands on what arrives.
final class EventService {
    private let queue: DriverBufferQueue
    private let size: Int
    private let loop: EventLoop
    private let onEvent: (AdminEvent) -> Void
    private let onFailure: (VirtioError) -> Void
    private var source: EventLoop.Source?
    private var isStopped = false

    init(
        queue: DriverBufferQueue,
        size: Int,
        loop: EventLoop,
        onEvent: @escaping (AdminEvent) -> Void,
        onFailure: @escaping (VirtioError) -> Void
    ) {
        self.queue = queue
        self.size = size
        self.loop = loop
        self.onEvent = onEvent
        self.onFailure = onFailure
    }

    /// Posts buffers and listens.
    func start(interrupt: EventFD) throws(VirtioError) {
        for _ in 0..<size { try post() }
        try queue.notify()
        do {
            source = try loop.watch(interrupt.descriptor) { [weak self] in
                _ = interrupt.drain()
                self?.serve()
            }
        } catch {
            throw .system(error)
        }
    }

    /// Listens no more.
    func stop() {
        if let source { loop.remove(source) }
        source = nil
        isStopped = true
    }

    /// Takes the events that are there, at most one ring at a time; the rest in the next turn.
    private func serve() {
        guard !isStopped else { return }
        do throws(VirtioError) {
            var taken = 0
            while taken < size, let completion = try queue.poll() {
                taken += 1
                let event = AdminEvent(zeroExtending: completion.written)
                try post()
                onEvent(event)
            }
            guard taken > 0 else { return }
            try queue.notify()
            if taken == size {
                loop.after(milliseconds: 0) { [weak self] in self?.serve() }
            }
        } catch {
            stop()
            onFailure(error)
        }
    }

    private func post() throws(VirtioError) {
        _ = try queue.submit(readable: [], writableCount: AdminEvent.size)
    }
}
