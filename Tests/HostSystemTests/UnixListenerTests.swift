import CSystemShims
import Glibc
import HostSystem
import Testing

@Suite struct UnixListenerTests {
    private static func path(_ name: String) -> String {
        "/tmp/vhost-pci-listener-\(getpid())-\(name).sock"
    }

    private func mode(_ path: String) -> mode_t {
        var information = stat()
        guard unsafe stat(path, &information) == 0 else { return 0 }
        return information.st_mode & 0o7777
    }

    /// A socket at `path` on which nobody listens.
    private func leaveStale(_ path: String) throws {
        let raw = unsafe shim_listen(path, 1, -1)
        try #require(raw >= 0)
        close(raw)
    }

    @Test(arguments: [0o600, 0o660, 0o666, 0o000] as [UInt16])
    func `HI-J21: the socket has the mode that was asked for, whatever the umask`(
        wanted: UInt16
    ) throws {
        let path = Self.path("mode\(wanted)")
        let listener = try UnixListener(path: path, mode: wanted)
        #expect(mode(path) == mode_t(wanted))
        withExtendedLifetime(listener) {}
    }

    @Test func `the lock file is gone, after success and after failure`() throws {
        let path = Self.path("lock")
        let first = try UnixListener(path: path)
        #expect(unsafe access(path + ".lock", F_OK) == -1)
        #expect(throws: SystemError.self) { try UnixListener(path: path) }
        #expect(unsafe access(path + ".lock", F_OK) == -1)
        withExtendedLifetime(first) {}
    }

    @Test func `HI-J19: a path that another process is taking is left to it`() throws {
        let path = Self.path("held")
        let raw = unsafe open(path + ".lock", O_RDWR | O_CREAT | O_CLOEXEC, 0o600)
        let lock = FileDescriptor(owning: raw)
        try lock.lock()
        defer { unsafe unlink(path + ".lock") }
        let error = #expect(throws: SystemError.self) { try UnixListener(path: path) }
        #expect(error?.errno == .addressInUse)
        #expect(error?.operation.contains("\(path).lock") == true)
    }

    @Test func `a lock file that a crash left behind is in nobody's way`() throws {
        let path = Self.path("crashed")
        close(unsafe open(path + ".lock", O_RDWR | O_CREAT | O_CLOEXEC, 0o600))
        try leaveStale(path)
        let listener = try UnixListener(path: path)
        #expect(unsafe access(path + ".lock", F_OK) == -1)
        withExtendedLifetime(listener) {}
    }

    @Test func `HI-J20: a lock that is a link is not followed`() throws {
        let path = Self.path("link")
        unsafe symlink("/tmp/vhost-pci-no-such-target", path + ".lock")
        defer { unsafe unlink(path + ".lock") }
        #expect(throws: SystemError.self) { try UnixListener(path: path) }
        #expect(unsafe access("/tmp/vhost-pci-no-such-target", F_OK) == -1)
    }

    @Test func `HI-J19: of many that take a stale path at once, one has it`() async throws {
        for round in 0..<20 {
            let path = Self.path("race\(round)")
            try leaveStale(path)
            let listeners = await withTaskGroup(of: UnixListener?.self) { group in
                for _ in 0..<4 { group.addTask { try? UnixListener(path: path) } }
                return await group.reduce(into: [UnixListener]()) { all, next in
                    if let next { all.append(next) }
                }
            }
            #expect(listeners.count == 1)
            let client = try UnixSocket.connect(to: path)
            #expect(try listeners.first?.accept() != nil)
            withExtendedLifetime(client) {}
        }
    }

    @Test func `a listening socket is adopted, and its path stays`() throws {
        let path = Self.path("adopted")
        defer { unsafe unlink(path) }
        let raw = unsafe shim_listen(path, 1, -1)
        var listener: UnixListener? = try UnixListener(
            adopting: FileDescriptor(owning: raw),
            name: "fd 7"
        )
        let client = try UnixSocket.connect(to: path)
        #expect(try listener?.accept() != nil)
        #expect(try listener?.accept() == nil)
        #expect(listener?.path == "fd 7")
        listener = nil
        #expect(unsafe access(path, F_OK) == 0)
        withExtendedLifetime(client) {}
    }

    @Test func `a connected socket is the only connection, and ends with its user`() throws {
        let (ours, theirs) = try UnixSocket.pair()
        let loop = try EventLoop()
        let listener = try UnixListener(
            adopting: try ours.descriptor.duplicate(),
            name: "fd 7"
        )
        var turns = 0
        var socket: UnixSocket?
        try loop.watch(listener.descriptor) {
            turns += 1
            if let next = try? listener.accept() { socket = next }
        }
        for _ in 0..<5 { try loop.turn(limitMilliseconds: 1) }
        #expect(turns == 1 && socket != nil)
        #expect(try listener.accept() == nil)
        _ = try theirs.send([1])
        #expect(try socket?.receive(limit: 8)?.bytes == [1])
    }

    @Test func `what is no unix stream socket is not adopted`() throws {
        let file = FileDescriptor(owning: unsafe open("/dev/null", O_RDWR | O_CLOEXEC))
        #expect(throws: SystemError.self) { try UnixListener(adopting: file, name: "x") }
        let datagram = FileDescriptor(
            owning: socket(AF_UNIX, Int32(SOCK_DGRAM.rawValue), 0)
        )
        #expect(throws: SystemError.self) { try UnixListener(adopting: datagram, name: "x") }
        let internet = FileDescriptor(
            owning: socket(AF_INET, Int32(SOCK_STREAM.rawValue), 0)
        )
        #expect(throws: SystemError.self) { try UnixListener(adopting: internet, name: "x") }
        let event = try EventFD()
        #expect(throws: SystemError.self) {
            try UnixListener(adopting: event.descriptor, name: "x")
        }
    }
}
