import ArgumentParser
import Glibc
import HostSystem
import PollEngine
import VirtioSpec

/// `vhost-pci serve`: the devices of this program as a daemon.
struct ServeCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "serve",
        abstract: "Serve emulated devices at vfio-user and vhost-user sockets.",
        discussion: """
            The devices are those of a configuration file, or one that is described by options. \
            `--socket-path` is the vfio-user socket of that device and `--peer` the vhost-user socket \
            where its peer connects; a net device with `--peer` alone is a port of the switch. Stays \
            in the foreground; SIGTERM and SIGINT end it, SIGHUP reads the file again. \
            docs/serve.md describes file, options, control socket and service units.
            """
    )

    @Option(help: "The configuration file (YAML).")
    var config: String?

    @Flag(help: "Check the configuration, say everything that is wrong with it, and end.")
    var checkConfig = false

    @Option(help: "Instead of a file: one device, management, net or vhost-pci-net.")
    var device: DeviceSettings.Kind?

    @Option(help: "The vfio-user socket of that device.")
    var socketPath: String?

    @Option(parsing: .unconditional, help: "The same as an open descriptor.")
    var fd: Int32?

    @Option(
        name: .customLong("peer"),
        help: """
            A vhost-user socket: where the peer of a vhost-pci-net device connects, those of a \
            management device's in their order, or the front-end of a net device.
            """
    )
    var peers: [String] = []

    @Option(help: "Address of a net device.")
    var mac: String?

    @Option(parsing: .unconditional, help: "Longest packet of a net device.")
    var mtu: String?

    @Option(parsing: .unconditional, help: "Queue pairs of a net or vhost-pci-net device.")
    var queuePairs: String?

    @Option(
        parsing: .unconditional,
        help: "How many times its peer's memory the window of a vhost-pci-net device holds."
    )
    var headroom: String?

    @Option(parsing: .unconditional, help: "Most virtual devices of a management device.")
    var maximumDevices: String?

    @Option(help: "Window of each of them, such as 256M.")
    var window: String?

    @Option(name: .customLong("uplink"), help: "A further port of the switch, as tap:NAME.")
    var uplinks: [String] = []

    @Option(parsing: .unconditional, help: "CPU of the polling thread.")
    var cores: String?

    @Option(help: "What it does when there is nothing to do: spin, pause or sleep.")
    var idle: String?

    @Option(help: "Listen here for `vhost-pci ctl`; wins over the file.")
    var control: String?

    @Option(help: "Mode of the sockets, such as 0660. Default: 0600.")
    var socketMode: String?

    @Option(help: "Group that these sockets are given to.")
    var socketGroup: String?

    @Option(parsing: .unconditional, help: "Virtual devices built into a management device.")
    var builtIn: String?

    @Option(
        help: "How much is said: error, warning, info or debug. Default: info; wins over the file."
    )
    var logLevel: LogLevel?

    @Flag(help: "Print what a program of this kind can do, as JSON, and end.")
    var printCapabilities = false

    @Flag(help: "Errors as JSON on standard output; steps go to standard error.")
    var json = false

    func validate() throws {
        if printCapabilities { return }
        guard (config == nil) != (device == nil) else {
            throw ValidationError("give --config FILE or --device KIND, and not both")
        }
        if socketPath != nil, fd != nil {
            throw ValidationError("--socket-path and --fd exclude each other")
        }
        if let fd, fd < 3 { throw ValidationError("--fd takes a descriptor from 3 on") }
        if config != nil {
            let others = !peers.isEmpty || !uplinks.isEmpty || socketPath != nil || fd != nil
            let words = [
                mac, mtu, queuePairs, headroom, maximumDevices, window, cores, idle, socketMode,
                socketGroup, builtIn,
            ]
            if others || words.contains(where: { $0 != nil }) {
                throw ValidationError("with --config, the file describes devices and data plane")
            }
        }
    }

    func run() throws {
        if printCapabilities { return try Self.tellCapabilities(of: device ?? .net) }
        let reporter = StepReporter(json: json, neverWaits: true)
        let configuration = try read(reporter)
        if checkConfig { return try tellChecked(configuration) }
        try CommandFailure.reporting(json: json) {
            let environment = ServeEnvironment.current
            var activated = try ActivatedSockets(environment)
            ServeEnvironment.forget()
            if let fd, let device = configuration.devices.first {
                activated.add(FileDescriptor(owning: fd), for: device.name, "vfio-user")
            }
            let daemon = try Daemon(
                configuration,
                from: source,
                reporter,
                environment: environment,
                activated: activated
            )
            try daemon.run()
        }
    }

    private var source: ConfigurationSource? {
        config.map { ConfigurationSource(path: $0, control: control, logLevel: logLevel) }
    }

    /// The configuration of the file or of the options; tells its problems and ends with status 2.
    private func read(_ reporter: StepReporter) throws -> ServeConfiguration {
        let origin = config ?? "options"
        do {
            return try source?.read() ?? fromOptions()
        } catch let list as ConfigurationProblemList {
            for problem in list.problems {
                var problem = problem
                if config == nil { problem.key = problem.key.flatMap(Self.option(for:)) }
                reporter.problem(problem.sentence(in: origin))
            }
            if json { try CommandFailure.print(ConfigurationCheck(origin, list.problems, 0)) }
        } catch {
            let failure = CommandFailure(error)
            reporter.problem(failure.line)
            let problem = ConfigurationProblem(.file, line: 0, failure.error.detail)
            if json { try CommandFailure.print(ConfigurationCheck(origin, [problem], 0)) }
        }
        throw ExitCode(2)
    }

    /// The option for a key of the configuration; `nil` where there is none.
    static func option(for key: String) -> String? {
        let others = [
            "vfio-user": "socket-path", "vhost-user": "peer", "peers": "peer", "kind": "device",
            "uplinks": "uplink",
        ]
        guard let last = key.split(separator: ".").last else { return nil }
        let word = String(last.prefix { $0 != "[" })
        return word == "devices" ? nil : "--\(others[word] ?? word)"
    }

    private func tellChecked(_ configuration: ServeConfiguration) throws {
        let count = configuration.devices.count
        let source = config ?? "options"
        if json { return try CommandFailure.print(ConfigurationCheck(source, [], count)) }
        try CommandFailure.print(
            lines: ["\(source): in order, \(count) \(count == 1 ? "device" : "devices")"]
        )
    }
}

extension DeviceSettings.Kind: ExpressibleByArgument {}

extension LogLevel: ExpressibleByArgument {}

// One device by options, checked as the file is.
extension ServeCommand {
    /// The configuration that the options describe.
    func fromOptions() throws(ConfigurationProblemList) -> ServeConfiguration {
        func entry(_ key: String, _ value: ConfigurationValue) -> ConfigurationValue.Entry {
            ConfigurationValue.Entry(key: key, line: 0, value: value)
        }
        func texts(_ pairs: [(String, String?)]) -> [ConfigurationValue.Entry] {
            pairs.compactMap { key, text in text.map { entry(key, .text($0, line: 0)) } }
        }
        let kind = device ?? .net
        var own = texts([
            ("name", "\(kind.rawValue)0"), ("kind", kind.rawValue),
            ("vfio-user", socketPath ?? fd.map { "fd:\($0)" }),
            ("mac", mac), ("mtu", mtu), ("queue-pairs", queuePairs), ("headroom", headroom),
            ("maximum-devices", maximumDevices), ("window", window),
            ("built-in", builtIn),
        ])
        if kind == .management, !peers.isEmpty {
            own.append(entry("peers", .list(peers.map { .text($0, line: 0) }, line: 0)))
        } else {
            own += peers.map { entry("vhost-user", .text($0, line: 0)) }
        }
        var plane = texts([("cores", cores), ("idle", idle)])
        if !uplinks.isEmpty {
            plane.append(entry("uplinks", .list(uplinks.map { .text($0, line: 0) }, line: 0)))
        }
        var all = texts([
            ("control", control), ("socket-mode", socketMode),
            ("socket-group", socketGroup), ("log-level", logLevel?.rawValue),
        ])
        if !plane.isEmpty { all.append(entry("data-plane", .map(plane, line: 0))) }
        all.append(entry("devices", .list([.map(own, line: 0)], line: 0)))
        return try ConfigurationReader.read(.map(all, line: 0))
    }

    /// What back-end programs say of themselves (vhost-user: Backend program conventions), with what
    /// each device type offers here.
    private static func tellCapabilities(of kind: DeviceSettings.Kind) throws {
        let type: DeviceType =
            switch kind {
            case .management: .management
            case .net: .net
            case .peerNet: .vhostPCINet
            }
        let ends: [String] =
            switch kind {
            case .management: ["vfio-user"]
            case .net: ["vfio-user", "vhost-user"]
            case .peerNet: ["vfio-user", "vhost-user-peer"]
            }
        try CommandFailure.print(
            BackendCapabilities(
                type: kind.rawValue,
                features: ends + ["socket-path", "fd", "reconnect"],
                virtioType: type.rawValue
            )
        )
    }
}

/// `--print-capabilities`.
struct BackendCapabilities: Codable, Equatable {
    var type: String
    var features: [String]
    var virtioType: UInt32

    enum CodingKeys: String, CodingKey {
        case type, features
        case virtioType = "virtio_type"
    }
}

/// `--check-config --json`: `vhost-pci.config-check/1`.
struct ConfigurationCheck: Codable, Equatable {
    var schema = "vhost-pci.config-check/1"
    var source: String
    var problems: [ConfigurationProblem]
    var deviceCount: Int

    enum CodingKeys: String, CodingKey {
        case schema, source, problems
        case deviceCount = "device_count"
    }

    init(_ source: String, _ problems: [ConfigurationProblem], _ count: Int) {
        self.source = source
        self.problems = problems
        deviceCount = count
    }
}

/// The variables that a service manager passes on.
enum ServeEnvironment {
    private static let names = [
        "NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID", "LISTEN_PID", "LISTEN_FDS",
        "LISTEN_FDNAMES",
    ]

    /// Those that are set.
    static var current: [String: String] {
        var values: [String: String] = [:]
        for name in names {
            if let text = unsafe getenv(name) { values[name] = unsafe String(cString: text) }
        }
        return values
    }

    /// They are for this process and for no other that it may start.
    static func forget() {
        for name in names { unsafe unsetenv(name) }
    }
}
