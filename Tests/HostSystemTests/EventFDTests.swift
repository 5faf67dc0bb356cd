import Glibc
import HostSystem
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
}
