import AdminQueue
import Glibc
import HostSystem
import Testing
import Virtio
import VirtioSpec

@testable import vhost_pci

/// Devices of a daemon in a process of its own, driven from others.
@Suite(.serialized) struct ServedDevicesTests {
    private typealias Daemon = ServedDaemon

    @Test func `a management device is driven, left, and driven again`() throws {
        let daemon = try Daemon(
            "management",
            "name: m, kind: management, vfio-user: @/m.sock, peers: [@/p.sock]"
        )
        let target = try DeviceTarget.parse(daemon.target("m"))
        for round in 1...2 {
            let session = try ManagementSession(target, try target.open(unsafeNoIOMMU: false))
            #expect(try session.list()?.isEmpty == true)
            let id = try session.driver.create(type: .vhostPCINet)
            #expect(try session.show(id).typeName == "vhost-pci-net")
            #expect(unsafe access("\(daemon.folder)/p.sock", F_OK) == 0)
            guard
                case .list(let found)? = try daemon.call("device", "show", "m")
                    .members?["virtual_devices"]
            else {
                Issue.record("no virtual devices")
                return
            }
            #expect(found.count == 1)
            // The second time it is left without a word.
            if round == 1 { session.close() }
        }
        #expect(try daemon.waits(for: "m", 0, "listening"))
    }

    @Test func `devices that come and go leave nothing behind`() throws {
        let daemon = try Daemon("cycles", "name: m, kind: management, vfio-user: @/m.sock")
        func cycle() throws {
            for (name, words) in [
                ("a", "kind=net vhost-user=@/a.sock"), ("b", "kind=net vfio-user=@/b.sock"),
                ("c", "kind=management vfio-user=@/g.sock peers=@/d.sock built-in=1"),
                ("e", "kind=vhost-pci-net vfio-user=@/e.sock vhost-user=@/f.sock"),
            ] {
                let parts = words.split(separator: "@", omittingEmptySubsequences: false)
                let keys = parts.joined(separator: daemon.folder).split(separator: " ")
                let all = ["device", "add", "name=\(name)"] + keys.map(String.init)
                _ = try daemon.control.call(try #require(ControlRequest(all)))
            }
            for name in ["a", "b", "c", "e"] { _ = try daemon.call("device", "remove", name) }
        }
        for _ in 0..<10 { try cycle() }
        let before = (daemon.program.descriptorCount, daemon.program.mappingCount)
        for _ in 0..<50 { try cycle() }
        #expect(before.0 > 0 && daemon.program.descriptorCount == before.0)
        #expect(before.1 > 0 && daemon.program.mappingCount <= before.1 + 2)
    }

    @Test func `devices that are built in outlive every driver`() throws {
        let daemon = try Daemon(
            "builtin",
            "name: m, kind: management, vfio-user: @/m.sock, peers: [@/p.sock], built-in: 1"
        )
        #expect(unsafe access("\(daemon.folder)/p.sock", F_OK) == 0)
        let target = try DeviceTarget.parse(daemon.target("m"))
        for _ in 0..<2 {
            let session = try ManagementSession(target, try target.open(unsafeNoIOMMU: false))
            let list = try #require(try session.list())
            #expect(list.map(\.id) == [1] && list[0].isStatic)
            session.close()
        }
    }

    @Test func `the sockets of a management device's peers are shown, and count as its use`() throws
    {
        let daemon = try Daemon(
            "shown",
            "name: m, kind: management, vfio-user: @/m.sock, peers: [@/p.sock, @/q.sock], built-in: 1"
        )
        #expect(try daemon.socket("m", 1, "state") == .text("listening"))
        #expect(try daemon.socket("m", 2, "state") == .text("waiting"))
        let peer = try UnixSocket.connect(to: "\(daemon.folder)/p.sock")
        #expect(try daemon.waits(for: "m", 1, "connected"))
        #expect(try daemon.socket("m", 1, "connections") == .integer(1))
        let file = FileDescriptor(
            owning: unsafe open("\(daemon.folder)/f.yaml", O_RDWR | O_CLOEXEC)
        )
        let text = String(decoding: try file.read(at: 0, count: 4096), as: UTF8.self)
        let parts = text.split(separator: "built-in: 1", omittingEmptySubsequences: false)
        try file.write(at: 0, Array(parts.joined(separator: "built-in: 2").utf8))
        guard case .list(let refused)? = try daemon.call("reload").members?["refused"] else {
            Issue.record("no list")
            return
        }
        #expect(refused.map { $0.members?["id"] } == [.text("serve/in-use")])
        withExtendedLifetime(peer) {}
    }

    @Test func `HI-J21: sockets have the mode and the group that were asked for`() throws {
        let folder = "/tmp/vhost-pci-served-\(getpid())-group"
        try #require(unsafe mkdir(folder, 0o700) == 0)
        let group = getuid() == 0 ? 12345 : getgid()
        let program = try Program([
            "serve", "--device", "management", "--socket-path", "\(folder)/m.sock", "--control",
            "\(folder)/c.sock", "--socket-mode", "0660", "--socket-group", "\(group)",
        ])
        _ = try ControlConnection("\(folder)/c.sock", waitMilliseconds: 10_000)
            .call(try #require(ControlRequest(["version"])))
        for name in ["m.sock", "c.sock"] {
            var information = stat()
            #expect(unsafe stat("\(folder)/\(name)", &information) == 0)
            #expect(information.st_mode & 0o777 == 0o660 && information.st_gid == group)
        }
        program.signal(SIGTERM)
        #expect(program.waitForEnd(milliseconds: 5000) == 0)
        #expect(unsafe rmdir(folder) == 0)
    }

    @Test func `what a client did wrong is counted by its id`() throws {
        let daemon = try Daemon("refused", "name: m, kind: management, vfio-user: @/m.sock")
        let client = try UnixSocket.connect(to: "\(daemon.folder)/m.sock")
        _ = try client.send([UInt8](repeating: 0xff, count: 16)[...])
        let deadline = Deadline(milliseconds: 5000)
        var shown = try daemon.call("device", "show", "m").members
        while shown?["refused"] == nil, !deadline.hasPassed {
            usleep(5000)
            shown = try daemon.call("device", "show", "m").members
        }
        let refused = try #require(shown?["refused"]?.members)
        #expect(refused.keys.allSatisfy { $0.hasPrefix("vfu/") } && !refused.isEmpty)
        #expect(shown?["last_refusal"]?.text?.contains("vfu/") == true)
        withExtendedLifetime(client) {}
    }

    @Test func `two net devices carry frames between their drivers`() throws {
        let daemon = try Daemon(
            "net",
            """
            name: a, kind: net, vfio-user: @/a.sock, mac: "02:00:00:00:00:0a", mtu: 9000
            name: b, kind: net, vfio-user: @/b.sock
            """
        )
        let shown = try daemon.call("device", "show", "a").members
        #expect(shown?["mac"] == .text("02:00:00:00:00:0a") && shown?["mtu"] == .integer(9000))
        let traffic = try Program([
            "device", "traffic", daemon.target("a"), daemon.target("b"), "--frames", "500",
        ])
        #expect(traffic.waitForEnd(milliseconds: 60_000) == 0)
        let ports = try daemon.call("stats").members?["ports"]
        guard case .list(let list)? = ports else { return }
        #expect(list.map { $0.members?["name"] } == [.text("a"), .text("b")])
    }

    @Test func `a vhost-pci-net device appears with its peer, and carries its frames`() throws {
        let daemon = try Daemon(
            "peer",
            "name: v, kind: vhost-pci-net, vhost-user: @/p.sock, vfio-user: @/v.sock"
        )
        #expect(try daemon.socket("v", 1, "state") == .text("waiting"))
        #expect(unsafe access("\(daemon.folder)/v.sock", F_OK) == -1)
        let peer = try Program(["peer", "--socket", "\(daemon.folder)/p.sock", "--duration", "1"])
        #expect(try daemon.waits(for: "v", 1, "listening"))
        let driver = try Program([
            "run", "--device", daemon.target("v"), "--mode", "echo", "--idle", "sleep",
        ])
        #expect(peer.waitForEnd(milliseconds: 30_000) == 0)
        #expect(try daemon.socket("v", 1, "connections") == .integer(1))
        driver.signal(SIGTERM)
        #expect(driver.waitForEnd(milliseconds: 10_000) == 0)
        #expect(try daemon.waits(for: "v", 1, "listening"))
    }

    @Test func `a driver that is killed leaves the device to the next one`() throws {
        let daemon = try Daemon(
            "killed",
            "name: v, kind: vhost-pci-net, vhost-user: @/p.sock, vfio-user: @/v.sock"
        )
        func peer() throws -> Program {
            try Program(["peer", "--socket", "\(daemon.folder)/p.sock", "--duration", "1"])
        }
        func driver() throws -> Program {
            try Program([
                "run", "--device", daemon.target("v"), "--mode", "echo", "--idle", "sleep",
            ])
        }
        let first = try peer()
        #expect(try daemon.waits(for: "v", 1, "listening"))
        let killed = try driver()
        #expect(try daemon.waits(for: "v", 1, "connected"))
        killed.kill()
        #expect(try daemon.waits(for: "v", 1, "listening"))
        // The first peer ends as it may; the next one has other memory.
        _ = first.waitForEnd(milliseconds: 30_000)
        let next = try peer()
        #expect(try daemon.waits(for: "v", 0, "connected"))
        #expect(try daemon.waits(for: "v", 1, "listening"))
        let living = try driver()
        #expect(next.waitForEnd(milliseconds: 30_000) == 0)
        living.signal(SIGTERM)
        #expect(living.waitForEnd(milliseconds: 10_000) == 0)
    }

    @Test func `a client that says nothing keeps no peer away`() throws {
        let daemon = try Daemon(
            "silent",
            "name: v, kind: vhost-pci-net, vhost-user: @/p.sock, vfio-user: @/v.sock"
        )
        func peer() throws -> Program {
            try Program(["peer", "--socket", "\(daemon.folder)/p.sock", "--duration", "1"])
        }
        let first = try peer()
        #expect(try daemon.waits(for: "v", 1, "listening"))
        let silent = try UnixSocket.connect(to: "\(daemon.folder)/v.sock")
        #expect(try daemon.waits(for: "v", 1, "connected"))
        first.kill()
        // It has other memory: the silent client, which saw nothing, goes.
        let next = try peer()
        #expect(try daemon.waits(for: "v", 1, "listening"))
        let refused = try daemon.call("device", "show", "v").members?["refused"]?.members ?? [:]
        #expect(refused["mem/file"] == nil)
        withExtendedLifetime((silent, next)) {}
    }

    @Test func `a function that could not be presented is tried again`() throws {
        let daemon = try Daemon(
            "retry",
            "name: v, kind: vhost-pci-net, vhost-user: @/p.sock, vfio-user: @/v.sock"
        )
        var obstacle: UnixListener? = try UnixListener(path: "\(daemon.folder)/v.sock")
        let peer = try Program(["peer", "--socket", "\(daemon.folder)/p.sock", "--duration", "1"])
        #expect(try daemon.waits(for: "v", 0, "connected"))
        #expect(try daemon.socket("v", 1, "state") == .text("waiting"))
        withExtendedLifetime(obstacle) {}
        obstacle = nil
        #expect(try daemon.waits(for: "v", 1, "listening"))
        _ = peer.waitForEnd(milliseconds: 30_000)
    }

    @Test func `a front-end of a net device is a port like the others`() throws {
        let daemon = try Daemon(
            "ports",
            """
            name: a, kind: net, vhost-user: @/a.sock
            name: b, kind: net, vhost-user: @/b.sock
            """
        )
        func peer(_ name: String, _ own: Int, _ other: Int) throws -> Program {
            try Program([
                "peer", "--socket", "\(daemon.folder)/\(name).sock", "--mac",
                "02:00:00:00:00:0\(own)", "--partner", "02:00:00:00:00:0\(other)", "--duration",
                "1",
            ])
        }
        let one = try peer("a", 1, 2)
        let other = try peer("b", 2, 1)
        #expect(one.waitForEnd(milliseconds: 30_000) == 0)
        #expect(other.waitForEnd(milliseconds: 30_000) == 0)
        #expect(try daemon.socket("a", 0, "connections") == .integer(1))
    }
}
