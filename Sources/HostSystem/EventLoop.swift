internal import CSystemShims

/// The control thread's wait: readiness of descriptors and timers, each with a handler.
///
/// Everything on the control plane runs on the one thread that calls `run`; handlers may add and
/// remove sources, also their own. Nothing of the packet path goes through here.
public final class EventLoop {
    /// Names a registered source.
    public struct Source: Hashable, Sendable {
        fileprivate let id: UInt64
    }

    private struct Watch {
        let descriptor: FileDescriptor
        let handler: () -> Void
    }

    private struct Timer {
        let due: UInt64
        let handler: () -> Void
    }

    private let epoll: FileDescriptor
    private var watches: [UInt64: Watch] = [:]
    private var timers: [UInt64: Timer] = [:]
    /// When the first timer is due; no timer, or one that was removed, may make it too early.
    private var firstDue = UInt64.max
    private var ready = [UInt64](repeating: 0, count: 32)
    private var nextID: UInt64 = 1
    private var isStopping = false

    /// Makes an empty loop.
    public init() throws(SystemError) {
        epoll = FileDescriptor(owning: try checked(shim_epoll_create(), "create an epoll set"))
    }

    /// Calls `handler` whenever `descriptor` is readable or hung up, until removed.
    @discardableResult
    public func watch(
        _ descriptor: FileDescriptor,
        _ handler: @escaping () -> Void
    ) throws(SystemError) -> Source {
        let id = takeID()
        try checked(
            shim_epoll_add(epoll.rawValue, descriptor.rawValue, id),
            "watch descriptor \(descriptor.rawValue)"
        )
        watches[id] = Watch(descriptor: descriptor, handler: handler)
        return Source(id: id)
    }

    /// Calls `handler` once, `milliseconds` from now, unless removed before.
    @discardableResult
    public func after(milliseconds: UInt64, _ handler: @escaping () -> Void) -> Source {
        let id = takeID()
        let due = Deadline(milliseconds: milliseconds).nanoseconds
        timers[id] = Timer(due: due, handler: handler)
        firstDue = min(firstDue, due)
        return Source(id: id)
    }

    /// Forgets a source; one that is already gone is no error.
    public func remove(_ source: Source) {
        timers[source.id] = nil
        guard let watch = watches.removeValue(forKey: source.id) else { return }
        _ = shim_epoll_remove(epoll.rawValue, watch.descriptor.rawValue)
    }

    /// Makes `run` return after the handler that is running.
    public func stop() {
        isStopping = true
    }

    /// Serves sources until `stop`.
    public func run() throws(SystemError) {
        isStopping = false
        while !isStopping {
            try turn(limitMilliseconds: 1000)
        }
    }

    /// Waits at most `limitMilliseconds`, then serves what is ready; for tests and bounded waits.
    public func turn(limitMilliseconds: Int32) throws(SystemError) {
        var wait = limitMilliseconds
        if firstDue != .max {
            let now = MonotonicClock.now
            let left = firstDue > now ? (firstDue - now + 999_999) / 1_000_000 : 0
            wait = min(wait, Int32(clamping: left))
        }
        let count = try checked(
            unsafe shim_epoll_wait(epoll.rawValue, &ready, Int32(ready.count), wait),
            "wait for events"
        )
        // A handler may run a turn of its own.
        for id in ready.prefix(Int(count)) where !isStopping {
            watches[id]?.handler()
        }
        fireTimers()
    }

    private func fireTimers() {
        guard firstDue != .max else { return }
        let now = MonotonicClock.now
        guard firstDue <= now else { return }
        let due = timers.filter { $0.value.due <= now }.sorted { $0.value.due < $1.value.due }
        for (id, timer) in due where !isStopping {
            guard timers.removeValue(forKey: id) != nil else { continue }
            // Before the handler, which may run a turn of its own: the others are not late for it.
            findFirstDue()
            timer.handler()
        }
        findFirstDue()
    }

    private func findFirstDue() {
        firstDue = timers.values.reduce(.max) { min($0, $1.due) }
    }

    private func takeID() -> UInt64 {
        defer { nextID += 1 }
        return nextID
    }
}
