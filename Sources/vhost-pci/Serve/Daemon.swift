import ArgumentParser
import CSystemShims
import Glibc
import HostSystem
import PCI

/// `vhost-pci serve` at work: its devices, its control socket, and the signals that end it.
final class Daemon {
    private let configuration: ServeConfiguration
    private let reporter: StepReporter
    private let loop: EventLoop
    private let dataPlane: DataPlane
    private let context: ServeContext
    private let manager: ServiceManager
    private var devices: [any ServedDevice] = []
    /// Removed, and kept for a worker that may still signal their eventfds.
    private var departed: [any ServedDevice] = []
    private var control: ControlServer?
    private var looking: EventLoop.Source?
    private var isEnding = false
    private let started = MonotonicClock.now

    /// How often devices and ports are looked after, in milliseconds.
    private static let lookMilliseconds: UInt64 = 100
    /// Most devices.
    static let deviceLimit = 64

    /// Prepares a daemon; nothing is opened yet.
    init(
        _ configuration: ServeConfiguration,
        _ reporter: StepReporter,
        environment: [String: String],
        activated: ActivatedSockets
    ) throws {
        self.configuration = configuration
        self.reporter = reporter
        loop = try EventLoop()
        dataPlane = DataPlane(configuration.dataPlane, reporter)
        context = ServeContext(
            loop: loop,
            reporter: reporter,
            dataPlane: dataPlane,
            socketMode: configuration.socketMode,
            socketGroup: configuration.socketGroup,
            activated: activated
        )
        manager = ServiceManager(environment, loop: loop)
    }

    /// Opens everything, serves until asked to end, and gives everything back. Throws when something
    /// cannot be opened; nothing is left behind then.
    func run() throws {
        shim_ignore_broken_pipes()
        let signals = FileDescriptor(
            owning: try checked(shim_termination_signals(), "watch for signals")
        )
        try checked(shim_sigbus_install(), "contain SIGBUS")
        let source = try loop.watch(signals) { [weak self] in self?.take(signals) }
        defer { loop.remove(source) }
        do {
            try open()
        } catch {
            close()
            throw error
        }
        tellReady()
        do {
            while !isEnding { try loop.turn(limitMilliseconds: 1000) }
        } catch {
            manager.stopping()
            close()
            throw error
        }
        manager.stopping()
        // Whoever asks a second time does not wait for the rest.
        shim_release_terminations()
        close()
        reporter.tellOmitted()
    }

    private func open() throws {
        if let path = configuration.control {
            control = try ControlServer(
                try context.listener("control", nil, path: path),
                loop: loop
            ) { [weak self] request in
                guard let self, !isEnding else { throw RPCError(.ending) }
                return try carryOut(request)
            }
            context.tellListening("control", path)
        }
        if !configuration.dataPlane.uplinks.isEmpty { _ = try dataPlane.running() }
        for settings in configuration.devices { try add(settings) }
        look()
    }

    private func add(_ settings: DeviceSettings) throws {
        do {
            devices.append(try ServedDevices.make(settings, context))
        } catch {
            throw HostRefusal(naming: settings.name, error)
        }
    }

    private func tellReady() {
        let count = devices.count
        reporter.step("ready: \(count) \(count == 1 ? "device" : "devices")")
        manager.ready("\(count) devices")
    }

    private func take(_ signals: FileDescriptor) {
        switch shim_next_signal(signals.rawValue) {
        case SIGHUP:
            reporter.step(
                "SIGHUP: the configuration is not read again; restart, or use `vhost-pci ctl`"
            )
        case SIGINT:
            reporter.step("interrupted")
            isEnding = true
        case let number where number > 0:
            reporter.step("asked to end")
            isEnding = true
        default: break
        }
    }

    private func look() {
        dataPlane.look()
        let report = dataPlane.snapshot()
        for device in devices { device.look(report) }
        departed.removeAll { !dataPlane.isDetaching($0.settings.name) }
        looking = loop.after(milliseconds: Self.lookMilliseconds) { [weak self] in self?.look() }
    }

    private func close() {
        isEnding = true
        if let looking { loop.remove(looking) }
        looking = nil
        control?.close()
        control = nil
        for device in devices { device.close() }
        do {
            try dataPlane.stop()
            devices = []
            departed = []
        } catch {
            // A worker may still touch what they have: it stays until the process is gone.
            reporter.problem("\(error)")
            _ = unsafe Unmanaged.passRetained(self)
        }
    }
}

// What clients of the control socket ask for.
extension Daemon {
    /// Names of the methods with their parameters.
    static let methods: [(name: String, parameters: [String])] = [
        ("device.add", ["as a device of the configuration file"]),
        ("device.list", []), ("device.remove", ["name"]), ("device.show", ["name"]),
        ("methods", []), ("shutdown", []), ("stats", []), ("version", []),
    ]

    private func carryOut(_ request: RPCRequest) throws -> RPCValue {
        let method = request.method
        guard let known = Self.methods.first(where: { $0.name == method }) else {
            let near = Nearest.offer(for: method, among: Self.methods.map(\.name))
            throw RPCError(.method, "there is no method '\(method.prefix(64))'\(near)")
        }
        if method != "device.add" {
            try Self.check(request.parameters, against: known.parameters)
        }
        switch method {
        case "device.add": return try addDevice(request.parameters)
        case "device.list": return .list(try devices.map { try RPCValue(encoding: $0.report) })
        case "device.show": return try RPCValue(encoding: try device(request).report)
        case "device.remove": return try removeDevice(request)
        case "methods": return Self.methodTable
        case "shutdown":
            reporter.step("asked to end by a client")
            isEnding = true
            return .object([:])
        case "stats": return try statistics()
        default: return version
        }
    }

    private static func check(
        _ parameters: [String: RPCValue],
        against names: [String]
    ) throws(RPCError) {
        for name in parameters.keys.sorted() where !names.contains(name) {
            throw RPCError(.parameters, "there is no parameter '\(name.prefix(64))'")
        }
        for name in names where parameters[name] == nil {
            throw RPCError(.parameters, "the parameter '\(name)' is missing")
        }
    }

    private static var methodTable: RPCValue {
        .list(
            methods.map { method in
                .object([
                    "name": .text(method.name),
                    "parameters": .list(method.parameters.map { .text($0) }),
                ])
            }
        )
    }

    private var version: RPCValue {
        .object([
            "schema": .text("vhost-pci.control/1"),
            "version": .text(VhostPCI.configuration.version),
            "pid": .integer(Int64(getpid())),
            "uptime_seconds": .integer(Int64((MonotonicClock.now - started) / 1_000_000_000)),
        ])
    }

    private func device(_ request: RPCRequest) throws(RPCError) -> any ServedDevice {
        guard let name = request.parameters["name"]?.text else {
            throw RPCError(.parameters, "the parameter 'name' is a text")
        }
        guard let device = devices.first(where: { $0.settings.name == name }) else {
            let near = Nearest.offer(for: name, among: devices.map(\.settings.name))
            throw RPCError(
                .failed,
                "there is no device '\(name.prefix(64))'\(near)",
                id: "serve/name"
            )
        }
        return device
    }

    private func addDevice(_ parameters: [String: RPCValue]) throws -> RPCValue {
        let settings = try ConfigurationReader.read(
            device: RPCValue.object(parameters).configuration
        )
        let sockets = Set(devices.flatMap(\.settings.paths) + [configuration.control ?? ""])
        if devices.contains(where: { $0.settings.name == settings.name }) {
            throw RPCError(.failed, "there is a '\(settings.name)' already", id: "serve/name")
        }
        if let path = settings.paths.first(where: sockets.contains) {
            throw RPCError(.failed, "the socket \(path) is used already", id: "serve/socket")
        }
        guard devices.count < Self.deviceLimit else {
            throw RPCError(.failed, "there are \(devices.count) devices already", id: "serve/limit")
        }
        try add(settings)
        manager.status("\(devices.count) devices")
        return try RPCValue(encoding: devices[devices.count - 1].report)
    }

    private func removeDevice(_ request: RPCRequest) throws -> RPCValue {
        let gone = try device(request)
        // Closing may turn the loop: nobody shall find the device any more.
        devices.removeAll { $0 === gone }
        gone.close()
        if dataPlane.isDetaching(gone.settings.name) { departed.append(gone) }
        manager.status("\(devices.count) devices")
        reporter.step("\(gone.settings.name): removed")
        return .object([:])
    }

    private func statistics() throws -> RPCValue {
        let reports = devices.map(\.report)
        var connections: [String: UInt64] = [:]
        var paths: [String: String] = [:]
        for report in reports {
            connections[report.name] = report.sockets.first?.connections
            paths[report.name] = report.sockets.first?.path
        }
        var members: [String: RPCValue] = [
            "schema": .text("vhost-pci.serve-stats/1"), "workers": .list([]), "ports": .list([]),
        ]
        if let run = dataPlane.report(paths: paths, connections: connections) {
            members["workers"] = try RPCValue(encoding: run.workers)
            members["ports"] = try RPCValue(encoding: run.ports)
            members["seconds"] = .number(run.durationSeconds)
        }
        return .object(members)
    }
}

extension HostRefusal {
    /// What went wrong with one device of several.
    init(naming name: String, _ error: any Error) {
        let reason = CommandFailure(error).error
        self.init(
            reason.id ?? "serve/device",
            "\(name): \(reason.detail)",
            remedy: reason.remedy ?? ""
        )
    }
}
