import Glibc
import HostSystem
import Testing

@Suite struct UnixSocketTests {
    private static func path(_ name: String) -> String {
        "/tmp/vhost-pci-test-\(getpid())-\(name)"
    }

    @Test func `bytes and descriptors cross, and descriptors are closed with their last owner`()
        throws
    {
        let (left, right) = try UnixSocket.pair()
        let event = try EventFD()
        #expect(try left.send([1, 2, 3][...], descriptors: [event.descriptor]) == 3)
        var received = try #require(try right.receive(limit: 16))
        #expect(received.bytes == [1, 2, 3])
        #expect(received.descriptors.count == 1)
        #expect(!received.isTruncated)
        let number = try #require(received.descriptors.first).rawValue
        #expect(received.descriptors[0].isEventFD)
        event.signal()
        #expect(EventFD.drain(number) == 1)
        received.descriptors = []
        #expect(fcntl(number, F_GETFD) == -1)
    }

    @Test func `nothing to read is nil and a closed end is empty`() throws {
        let (left, right) = try UnixSocket.pair()
        #expect(try right.receive(limit: 16) == nil)
        withExtendedLifetime(left) {}
        do {
            let (gone, stays) = try UnixSocket.pair()
            withExtendedLifetime(gone) {}
            _ = stays
        }
    }

    @Test func `sending to an end that is gone is an error and no signal`() throws {
        var pair: (UnixSocket, UnixSocket)? = try UnixSocket.pair()
        let left = try #require(pair).0
        pair = nil
        #expect(throws: SystemError.self) { try left.send([1][...]) }
    }

    @Test func `a stale socket is replaced and removed at the end`() throws {
        let path = Self.path("stale")
        defer { unsafe unlink(path) }
        let raw = socket(AF_UNIX, Int32(SOCK_STREAM.rawValue), 0)
        var address = sockaddr_un()
        address.sun_family = sa_family_t(AF_UNIX)
        unsafe withUnsafeMutableBytes(of: &address.sun_path) { bytes in
            unsafe bytes.copyBytes(from: Array(path.utf8))
        }
        let bound = unsafe withUnsafePointer(to: &address) { pointer in
            unsafe pointer.withMemoryRebound(to: sockaddr.self, capacity: 1) {
                unsafe bind(raw, $0, socklen_t(MemoryLayout<sockaddr_un>.size))
            }
        }
        #expect(bound == 0)
        close(raw)
        var listener: UnixListener? = try UnixListener(path: path)
        let client = try UnixSocket.connect(to: path)
        #expect(try listener?.accept() != nil)
        withExtendedLifetime(client) {}
        listener = nil
        #expect(unsafe access(path, F_OK) == -1)
    }

    @Test func `a live socket is not taken over and its owner is named`() throws {
        let path = Self.path("live")
        let first = try UnixListener(path: path)
        let error = #expect(throws: SystemError.self) { try UnixListener(path: path) }
        #expect(error?.errno == .addressInUse)
        #expect(error?.operation.contains("pid \(getpid())") == true)
        #expect(try UnixSocket.connect(to: path).peerProcess == getpid())
        withExtendedLifetime(first) {}
    }

    @Test func `an own socket that answers is told from that of another process`() throws {
        let path = Self.path("own")
        let first = try UnixListener(path: path)
        let error = #expect(throws: SystemError.self) {
            try UnixListener(path: "/tmp/../tmp/" + path.dropFirst(5))
        }
        #expect(error?.operation.contains("this process answers there") == true)
        withExtendedLifetime(first) {}
    }

    @Test func `what took the place of a listener's socket is not removed`() throws {
        let path = Self.path("replaced")
        defer { unsafe unlink(path) }
        var listener: UnixListener? = try UnixListener(path: path)
        unsafe unlink(path)
        let next = try UnixListener(path: path)
        withExtendedLifetime(listener) {}
        listener = nil
        let client = try UnixSocket.connect(to: path)
        #expect(try next.accept() != nil)
        withExtendedLifetime(client) {}
    }

    @Test func `what is no socket is never removed`() throws {
        let path = Self.path("file")
        close(unsafe open(path, O_CREAT | O_WRONLY, 0o600))
        defer { unsafe unlink(path) }
        let error = #expect(throws: SystemError.self) { try UnixListener(path: path) }
        #expect(error?.errno == .exists)
        #expect(unsafe access(path, F_OK) == 0)
    }

    @Test func `a path that does not fit is refused with the limit`() {
        let error = #expect(throws: SystemError.self) {
            try UnixListener(path: "/tmp/" + String(repeating: "x", count: 200))
        }
        #expect(error?.errno == .nameTooLong)
        #expect(error?.operation.contains("107") == true)
    }

    @Test func `a missing directory is named`() {
        let error = #expect(throws: SystemError.self) {
            try UnixListener(path: "/tmp/vhost-pci-no-such-directory/x.sock")
        }
        #expect(error?.errno == .noSuchFile)
        #expect(error?.description.contains("/tmp/vhost-pci-no-such-directory/x.sock") == true)
    }
}
