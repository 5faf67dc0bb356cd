internal import HostSystem

/// Kick eventfds of a peer's transmit rings, watched while connected.
///
/// A peer that respects suppression kicks only when it is asked to. One that does not may kick
/// without pause: at most `burst` wake-ups in `pauseMilliseconds` are served, and what comes in
/// between is one more wake-up after the pause (HI-A29, HI-D24). Nothing is lost: the count stays in
/// the eventfd.
///
/// Pauses that follow one upon the other grow, for that ring alone. An eventfd that its maker made a
/// semaphore gives its count back one by one: before a pause some more of it is taken.
final class KickWatch {
    /// Wake-ups of one ring between two pauses.
    static let burst = 32
    /// Length of the first pause.
    static let pauseMilliseconds: UInt64 = 1
    /// Length of the longest pause, in a storm that does not end.
    static let longestPauseMilliseconds: UInt64 = 64
    /// Reads of one descriptor before a pause.
    static let drainLimit = 256

    private final class Kick {
        let descriptor: FileDescriptor
        var source: EventLoop.Source?
        var windowStart: UInt64 = 0
        var wakeups = 0
        var pauseMilliseconds = KickWatch.pauseMilliseconds
        var pauseEnd: UInt64 = 0

        init(_ descriptor: FileDescriptor) {
            self.descriptor = descriptor
        }
    }

    private let loop: EventLoop
    private let handler: (Int) -> Void
    private var kicks: [Int: Kick] = [:]

    /// Calls `handler` with the index of a ring that was kicked.
    init(loop: EventLoop, handler: @escaping (Int) -> Void) {
        self.loop = loop
        self.handler = handler
    }

    deinit {
        stop()
    }

    /// Watches these descriptors, by ring, and no others.
    func watch(_ descriptors: [Int: FileDescriptor]) throws(Refusal) {
        for (ring, kick) in kicks where descriptors[ring] !== kick.descriptor { drop(ring) }
        for (ring, descriptor) in descriptors where kicks[ring] == nil {
            let kick = Kick(descriptor)
            kicks[ring] = kick
            try arm(ring, kick)
        }
    }

    /// Watches nothing.
    func stop() {
        for ring in Array(kicks.keys) { drop(ring) }
    }

    private func drop(_ ring: Int) {
        if let source = kicks.removeValue(forKey: ring)?.source { loop.remove(source) }
    }

    private func arm(_ ring: Int, _ kick: Kick) throws(Refusal) {
        do throws(SystemError) {
            kick.source = try loop.watch(kick.descriptor) { [weak self] in self?.kicked(ring) }
        } catch {
            kicks[ring] = nil
            throw Refusal("vu/fd-kind", "kick of ring \(ring): \(error)")
        }
    }

    private func kicked(_ ring: Int) {
        guard let kick = kicks[ring] else { return }
        guard EventFD.drain(kick.descriptor.rawValue) > 0 else {
            // Readable and empty: no eventfd any more. The ring is polled from now on.
            drop(ring)
            return
        }
        let now = MonotonicClock.now
        if now &- kick.windowStart > Self.pauseMilliseconds * 1_000_000 {
            kick.windowStart = now
            kick.wakeups = 0
        }
        kick.wakeups += 1
        if kick.wakeups > Self.burst { pause(ring, kick) }
        handler(ring)
    }

    private func pause(_ ring: Int, _ kick: Kick) {
        if let source = kick.source { loop.remove(source) }
        _ = (0..<Self.drainLimit).contains { _ in EventFD.drain(kick.descriptor.rawValue) == 0 }
        let isSameStorm = kick.windowStart &- kick.pauseEnd < Self.pauseMilliseconds * 1_000_000
        kick.pauseMilliseconds =
            isSameStorm
            ? min(Self.longestPauseMilliseconds, kick.pauseMilliseconds * 2)
            : Self.pauseMilliseconds
        kick.source = loop.after(milliseconds: kick.pauseMilliseconds) { [weak self] in
            guard let self, kicks[ring] === kick else { return }
            kick.pauseEnd = MonotonicClock.now
            // A descriptor that could be watched before can be watched again; if not, it is polled.
            try? arm(ring, kick)
        }
    }
}
