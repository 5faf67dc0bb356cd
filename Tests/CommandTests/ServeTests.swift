import CSystemShims
import Glibc
import HostSystem
import PCI
import Testing

@testable import vhost_pci

/// `vhost-pci serve` in a process of its own.
@Suite(.serialized) struct ServeTests {
    private func management(_ place: ServePlace) -> [String] {
        ["--device", "management", "--socket-path", place.path("m.sock")]
    }

    @Test(arguments: [SIGTERM, SIGINT])
    func `VFU-S-80: a signal ends it within a second, and its sockets are gone`(
        number: Int32
    ) throws {
        let place = try ServePlace("signal\(number)")
        let control = place.path("c.sock")
        let program = try place.serve(management(place) + ["--control", control])
        #expect(place.sees("ready: 1 device"))
        #expect(place.text().contains("management0: listening on \(place.path("m.sock"))"))
        #expect(place.sockets == ["c.sock", "m.sock"])
        let clients = try (0..<3).map { _ in try UnixSocket.connect(to: control) }
        program.signal(number)
        #expect(program.waitForEnd(milliseconds: 2000) == 0)
        #expect(place.sockets.isEmpty)
        withExtendedLifetime(clients) {}
    }

    @Test func `HI-J19: a second daemon leaves the first one alone and names it`() throws {
        let place = try ServePlace("two")
        let first = try place.serve(management(place))
        #expect(place.sees("ready"))
        let second = try place.serve(management(place), log: "log2")
        #expect(second.waitForEnd(milliseconds: 10_000) == 1)
        #expect(place.text("log2").contains("another process answers there"))
        #expect(first.exitStatus == nil)
        #expect(throws: Never.self) { try UnixSocket.connect(to: place.path("m.sock")) }
    }

    @Test func `HI-J19: a daemon that was killed leaves sockets that the next one takes`() throws {
        let place = try ServePlace("killed")
        let first = try place.serve(management(place))
        #expect(place.sees("ready"))
        first.kill()
        #expect(first.waitForEnd(milliseconds: 5000) == 256 + SIGKILL)
        #expect(place.sockets == ["m.sock"])
        let next = try place.serve(management(place), log: "log2")
        #expect(place.sees("ready", in: "log2"))
        withExtendedLifetime(next) {}
    }

    @Test func `what cannot be opened ends it with status 1, and nothing is left`() throws {
        let place = try ServePlace("nowhere")
        try place.write(
            """
            control: \(place.path("c.sock"))
            devices:
              - {name: a, kind: management, vfio-user: \(place.path("a.sock"))}
              - {name: b, kind: management, vfio-user: \(place.path("none/b.sock"))}
            """,
            "f.yaml"
        )
        let program = try place.serve(["--config", place.path("f.yaml")])
        #expect(program.waitForEnd(milliseconds: 10_000) == 1)
        #expect(place.text().contains("none/b.sock"))
        #expect(place.text().contains("socket/path: b: no socket can be made"))
        #expect(place.text().contains("`mkdir -p \(place.path("none"))`"))
        #expect(place.sockets.isEmpty)
    }

    @Test func `a command that holds a virtual device ends with the daemon that has it`() throws {
        let place = try ServePlace("held")
        let program = try place.serve(management(place))
        #expect(place.sees("ready"))
        let held = try place.run(
            [
                "vdev", "add", "vfio-user:\(place.path("m.sock"))", "--type", "vhost-pci-net",
                "--hold",
            ]
        )
        #expect(place.sees("virtual device 1, vhost-pci-net", in: "ctl"))
        #expect(held.exitStatus == nil)
        program.kill()
        #expect(held.waitForEnd(milliseconds: 10_000) == 1)
        #expect(place.text("ctl").contains("vfu/peer-gone: "))
    }

    @Test func `HI-J22: a wrong file ends it with status 2 before anything is opened`() throws {
        let place = try ServePlace("wrong")
        try place.write("control: \(place.path("c.sock"))\ndevices: [{kind: net}]\n", "f.yaml")
        let program = try place.serve(["--config", place.path("f.yaml")])
        #expect(program.waitForEnd(milliseconds: 10_000) == 2)
        #expect(place.text().contains("f.yaml:2: devices[0].name: "))
        #expect(place.sockets.isEmpty)
    }

    @Test func `a missing file, and one that is no text, end it with status 2`() throws {
        let place = try ServePlace("unreadable")
        try place.write("\u{0}", "f.yaml")
        for name in ["f.yaml", "none.yaml", "."] {
            let program = try place.serve(["--config", place.path(name), "--check-config"])
            #expect(program.waitForEnd(milliseconds: 10_000) == 2, "\(name)")
        }
    }

    @Test func `VFU-S-80: a listening descriptor takes the place of the path`() throws {
        let place = try ServePlace("fd")
        let raw = unsafe shim_listen(place.path("given.sock"), 4, -1)
        let given = FileDescriptor(owning: raw)
        let program = try place.serve(
            ["--device", "management", "--fd", "5"],
            descriptors: [5: given.rawValue]
        )
        #expect(place.sees("management0: listening on fd:5"))
        let client = try UnixSocket.connect(to: place.path("given.sock"))
        #expect(place.sees("client connected"))
        program.signal(SIGTERM)
        #expect(program.waitForEnd(milliseconds: 2000) == 0)
        #expect(place.sockets == ["given.sock"])
        withExtendedLifetime(client) {}
    }

    @Test func `a descriptor that is no socket is refused`() throws {
        let place = try ServePlace("nofd")
        let file = FileDescriptor(owning: unsafe open("/dev/null", O_RDWR | O_CLOEXEC))
        let program = try place.serve(
            ["--device", "management", "--fd", "5"],
            descriptors: [5: file.rawValue]
        )
        #expect(program.waitForEnd(milliseconds: 10_000) == 1)
        let closed = try place.serve(["--device", "management", "--fd", "77"], log: "log2")
        #expect(closed.waitForEnd(milliseconds: 10_000) == 1)
    }

    @Test func `a service manager hands sockets over and is told what happens`() throws {
        let place = try ServePlace("systemd")
        let (manager, notices) = try Self.datagrams(at: place.path("notify.sock"))
        let given = FileDescriptor(owning: unsafe shim_listen(place.path("m.sock"), 4, -1))
        let program = try place.serve(
            management(place),
            prelude: "export LISTEN_FDS=1 LISTEN_FDNAMES=management0 LISTEN_PID=$$"
                + " WATCHDOG_USEC=200000 NOTIFY_SOCKET=\(place.path("notify.sock"));",
            descriptors: [3: given.rawValue]
        )
        #expect(notices { $0.hasPrefix("READY=1\nSTATUS=") })
        #expect(notices { $0 == "WATCHDOG=1" } && notices { $0 == "WATCHDOG=1" })
        let client = try UnixSocket.connect(to: place.path("m.sock"))
        #expect(place.sees("client connected"))
        program.signal(SIGTERM)
        #expect(notices { $0.hasPrefix("STOPPING=1") })
        #expect(program.waitForEnd(milliseconds: 2000) == 0)
        #expect(place.sockets.contains("m.sock"))
        withExtendedLifetime((manager, client)) {}
    }

    @Test func `a socket that was handed over serves the device that is added again`() throws {
        let place = try ServePlace("again")
        let given = FileDescriptor(owning: unsafe shim_listen(place.path("m.sock"), 4, -1))
        let program = try place.serve(
            management(place) + ["--control", place.path("c.sock")],
            prelude: "export LISTEN_FDS=1 LISTEN_FDNAMES=management0 LISTEN_PID=$$;",
            descriptors: [3: given.rawValue]
        )
        let control = try ControlConnection(place.path("c.sock"), waitMilliseconds: 10_000)
        for _ in 0..<2 {
            for words in [
                ["device", "remove", "management0"],
                [
                    "device", "add", "name=management0", "kind=management",
                    "vfio-user=\(place.path("m.sock"))",
                ],
            ] {
                _ = try control.call(try #require(ControlRequest(words)))
            }
        }
        let client = try UnixSocket.connect(to: place.path("m.sock"))
        #expect(place.sees("client connected"))
        program.signal(SIGTERM)
        #expect(program.waitForEnd(milliseconds: 2000) == 0)
        withExtendedLifetime(client) {}
    }

    /// A datagram socket, and a wait for a datagram on it.
    static func datagrams(
        at path: String
    ) throws -> (FileDescriptor, ((String) -> Bool) -> Bool) {
        let kind = Int32(SOCK_DGRAM.rawValue | SOCK_CLOEXEC.rawValue | SOCK_NONBLOCK.rawValue)
        let socket = FileDescriptor(owning: socket(AF_UNIX, kind, 0))
        var address = sockaddr_un()
        address.sun_family = sa_family_t(AF_UNIX)
        unsafe withUnsafeMutableBytes(of: &address.sun_path) { bytes in
            unsafe bytes.copyBytes(from: Array(path.utf8))
        }
        let bound = unsafe withUnsafePointer(to: &address) { pointer in
            unsafe pointer.withMemoryRebound(to: sockaddr.self, capacity: 1) {
                unsafe bind(socket.rawValue, $0, socklen_t(MemoryLayout<sockaddr_un>.size))
            }
        }
        try #require(bound == 0)
        return (
            socket,
            { isWanted in
                let deadline = Deadline(milliseconds: 5000)
                while !deadline.hasPassed {
                    if let bytes = try? socket.readNow(count: 4096), !bytes.isEmpty,
                        isWanted(String(decoding: bytes, as: UTF8.self))
                    {
                        return true
                    }
                    usleep(1000)
                }
                return false
            }
        )
    }

    @Test func `a client asks, adds, removes, and ends it`() throws {
        let place = try ServePlace("control")
        let control = place.path("c.sock")
        let program = try place.serve(management(place) + ["--control", control])
        let connection = try ControlConnection(control, waitMilliseconds: 10_000)
        func call(_ words: String...) throws -> RPCValue {
            try connection.call(try #require(ControlRequest(words)))
        }
        #expect(try call("version").members?["schema"] == .text("vhost-pci.control/1"))
        let added = try call(
            "device",
            "add",
            "name=p",
            "kind=net",
            "vhost-user=\(place.path("p.sock"))"
        )
        #expect(added.members?["name"] == .text("p") && place.sockets.contains("p.sock"))
        for (words, id) in [
            (["device", "add", "name=p", "kind=net", "vhost-user=/x"], "serve/name"),
            (
                ["device", "add", "name=q", "kind=net", "vhost-user=\(place.path("p.sock"))"],
                "serve/socket"
            ),
            (["device", "add", "name=q", "kind=net"], "config/missing"),
            (["device", "add"], "config/missing"), (["device", "show", "z"], "serve/name"),
            (["device", "show"], "rpc/params"), (["version", "a=b"], "rpc/params"),
            (["versionn"], "rpc/method"),
        ] {
            let error = #expect(throws: HostRefusal.self) {
                try connection.call(try #require(ControlRequest(words)))
            }
            #expect(error?.id == id, "\(words)")
        }
        guard case .list(let devices) = try call("device", "list") else { return }
        #expect(devices.count == 2)
        _ = try call("device", "remove", "p")
        #expect(!place.sockets.contains("p.sock"))
        #expect(try call("stats").members?["schema"] == .text("vhost-pci.serve-stats/1"))
        #expect(try call("shutdown") == .object([:]))
        #expect(program.waitForEnd(milliseconds: 2000) == 0)
        #expect(place.sockets.isEmpty)
    }
}

@Suite struct ServiceManagerTests {
    @Test(arguments: [
        ["LISTEN_PID": "1", "LISTEN_FDS": "1", "LISTEN_FDNAMES": "a"],
        ["LISTEN_FDS": "1", "LISTEN_FDNAMES": "a"],
        ["LISTEN_PID": "\(getpid())", "LISTEN_FDS": "x", "LISTEN_FDNAMES": "a"],
        ["LISTEN_PID": "\(getpid())", "LISTEN_FDS": "0"],
        ["LISTEN_PID": "\(getpid())", "LISTEN_FDS": "-1"],
    ])
    func `sockets for somebody else, or none, are no sockets`(variables: [String: String]) throws {
        #expect(try ActivatedSockets(variables).sockets.isEmpty)
    }

    @Test(arguments: [("2", "a"), ("2", "a:a"), ("1", "a:b"), ("99999", "a")])
    func `sockets without a name each are refused`(row: (String, String)) {
        let error = #expect(throws: HostRefusal.self) {
            try ActivatedSockets([
                "LISTEN_PID": "\(getpid())", "LISTEN_FDS": row.0, "LISTEN_FDNAMES": row.1,
            ])
        }
        #expect(error?.id == "serve/activation")
    }

    @Test func `a socket whose name nothing has is told`() throws {
        var activated = ActivatedSockets()
        let (one, _) = try UnixSocket.pair()
        for name in ["m", "p", "m.0", "x"] { activated.add(one.descriptor, for: name, "vfio-user") }
        var configuration = ServeConfiguration()
        var device = DeviceSettings(name: "m", kind: .management)
        device.peers = ["/p"]
        configuration.devices = [device]
        #expect(
            activated.unused(configuration) == ["m.0.vfio-user", "p.vfio-user", "x.vfio-user"]
        )
    }

    @Test func `a socket is found by device and end, then by device`() throws {
        var activated = ActivatedSockets()
        let (one, other) = try UnixSocket.pair()
        activated.add(one.descriptor, for: "a", "vfio-user")
        #expect(try activated.listener("a", "vhost-user", path: "x") == nil)
        #expect(try activated.listener("a", "vfio-user", path: "x") != nil)
        // A connection is there once.
        #expect(try activated.listener("a", "vfio-user", path: "x") == nil)
        withExtendedLifetime(other) {}
    }

    @Test func `a listening socket goes from one device to the next, and to one at a time`() throws
    {
        let path = "/tmp/vhost-pci-activated-\(getpid())"
        defer { unsafe unlink(path) }
        var activated = ActivatedSockets()
        let given = FileDescriptor(owning: unsafe shim_listen(path, 4, -1))
        activated.add(given, for: "a", "vfio-user")
        for _ in 0..<3 {
            let listener = try #require(try activated.listener("a", "vfio-user", path: path))
            #expect(try activated.listener("a", "vfio-user", path: path) == nil)
            let client = try UnixSocket.connect(to: path)
            #expect(try listener.accept() != nil)
            withExtendedLifetime(client) {}
        }
    }

    @Test(
        arguments: [
            (["WATCHDOG_USEC": "4000000"], 2000), (["WATCHDOG_USEC": "x"], nil),
            (["WATCHDOG_USEC": "0"], nil), (["WATCHDOG_USEC": "-1"], nil),
            (["WATCHDOG_USEC": "4000000", "WATCHDOG_PID": "1"], nil), ([:], nil),
        ] as [([String: String], UInt64?)]
    )
    func `a watchdog is for the process that it names`(row: ([String: String], UInt64?)) throws {
        let manager = ServiceManager(row.0, loop: try EventLoop())
        #expect(manager.watchdogMilliseconds == row.1)
        manager.ready("x")
        manager.stopping()
    }

    @Test(arguments: [
        "", String(repeating: "x", count: 200), "/tmp/vhost-pci-nobody-here", "@none",
    ])
    func `a service manager that is not there is no reason to fail`(path: String) throws {
        let manager = ServiceManager(["NOTIFY_SOCKET": path], loop: try EventLoop())
        manager.ready("x")
        manager.status("x")
        manager.stopping()
    }
}
