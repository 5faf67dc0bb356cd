import Glibc
import HostSystem
import PCI
import Synchronization

@testable import VfioUser

/// A server of ours in a thread of its own, with an endpoint that is made there.
final class ServedFunction: Sendable {
    /// Where it listens.
    let path: String

    private let stop: EventFD
    private let thread: PollingThread
    private let log: Log

    private final class Log: Sendable {
        let lines = Mutex<[String]>([])
        let failure = Mutex<String?>(nil)
        let ready: EventFD

        init() throws { ready = try EventFD() }
    }

    /// Starts to serve what `make` returns; it may keep the loop for what it does by itself.
    init(
        limits: ServerLimits = ServerLimits(),
        _ make: @escaping @Sendable (EventLoop) throws -> any PCIEndpoint
    ) throws {
        let log = try Log()
        let stop = try EventFD()
        let path = "/tmp/vhost-pci-loop-\(getpid())-\(MonotonicClock.now)"
        thread = try PollingThread(name: "server") {
            do {
                let loop = try EventLoop()
                let server = try Server(
                    endpoint: try make(loop),
                    path: path,
                    loop: loop,
                    limits: limits
                ) { event in log.lines.withLock { $0.append("\(event)") } }
                try loop.watch(stop.descriptor) { loop.stop() }
                log.ready.signal()
                try loop.run()
                server.close()
            } catch {
                log.failure.withLock { $0 = "\(error)" }
                log.ready.signal()
            }
        }
        self.path = path
        self.stop = stop
        self.log = log
        var entry = pollfd(fd: log.ready.descriptor.rawValue, events: Int16(POLLIN), revents: 0)
        _ = unsafe poll(&entry, 1, 5000)
        if let failure = log.failure.withLock({ $0 }) {
            throw SystemError("serve: \(failure)", .invalidArgument)
        }
    }

    deinit {
        stop.signal()
        thread.join()
    }

    /// What happened at the server.
    var events: [String] { log.lines.withLock { $0 } }

    /// Waits until an event's line contains `text`.
    func waits(for text: String, milliseconds: UInt64 = 5000) -> Bool {
        let deadline = Deadline(milliseconds: milliseconds)
        while !deadline.hasPassed {
            if events.contains(where: { $0.contains(text) }) { return true }
            pauseMilliseconds(2)
        }
        return false
    }
}
