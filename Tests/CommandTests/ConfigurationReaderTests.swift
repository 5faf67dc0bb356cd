import AdminQueue
import ArgumentParser
import HostSystem
import PollEngine
import Testing

@testable import vhost_pci

@Suite struct ConfigurationReaderTests {
    private static let whole = """
        control: /run/v/control.sock
        socket-mode: 0660
        data-plane:
          cores: 0
          idle: sleep
          uplinks: [tap:up0, tap:up1]
        devices:
          - name: mgmt0
            kind: management
            vfio-user: /run/v/mgmt0.sock
            peers: [/run/v/p0.sock, /run/v/p1.sock]
            window: 1G
          - name: net0
            kind: net
            vfio-user: /run/v/net0.sock
            mac: 02:00:00:00:00:01
            mtu: 9000
            queue-pairs: 2
          - {name: port.1, kind: net, vhost-user: /run/v/port1.sock}
          - name: vpci0
            kind: vhost-pci-net
            vhost-user: /run/v/vm1.sock
            vfio-user: /run/v/vpci0.sock
            headroom: 2
        """

    private func problems(_ yaml: String) -> [ConfigurationProblem] {
        do throws(ConfigurationProblemList) {
            _ = try ConfigurationReader.read(yaml: yaml)
            return []
        } catch {
            return error.problems
        }
    }

    private static func device(_ lines: String) -> String {
        "devices:\n  - name: a\n" + lines.split(separator: "\n").map { "    \($0)\n" }.joined()
    }

    @Test func `a whole file`() throws {
        let configuration = try ConfigurationReader.read(yaml: Self.whole)
        #expect(configuration.control == "/run/v/control.sock")
        #expect(configuration.socketMode == 0o660)
        #expect(configuration.dataPlane.cores == [0] && configuration.dataPlane.idle == .sleep)
        #expect(configuration.dataPlane.uplinks == ["up0", "up1"])
        let devices = configuration.devices
        #expect(devices.map(\.kind) == [.management, .net, .net, .peerNet])
        #expect(devices[0].peers.count == 2 && devices[0].window == 1 << 30)
        #expect(devices[1].mac == MACAddress(local: 1) && devices[1].mtu == 9000)
        #expect(devices[1].queuePairs == 2 && devices[2].vhostUser == "/run/v/port1.sock")
        #expect(devices[3].headroom == 2 && devices[3].paths.count == 2)
    }

    @Test func `the file beside the systemd units is in order`() throws {
        let root = #filePath.split(separator: "/").dropLast(3).joined(separator: "/")
        let source = ConfigurationSource(path: "/\(root)/tools/systemd/serve.yaml")
        #expect(try source.read().devices.map(\.kind) == [.management, .net, .net, .peerNet])
    }

    @Test func `a file of too many devices, and one with a wrong level, are refused`() {
        let devices = (0...DeviceSet.limit).map { "{name: d\($0), kind: net, vfio-user: /\($0)}" }
        let found = problems("devices: [\(devices.joined(separator: ", "))]\nlog-level: loud")
        #expect(found.map(\.key) == ["devices", "log-level"])
        #expect(found.allSatisfy { $0.id == "config/range" })
    }

    @Test func `what is left out has a default`() throws {
        let configuration = try ConfigurationReader.read(
            yaml: "devices: [{name: a, kind: management, vfio-user: /a}]"
        )
        #expect(configuration.control == nil && configuration.socketMode == 0o600)
        #expect(configuration.dataPlane == DataPlaneSettings())
        #expect(configuration.devices[0].maximumDevices == 4)
        #expect(configuration.devices[0].personality == .multi)
    }

    private static let wrongFiles: [(String, String, Int)] = [
        ("devices: a: b", "config/syntax", 1), ("devices:\n\t- a", "config/syntax", 2),
        ("- a\n- b", "config/type", 1), ("hello", "config/type", 1), ("", "config/missing", 1),
        ("control: /a", "config/missing", 1), ("devices: []", "config/missing", 1),
        ("devices: {a: b}", "config/type", 1), ("devices: x", "config/type", 1),
        ("devices:\n  - x", "config/type", 2), ("devices:\n  - [x]", "config/type", 2),
        ("control: /a\ncontrol: /b\ndevices: []", "config/duplicate", 1),
        ("devices: *nowhere", "config/syntax", 1), ("[a]: b", "config/syntax", 1),
        ("control: [/a]", "config/type", 1), ("control: {a: b}", "config/type", 1),
        ("control:", "config/type", 1), ("data-plane: 3", "config/type", 1),
        ("kontrol: /a", "config/key", 1), ("socket-mode: 660", "none", 1),
        ("socket-mode: 0888", "config/type", 1), ("socket-mode: 1777", "config/type", 1),
        ("socket-mode: rw", "config/type", 1),
        ("socket-group: no such group", "config/type", 1),
        ("socket-group: -1", "config/type", 1),
        ("socket-group: 4294967295", "config/type", 1),
        ("data-plane: {mode: swich}", "config/range", 1),
        ("data-plane: {idle: never}", "config/range", 1),
        ("data-plane: {cores: a}", "config/type", 1),
        ("data-plane: {cores: -1}", "config/type", 1),
        ("data-plane: {cores: 99999}", "config/range", 1),
        ("data-plane: {cores: {a: b}}", "config/type", 1),
        ("data-plane: {cores: [[0]]}", "config/type", 1),
        ("data-plane: {cores: [0, 0]}", "config/duplicate", 1),
        ("data-plane: {uplinks: eth0}", "config/type", 1),
        ("data-plane: {uplinks: 'tap:'}", "config/type", 1),
        ("data-plane: {uplinks: 'tap:0123456789abcdef'}", "config/type", 1),
        ("data-plane: {mode: echo, uplinks: 'tap:a'}", "config/conflict", 1),
        ("data-plane:\n  spin: yes", "config/key", 2),
    ]

    @Test(arguments: wrongFiles)
    func `HI-J22: a wrong file is told by line and kind`(row: (String, String, Int)) {
        let found = problems(row.0)
        guard row.1 != "none" else {
            #expect(found.map(\.id) == ["config/missing"])
            return
        }
        #expect(found.contains { $0.id == row.1 && $0.line == row.2 }, "\(found)")
    }

    private static let wrongDevices: [(String, String)] = [
        ("kind: net", "config/missing"), ("kind: management", "config/missing"),
        ("kind: vhost-pci-net", "config/missing"), ("vfio-user: /a", "config/missing"),
        ("kind: nett\nvfio-user: /a", "config/range"), ("kind: [net]", "config/type"),
        ("kind: net\nvfio-user: /a\nvhost-user: /b", "config/conflict"),
        ("kind: net\nvhost-user: /b\nmtu: 1500", "config/conflict"),
        ("kind: net\nvhost-user: /b\nmac: 02:00:00:00:00:01", "config/conflict"),
        ("kind: net\nvfio-user: /a\nmtu: 67", "config/range"),
        ("kind: net\nvfio-user: /a\nmtu: 65536", "config/range"),
        ("kind: net\nvfio-user: /a\nmtu: 99999999999999999999", "config/type"),
        ("kind: net\nvfio-user: /a\nmtu: -1", "config/type"),
        ("kind: net\nvfio-user: /a\nmtu: 1_500", "config/type"),
        ("kind: net\nvfio-user: /a\nmtu: 1.5e3", "config/type"),
        ("kind: net\nvfio-user: /a\nqueue-pairs: 0", "config/range"),
        ("kind: net\nvfio-user: /a\nmac: 01:00:00:00:00:01", "config/type"),
        ("kind: net\nvfio-user: /a\nmac: ff:ff:ff:ff:ff:ff", "config/type"),
        ("kind: net\nvfio-user: /a\nmac: 2:0:0:0:0:1", "config/type"),
        ("kind: net\nvfio-user: /a\nheadroom: 2", "config/key"),
        ("kind: net\nvfio-user: [/a]", "config/type"), ("kind: net\nvfio-user: ''", "config/type"),
        ("kind: management\nvfio-user: /a\nmac: 02:00:00:00:00:01", "config/key"),
        ("kind: management\nvfio-user: /a\npersonality: all", "config/range"),
        ("kind: management\nvfio-user: /a\nmaximum-devices: 65", "config/range"),
        ("kind: management\nvfio-user: /a\npeers: [/p, {a: b}]", "config/type"),
        ("kind: management\nvfio-user: /a\npeers: [/p, /q]\nmaximum-devices: 1", "config/conflict"),
        ("kind: management\nvfio-user: /a\npeers: [/a]", "config/duplicate"),
        ("kind: management\nvfio-user: /a\nwindow: 3M", "config/type"),
        ("kind: management\nvfio-user: /a\nbuilt-in: 5", "config/conflict"),
        ("kind: management\nvfio-user: /a\nbuilt-in: -1", "config/type"),
        ("kind: management\nvfio-user: /a\nwindow: 128G", "config/type"),
        ("kind: management\nvfio-user: /a\nwindow: 4096", "config/type"),
        ("kind: vhost-pci-net\nvfio-user: /a\nvhost-user: /a", "config/duplicate"),
        ("kind: vhost-pci-net\nvfio-user: /a\nvhost-user: /b\nheadroom: 17", "config/range"),
    ]

    @Test(arguments: wrongDevices)
    func `HI-J22: a wrong device is told by key`(row: (String, String)) {
        let found = problems(Self.device(row.0))
        #expect(found.contains { $0.id == row.1 }, "\(found)")
        #expect(found.allSatisfy { $0.key?.hasPrefix("devices") == true && $0.line != nil })
    }

    @Test(arguments: [
        "", "-a", ".a", "a b", "a/b", "ä", "a\\x7f", String(repeating: "x", count: 65),
    ])
    func `HI-J22: a name that would confuse is refused`(name: String) {
        let found = problems("devices: [{name: \"\(name)\", kind: management, vfio-user: /a}]")
        #expect(found.contains { $0.key == "devices[0].name" })
    }

    @Test func `HI-J20: a socket path that does not fit is told with its length`() {
        let path = "/" + String(repeating: "x", count: 107)
        let found = problems(Self.device("kind: management\nvfio-user: \(path)"))
        #expect(found.map(\.id) == ["config/range"] && found[0].text.contains("108"))
    }

    @Test func `HI-J22: two devices share neither name nor socket`() {
        let found = problems(
            """
            control: /c
            devices:
              - {name: a, kind: management, vfio-user: /a}
              - {name: a, kind: management, vfio-user: /c}
              - {name: b, kind: net, vhost-user: /a}
            """
        )
        #expect(found.map(\.id) == Array(repeating: "config/duplicate", count: 3))
        #expect(found.map(\.line) == [4, 4, 5])
    }

    @Test func `HI-J22: all problems of a file come at once, in the order of lines`() {
        let found = problems(
            "kontrol: /a\ndata-plane: {idle: no}\ndevices:\n  - {name: a, kind: net, mtu: 1}\n  - {}"
        )
        #expect(found.count >= 6)
        #expect(found.compactMap(\.line) == found.compactMap(\.line).sorted())
        #expect(
            found[0].sentence(in: "f.yaml")
                == "f.yaml:1: kontrol: unknown key; did you mean control? (config/key)"
        )
    }

    @Test(arguments: [
        ("sockets-mode", "socket-mode"), ("Control", "control"), ("device", "devices"),
        ("dataplane", "data-plane"),
    ])
    func `HI-J23: the key that was probably meant is offered`(row: (String, String)) {
        let found = problems("\(row.0): x")
        #expect(found[0].text.hasSuffix("did you mean \(row.1)?"))
    }

    @Test func `HI-J23: what is near to nothing has no offer`() {
        #expect(Nearest.offer(for: "zzzzzz", among: ["net", "management"]) == "")
        #expect(Nearest.offer(for: "", among: ["net"]) == "")
        #expect(Nearest.offer(for: "x", among: []) == "")
        #expect(Nearest.distance(Array("kitten"), Array("sitting")) == 3)
    }

    @Test func `HI-J22: a file that unfolds without end is cut off`() {
        var yaml = "a: &a [x, x, x, x, x, x, x, x, x, x]\n"
        for (one, next) in zip("abcdefg", "bcdefgh") {
            let ten = Array(repeating: "*\(one)", count: 10).joined(separator: ", ")
            yaml += "\(next): &\(next) [\(ten)]\n"
        }
        #expect(problems(yaml).map(\.id) == ["config/syntax"])
        let deep = String(repeating: "[", count: 5000) + String(repeating: "]", count: 5000)
        #expect(problems("devices: " + deep).map(\.id) == ["config/syntax"])
    }

    @Test func `options make the same configuration as a file, and the same problems`() throws {
        func parse(_ line: String) throws -> ServeCommand {
            let words = line.split(separator: " ").map(String.init)
            return try #require(try VhostPCI.parseAsRoot(words) as? ServeCommand)
        }
        let configuration = try parse(
            "serve --device vhost-pci-net --socket-path /a --peer /b --headroom 2 --control /c"
                + " --uplink tap:x --cores 0 --socket-mode 0666"
        ).fromOptions()
        #expect(configuration.devices[0].name == "vhost-pci-net0")
        #expect(configuration.devices[0].paths == ["/a", "/b"])
        #expect(configuration.control == "/c" && configuration.socketMode == 0o666)
        #expect(configuration.dataPlane.uplinks == ["x"] && configuration.dataPlane.cores == [0])
        let management = try parse("serve --device management --fd 5 --peer /b --peer /d")
            .fromOptions()
        #expect(management.devices[0].vfioUser == "fd:5")
        #expect(management.devices[0].peers == ["/b", "/d"])
        let wrong = try parse("serve --device management --mac 02:00:00:00:00:01")
        let error = #expect(throws: ConfigurationProblemList.self) { try wrong.fromOptions() }
        #expect(error?.problems.map(\.id) == ["config/key", "config/missing"])
        #expect(error?.problems[0].line == nil)
    }

    @Test(arguments: [
        "serve", "serve --config a --device net", "serve --device disk",
        "serve --device net --socket-path /a --fd 3", "serve --device net --fd 2",
        "serve --device net --fd x", "serve --config a --peer /b", "serve --config a --fd 3",
        "serve --config a --socket-mode 0600", "serve --config a b", "ctl", "ctl --wait -1 version",
        "ctl name=x", "ctl =x", "ctl device show {", "ctl device add {]}",
    ])
    func `options that exclude each other, or lead nowhere, are wrong usage`(line: String) {
        #expect(throws: (any Error).self) {
            try VhostPCI.parseAsRoot(line.split(separator: " ").map(String.init))
        }
    }
}
