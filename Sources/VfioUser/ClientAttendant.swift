internal import Glibc
internal import HostSystem
internal import Synchronization

/// A thread that looks after a client's connection while its owner does something else.
///
/// It stores to the registers whose doorbells the server has no eventfds for, answers DMA messages
/// that come between commands, and notices the server's end. While the owner is in the middle of a
/// command it keeps away from the socket, for the owner answers the server then.
final class ClientAttendant: Sendable {
    /// Milliseconds to stay away from a socket on which the owner is at work.
    private static let pause: Int32 = 2

    private struct Bell {
        let event: EventFD
        let request: ClientRequest
    }

    private final class State: Sendable {
        let bells = Mutex<[Bell]>([])
        let wake: EventFD
        let isStopping = Atomic<Bool>(false)

        init() throws(SystemError) { wake = try EventFD() }
    }

    private let state: State
    private let thread: PollingThread

    /// Starts to look after a channel.
    init(_ channel: ClientChannel) throws(SystemError) {
        let state = try State()
        self.state = state
        thread = try PollingThread(name: "vfio-user") { Self.run(channel, state) }
    }

    deinit {
        state.isStopping.store(true, ordering: .releasing)
        state.wake.signal()
        thread.join()
    }

    /// An eventfd that leads to a write of two bytes.
    func bell(region: Int, offset: UInt64, value: UInt16) throws(SystemError) -> EventFD {
        let event = try EventFD()
        let access = RegionAccess(offset: offset, region: UInt32(region), count: 2)
        let request = ClientRequest(
            command: .regionWrite,
            fixed: access.encoded,
            bytes: [UInt8(truncatingIfNeeded: value), UInt8(truncatingIfNeeded: value >> 8)],
            reply: RegionAccess.size...RegionAccess.size
        )
        state.bells.withLock { $0.append(Bell(event: event, request: request)) }
        state.wake.signal()
        return event
    }

    private static func run(_ channel: ClientChannel, _ state: State) {
        var isPaused = false
        var isOver = false
        while !state.isStopping.load(ordering: .acquiring) {
            let bells = state.bells.withLock { $0 }
            let socket = isPaused || isOver ? -1 : channel.descriptor.rawValue
            var entries = [state.wake.descriptor.rawValue, socket].map(Self.entry)
            entries += bells.map { Self.entry($0.event.descriptor.rawValue) }
            let limit = isPaused ? Self.pause : -1
            isPaused = false
            guard unsafe poll(&entries, nfds_t(entries.count), limit) > 0 else { continue }
            if entries[0].revents != 0 { state.wake.drain() }
            for (bell, entry) in zip(bells, entries.dropFirst(2)) where entry.revents != 0 {
                bell.event.drain()
                // Nobody waits for the outcome: a device that does not take it is found out by the
                // owner, whose rings do not move.
                _ = try? channel.exchange(bell.request, "a doorbell")
            }
            guard entries[1].revents != 0 else { continue }
            switch channel.serve() {
            case .served: break
            case .busy, .idle: isPaused = true
            case .over: isOver = true
            }
        }
    }

    private static func entry(_ descriptor: Int32) -> pollfd {
        pollfd(fd: descriptor, events: Int16(POLLIN), revents: 0)
    }
}
