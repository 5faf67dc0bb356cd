import Glibc
import HostSystem
import RingSupport
import Testing

@Suite struct EventFDTests {
    @Test func `signals add up and are taken at once`() throws {
        let event = try EventFD()
        event.signal()
        event.signal()
        #expect(event.drain() == 2)
        #expect(event.drain() == 0)
    }

    @Test func `HI-D24: an eventfd that its peer made blocking is drained without waiting`() throws
    {
        let event = try EventFD()
        let raw = event.descriptor.rawValue
        // The flag belongs to the open file: whoever was given a copy can take it away.
        let copy = try event.descriptor.duplicate()
        try #require(
            fcntl(copy.rawValue, F_SETFL, fcntl(copy.rawValue, F_GETFL) & ~O_NONBLOCK) == 0
        )
        // Ends a read that waits, so that a defect shows as a failure and not as a test that hangs.
        let done = try EventFD()
        let rescue = try PollingThread(name: "rescue") {
            var entry = pollfd(
                fd: done.descriptor.rawValue,
                events: Int16(POLLIN),
                revents: 0
            )
            if unsafe poll(&entry, 1, 5000) == 0 { EventFD.signal(raw) }
        }
        #expect(event.drain() == 0)
        done.signal()
        rescue.join()
    }

    @Test func `HI-D25: an eventfd that its peer made full and blocking is given up in time`()
        throws
    {
        let blocking = try BlockingEvent()
        let start = MonotonicClock.now
        #expect(blocking.event.signal() == .blocked)
        #expect(MonotonicClock.now - start < 1_000_000_000)
        // And what is not blocked is not disturbed by what was.
        let other = try EventFD()
        #expect(other.signal() == .signalled)
        #expect(other.drain() == 1)
    }

    @Test func `HI-D25: a full counter that does not block is told apart from a blocked one`()
        throws
    {
        let event = try EventFD()
        var most: UInt64 = .max - 1
        try #require(unsafe write(event.descriptor.rawValue, &most, 8) == 8)
        #expect(event.signal() == .full)
        #expect(event.drain() == UInt64.max - 1)
        #expect(event.signal() == .signalled)
    }

    @Test func `HI-D25: each of several threads is freed, and more than once`() throws {
        let blocking = try BlockingEvent()
        let raw = blocking.event.descriptor.rawValue
        let freed = try EventFD()
        let count = freed.descriptor.rawValue
        let threads = try (0..<4).map { number in
            try PollingThread(name: "writer\(number)") {
                for _ in 0..<3 where EventFD.signal(raw) == .blocked { EventFD.signal(count) }
            }
        }
        for thread in threads { thread.join() }
        #expect(freed.drain() == 12)
    }

    @Test func `a descriptor that cannot be written is not signalled again`() throws {
        #expect(EventFD.signal(-1) == .blocked)
    }
}
