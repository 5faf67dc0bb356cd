import Glibc
import HostSystem
import PCI
import Testing

@testable import vhost_pci

/// `vhost-pci serve` that reads its file again.
@Suite(.serialized) struct ReloadTests {
    private final class Rig {
        let place: ServePlace
        let program: Program
        let control: ControlConnection

        init(
            _ name: String,
            _ devices: String,
            arguments: [String] = [],
            prelude: (ServePlace) throws -> String = { _ in "" }
        ) throws {
            place = try ServePlace("reload-\(name)")
            try Self.write(devices, place)
            program = try place.serve(
                ["--config", place.path("f.yaml")] + arguments,
                prelude: try prelude(place)
            )
            control = try ControlConnection(place.path("c.sock"), waitMilliseconds: 10_000)
            _ = try call("version")
        }

        static func write(_ devices: String, _ place: ServePlace, first: String = "") throws {
            let lines = devices.split(separator: "\n").map { "  - {\($0)}\n" }.joined()
            let text = "control: @/c.sock\ndata-plane: {idle: sleep}\n\(first)devices:\n\(lines)"
            let parts = text.split(separator: "@", omittingEmptySubsequences: false)
            try place.write(parts.joined(separator: place.folder), "f.yaml")
        }

        func write(_ devices: String, first: String = "") throws {
            try Self.write(devices, place, first: first)
        }

        func call(_ words: String...) throws -> RPCValue {
            try control.call(try #require(ControlRequest(words)))
        }

        func names() throws -> [String] {
            guard case .list(let list) = try call("device", "list") else { return [] }
            return list.compactMap { $0.members?["name"]?.text }
        }

        func reload() throws -> ConfigurationReload {
            let members = try #require(try call("reload").members)
            func list(_ key: String) -> [String] {
                guard case .list(let list)? = members[key] else { return [] }
                return list.compactMap { $0.text ?? $0.members?["id"]?.text }
            }
            #expect(members["schema"] == .text("vhost-pci.reload/1"))
            var report = ConfigurationReload()
            report.added = list("added")
            report.removed = list("removed")
            report.changed = list("changed")
            report.unchanged = list("unchanged")
            report.restart = list("restart")
            report.refused = list("refused").map { .init("", HostRefusal($0, "")) }
            return report
        }
    }

    private static let two = """
        name: a, kind: management, vfio-user: @/a.sock
        name: b, kind: net, vfio-user: @/b.sock
        """

    @Test func `a file that is read again makes, changes and removes devices`() throws {
        let rig = try Rig("all", Self.two)
        #expect(try rig.reload().unchanged == ["a", "b"])
        try rig.write(
            """
            name: b, kind: net, vfio-user: @/b.sock, mtu: 9000
            name: c, kind: net, vhost-user: @/a.sock
            """
        )
        let report = try rig.reload()
        #expect(report.added == ["c"] && report.removed == ["a"] && report.changed == ["b"])
        #expect(report.unchanged.isEmpty && report.refused.isEmpty && report.restart.isEmpty)
        #expect(try rig.names() == ["b", "c"])
        #expect(try rig.call("device", "show", "b").members?["mtu"] == .integer(9000))
        #expect(rig.place.sockets == ["a.sock", "b.sock", "c.sock"])
        rig.program.signal(SIGTERM)
        #expect(rig.program.waitForEnd(milliseconds: 5000) == 0)
        #expect(rig.place.sockets.isEmpty)
    }

    @Test func `SIGHUP reads the file again, and a service manager is told`() throws {
        var manager: (socket: FileDescriptor, hears: ((String) -> Bool) -> Bool)?
        let rig = try Rig("signal", Self.two) { place in
            manager = try ServeTests.datagrams(at: place.path("n"))
            return "export NOTIFY_SOCKET=\(place.path("n"));"
        }
        let hears = try #require(manager).hears
        #expect(hears { $0.hasPrefix("READY=1") })
        try rig.write("name: z, kind: management, vfio-user: @/z.sock")
        rig.program.signal(SIGHUP)
        #expect(rig.place.sees("1 added, 2 removed, 0 changed, 0 unchanged, 0 refused"))
        #expect(hears { $0.hasPrefix("RELOADING=1\nMONOTONIC_USEC=") })
        #expect(hears { $0 == "READY=1\nSTATUS=1 device" })
        #expect(try rig.names() == ["z"])
    }

    @Test func `HI-J22: a broken file changes nothing, and says where it is broken`() throws {
        let rig = try Rig("broken", Self.two)
        try rig.write("name: a, kind: manage\nname: b, kind: net, mtu: 3\n")
        let error = #expect(throws: HostRefusal.self) { try rig.call("reload") }
        #expect(error?.id == "config/range")
        #expect(error?.detail.contains("f.yaml:4: devices[0].kind: 'manage' is none of") == true)
        #expect(error?.detail.contains("f.yaml:5: devices[1].mtu: 3 is out of range") == true)
        #expect(error?.remedy.hasPrefix("nothing is changed; mend the file") == true)
        rig.program.signal(SIGHUP)
        #expect(rig.place.sees("SIGHUP: \(rig.place.path("f.yaml")):4: devices[0].kind: "))
        unsafe unlink(rig.place.path("f.yaml"))
        let missing = #expect(throws: HostRefusal.self) { try rig.call("reload") }
        #expect(missing?.id == "config/file" && missing?.remedy.contains("nothing") == true)
        // A pipe would hold everybody up until somebody writes into it.
        #expect(unsafe mkfifo(rig.place.path("f.yaml"), 0o600) == 0)
        #expect(throws: HostRefusal.self) { try rig.call("reload") }
        #expect(try rig.names() == ["a", "b"])
    }

    @Test func `a changed device stays as it is while somebody is connected`() throws {
        let rig = try Rig("used", Self.two)
        let client = try UnixSocket.connect(to: rig.place.path("b.sock"))
        #expect(rig.place.sees("b vfio-user: client connected"))
        try rig.write(
            """
            name: a, kind: management, vfio-user: @/b.sock
            name: b, kind: net, vfio-user: @/b2.sock
            name: c, kind: net, vfio-user: @/none/c.sock
            """
        )
        let report = try rig.reload()
        // The socket that `a` is to have belongs to the device that stays: `a` is what it was.
        #expect(report.refused.map(\.id) == ["serve/in-use", "serve/socket", "socket/path"])
        #expect(report.added.isEmpty && report.changed.isEmpty && report.removed.isEmpty)
        #expect(rig.place.sees("serve/in-use: b: somebody is connected"))
        #expect(rig.place.sockets == ["a.sock", "b.sock", "c.sock"])
        #expect(try rig.names().sorted() == ["a", "b"])
        withExtendedLifetime(client) {}
        let ctl = try rig.place.run(["ctl", "--control", rig.place.path("c.sock"), "reload"])
        #expect(ctl.waitForEnd(milliseconds: 10_000) == 1)
    }

    @Test func `devices of clients stay, and keys that take a restart are named`() throws {
        let rig = try Rig("own", Self.two)
        _ = try rig.call(
            "device",
            "add",
            "name=x",
            "kind=net",
            "vhost-user=\(rig.place.path("x.sock"))"
        )
        _ = try rig.call("device", "remove", "b")
        try rig.write(Self.two, first: "socket-mode: 0640\nlog-level: debug\n")
        let text = rig.place.text("f.yaml")
        try rig.place.write(
            text.split(separator: "\n").map { line in
                line.hasPrefix("data-plane") ? "data-plane: {idle: spin}" : String(line)
            }.joined(separator: "\n"),
            "f.yaml"
        )
        let report = try rig.reload()
        #expect(report.added == ["b"] && report.unchanged == ["a"])
        #expect(report.restart == ["data-plane"])
        #expect(Set(try rig.names()) == ["a", "b", "x"])
        #expect(try rig.call("log", "level") == .object(["level": .text("debug")]))
        var information = stat()
        #expect(unsafe stat(rig.place.path("b.sock"), &information) == 0)
        #expect(information.st_mode & 0o777 == 0o640)
    }

    @Test func `without a file nothing is read again, and that is said`() throws {
        let place = try ServePlace("reload-none")
        let program = try place.serve([
            "--device", "management", "--socket-path", place.path("m.sock"), "--control",
            place.path("c.sock"),
        ])
        let control = try ControlConnection(place.path("c.sock"), waitMilliseconds: 10_000)
        let error = #expect(throws: HostRefusal.self) {
            try control.call(try #require(ControlRequest(["reload"])))
        }
        #expect(error?.id == "serve/no-file" && error?.remedy.isEmpty == false)
        #expect(place.sees("ready"))
        program.signal(SIGHUP)
        #expect(place.sees("SIGHUP: serve/no-file: "))
        #expect(program.exitStatus == nil)
    }

    @Test func `the log level is asked for and set`() throws {
        let rig = try Rig("level", Self.two, arguments: ["--log-level", "warning"])
        #expect(!rig.place.text().contains("listening on"))
        #expect(try rig.call("log", "level") == .object(["level": .text("warning")]))
        for wrong in ["loud", "", "INFO"] {
            let error = #expect(throws: HostRefusal.self) {
                try rig.call("log.level", "level=\(wrong)")
            }
            #expect(error?.id == "rpc/params")
        }
        #expect(throws: HostRefusal.self) { try rig.call("log.level", "levle=info") }
        #expect(try rig.call("log", "level", "debug") == .object(["level": .text("debug")]))
        #expect(rig.place.sees("log level debug, asked for by a client"))
        _ = try rig.call("stats")
        #expect(rig.place.sees("control: stats: done"))
        _ = try rig.call("log", "level", "error")
        _ = try rig.call("device", "remove", "a")
        #expect(throws: HostRefusal.self) { try rig.call("device", "remove", "a") }
        _ = try rig.call("log", "level", "info")
        #expect(rig.place.sees("log level info"))
        #expect(!rig.place.text().contains("a: removed"))
    }
}
