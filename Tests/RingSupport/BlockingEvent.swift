import Glibc
public import HostSystem

/// An eventfd as a hostile peer makes it: blocking, its counter full. Whoever adds to it waits.
///
/// A thread empties it after `rescue` milliseconds, so that a defect shows as a failure and not as a
/// test that hangs.
public final class BlockingEvent {
    /// The eventfd, as it was handed over.
    public let event: EventFD
    private let done: EventFD
    private let thread: PollingThread

    /// Makes it blocking and full.
    public init(rescue: Int32 = 5000) throws {
        event = try EventFD()
        done = try EventFD()
        let raw = event.descriptor.rawValue
        let end = done.descriptor.rawValue
        var most: UInt64 = .max - 1
        guard unsafe write(raw, &most, 8) == 8 else {
            throw SystemError("fill an eventfd", Errno(errno))
        }
        thread = try PollingThread(name: "rescue") {
            var entry = pollfd(fd: end, events: Int16(POLLIN), revents: 0)
            while unsafe poll(&entry, 1, rescue) == 0 { EventFD.drain(raw) }
        }
        block()
    }

    /// Takes O_NONBLOCK away, which belongs to the open file and so to everybody who has it.
    public func block() {
        let raw = event.descriptor.rawValue
        _ = fcntl(raw, F_SETFL, fcntl(raw, F_GETFL) & ~O_NONBLOCK)
    }

    deinit {
        done.signal()
        thread.join()
    }
}
