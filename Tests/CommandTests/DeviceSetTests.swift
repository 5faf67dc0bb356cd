import Glibc
import GuestMemory
import HostSystem
import PCI
import PollEngine
import Synchronization
import Testing
import VirtioSpec
import Virtqueue

@testable import vhost_pci

@Suite struct DeviceSetTests {
    private final class Device: ServedDevice {
        let settings: DeviceSettings
        var isInUse = false
        var onClose: () -> Void = {}

        init(_ settings: DeviceSettings) { self.settings = settings }

        var report: ServedDeviceReport {
            ServedDeviceReport(
                settings,
                sockets: [],
                ServedEvents(StepReporter(json: false, neverWaits: true))
            )
        }

        func close() { onClose() }
    }

    private static func settings(_ name: String, _ path: String? = nil) -> DeviceSettings {
        var settings = DeviceSettings(name: name, kind: .net)
        settings.vfioUser = path ?? "/\(name)"
        return settings
    }

    @Test func `a removed device is kept until the worker has let go of it`() throws {
        var isDetaching = true
        weak var gone: Device?
        let devices = DeviceSet(control: nil, isDetaching: { _ in isDetaching }) { Device($0) }
        do {
            let device = try devices.add(Self.settings("a"))
            gone = device as? Device
            devices.remove(device)
        }
        #expect(devices.all.isEmpty && gone != nil)
        devices.look(nil)
        #expect(gone != nil)
        // Its name is free at once.
        try devices.add(Self.settings("a"))
        devices.look(nil)
        #expect(gone != nil && devices.all.count == 1)
        isDetaching = false
        devices.look(nil)
        #expect(gone == nil && devices.all.count == 1)
    }

    @Test func `what no worker uses goes at once, and what is closed stays until nobody runs`()
        throws
    {
        weak var gone: Device?
        weak var closed: Device?
        let devices = DeviceSet(control: nil, isDetaching: { _ in false }) { Device($0) }
        do {
            let device = try devices.add(Self.settings("a"))
            gone = device as? Device
            devices.remove(device)
            closed = try devices.add(Self.settings("b")) as? Device
        }
        #expect(gone == nil)
        devices.close()
        #expect(closed != nil)
        devices.forget()
        #expect(closed == nil && devices.all.isEmpty)
    }

    @Test func `a port is forgotten with the last device of its name, and not before`() throws {
        var isDetaching = true
        var forgotten: [String] = []
        let devices = DeviceSet(
            control: nil,
            forget: { forgotten.append($0) },
            isDetaching: { _ in isDetaching }
        ) { settings in
            if settings.name == "bad" { throw HostRefusal("test/bad", "no", remedy: "why") }
            return Device(settings)
        }
        devices.remove(try devices.add(Self.settings("a")))
        let again = try devices.add(Self.settings("a"))
        isDetaching = false
        devices.look(nil)
        #expect(forgotten.isEmpty)
        devices.remove(again)
        #expect(forgotten == ["a"])
        // One that could not be made may have had a port already.
        #expect(throws: HostRefusal.self) { try devices.add(Self.settings("bad")) }
        #expect(forgotten == ["a", "bad"])
    }

    @Test func `a thousand devices have ports one after the other`() throws {
        let plane = DataPlane(
            DataPlaneSettings(),
            StepReporter(json: true, neverWaits: true)
        )
        for number in 0..<1000 {
            let port = try plane.port("net\(number)")
            #expect(try plane.port("net\(number)") == port)
            plane.forget("net\(number)")
        }
        #expect(plane.snapshot()?.ports.isEmpty == true)
        // One with rings stays: a device of the same name has it next.
        let rings = try NetRings(features: .version1)
        let engine = try plane.running()
        let port = try plane.port("a")
        var pairs = PortPairs()
        let region = try #require(
            unsafe MemoryRegion(
                start: NetRings.guestAddress,
                size: UInt64(rings.mapping.length),
                host: rings.mapping.address
            )
        )
        let memory = try MemoryTable([region], owners: [rings.mapping])
        pairs.append(
            PeerPort(
                receive: try SplitDeviceQueue(rings.configurations[1], memory: memory),
                transmit: nil,
                mergeable: false,
                receiveDoorbell: .none,
                transmitDoorbell: .none
            )
        )
        try engine.attach(port, pairs: pairs, memory: memory)
        plane.forget("a")
        #expect(try plane.port("a") == port)
        try engine.detach(port)
        plane.forget("a")
        #expect(try plane.port("a") != port)
        try plane.stop()
    }

    @Test func `names, sockets and the number of devices have limits`() throws {
        let devices = DeviceSet(control: "/c", isDetaching: { _ in false }) { settings in
            if settings.name == "bad" { throw HostRefusal("test/bad", "no", remedy: "why") }
            return Device(settings)
        }
        try devices.add(Self.settings("a"))
        for (settings, id) in [
            (Self.settings("a", "/x"), "serve/name"), (Self.settings("b", "/a"), "serve/socket"),
            (Self.settings("b", "/c"), "serve/socket"), (Self.settings("bad"), "test/bad"),
        ] {
            let error = #expect(throws: HostRefusal.self) { try devices.add(settings) }
            #expect(error?.id == id && error?.remedy.isEmpty == false)
        }
        for index in 1..<DeviceSet.limit { try devices.add(Self.settings("d\(index)")) }
        let error = #expect(throws: HostRefusal.self) { try devices.add(Self.settings("more")) }
        #expect(error?.id == "serve/limit")
    }

    @Test func `a device is not found any more while it closes`() throws {
        let devices = DeviceSet(control: nil, isDetaching: { _ in false }) { Device($0) }
        let device = try #require(try devices.add(Self.settings("a")) as? Device)
        var found: Bool?
        device.onClose = { found = devices.device("a") != nil }
        devices.remove(device)
        #expect(found == false)
    }

    @Test func `a change that cannot be made leaves the device that was there`() throws {
        let devices = DeviceSet(control: nil, isDetaching: { _ in false }) { settings in
            if settings.vfioUser == "/bad" { throw HostRefusal("test/bad", "no") }
            return Device(settings)
        }
        try devices.add(Self.settings("a"))
        try devices.add(Self.settings("b"))
        let used = try #require(devices.device("b") as? Device)
        used.isInUse = true
        var file = ServeConfiguration()
        file.devices = [Self.settings("a", "/bad"), Self.settings("b", "/new")]
        let report = ConfigurationReload(
            file,
            running: ServeConfiguration(),
            fromFile: ["a", "b"],
            devices,
            isEnding: { false }
        )
        #expect(report.refused.map(\.id) == ["serve/in-use", "test/bad"])
        #expect(devices.device("a")?.settings.vfioUser == "/a")
        #expect(devices.device("b") === used)
    }

    @Test func `a daemon that is ending changes no devices any more`() throws {
        let devices = DeviceSet(control: nil, isDetaching: { _ in false }) { Device($0) }
        try devices.add(Self.settings("a"))
        var file = ServeConfiguration()
        file.devices = [Self.settings("b")]
        let report = ConfigurationReload(
            file,
            running: ServeConfiguration(),
            fromFile: ["a"],
            devices,
            isEnding: { true }
        )
        #expect(report == ConfigurationReload())
        #expect(devices.all.map(\.settings.name) == ["a"])
    }
}

@Suite struct DaemonTests {
    private struct LoopFailure: Error {}

    @Test func `a daemon whose loop fails gives everything back`() throws {
        let folder = "/tmp/vhost-pci-loop-\(getpid())"
        try #require(unsafe mkdir(folder, 0o700) == 0)
        var configuration = ServeConfiguration()
        configuration.control = "\(folder)/c.sock"
        var settings = DeviceSettings(name: "m", kind: .management)
        settings.vfioUser = "\(folder)/m.sock"
        settings.peers = ["\(folder)/p.sock"]
        settings.builtIn = 1
        configuration.devices = [settings]
        let log = FileDescriptor(owning: unsafe open("/dev/null", O_WRONLY | O_CLOEXEC))
        weak var devices: DeviceSet?
        weak var loop: EventLoop?
        do {
            let daemon = try Daemon(
                configuration,
                StepReporter(steps: log.rawValue, neverWaits: true),
                environment: [:],
                activated: ActivatedSockets()
            )
            devices = daemon.devices
            var clients: [UnixSocket] = []
            #expect(throws: LoopFailure.self) {
                try daemon.serve { given in
                    loop = given
                    for name in ["c", "m", "p"] where clients.count < 3 {
                        clients.append(try UnixSocket.connect(to: "\(folder)/\(name).sock"))
                    }
                    for _ in 0..<20 { try given.turn(limitMilliseconds: 1) }
                    throw LoopFailure()
                }
            }
            // Whoever was connected is let go.
            for client in clients {
                var isOver = false
                while !isOver {
                    let piece = try? client.receive(limit: 4096)
                    isOver = piece?.bytes.isEmpty ?? true
                    if piece == nil { break }
                }
                #expect(isOver)
            }
            #expect(clients.count == 3 && daemon.devices.all.isEmpty)
        }
        #expect(devices == nil && loop == nil)
        #expect(unsafe rmdir(folder) == 0, "sockets are left in \(folder)")
    }
}
