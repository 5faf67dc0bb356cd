import ArgumentParser
import CSystemShims
import Glibc
import HostSystem
import PCI

/// `vhost-pci serve` at work: its devices, its control socket, and the signals that end it.
final class Daemon {
    /// What the daemon runs by; `devices` are those that a file or options described.
    private(set) var configuration: ServeConfiguration
    let reporter: StepReporter
    let dataPlane: DataPlane
    let manager: ServiceManager
    let devices: DeviceSet
    private let source: ConfigurationSource?
    private let loop: EventLoop
    private let context: ServeContext
    private var control: ControlServer?
    private var looking: EventLoop.Source?
    /// Everything is to end.
    var isEnding = false
    /// SIGHUP came.
    private var isReloadWanted = false
    /// Devices are made or removed, which may turn the loop: no other change begins meanwhile.
    private var isChanging = false
    let started = MonotonicClock.now

    /// How often devices and ports are looked after, in milliseconds.
    private static let lookMilliseconds: UInt64 = 100

    /// Prepares a daemon; nothing is opened yet. `source` is the file that it is described in.
    init(
        _ configuration: ServeConfiguration,
        from source: ConfigurationSource? = nil,
        _ reporter: StepReporter,
        environment: [String: String],
        activated: ActivatedSockets
    ) throws {
        self.configuration = configuration
        self.source = source
        self.reporter = reporter
        reporter.level = configuration.logLevel
        loop = try EventLoop()
        dataPlane = DataPlane(configuration.dataPlane, reporter)
        let context = ServeContext(
            loop: loop,
            reporter: reporter,
            dataPlane: dataPlane,
            socketMode: configuration.socketMode,
            socketGroup: configuration.socketGroup,
            activated: activated
        )
        for name in activated.unused(configuration) {
            reporter.step(
                "serve/activation: a socket was handed over as '\(name)', and nothing here has that"
                    + " name; FileDescriptorName= is that of a device, or `control`",
                level: .warning
            )
        }
        self.context = context
        devices = DeviceSet(
            control: configuration.control,
            forget: { [dataPlane] in dataPlane.forget($0) },
            isDetaching: { [dataPlane] in dataPlane.isDetaching($0) },
            make: { try ServedDevices.make($0, context) }
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
        try serve { try $0.turn(limitMilliseconds: 1000) }
    }

    /// As `run`, without the process's signals; `turn` serves the loop once.
    func serve(_ turn: (EventLoop) throws -> Void) throws {
        do {
            try open()
        } catch {
            close()
            throw error
        }
        tellReady()
        do {
            while !isEnding {
                try turn(loop)
                if isReloadWanted, !isEnding { reloadForSignal() }
            }
        } catch {
            reporter.problem("serve/loop: \(error); the daemon ends")
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
                loop: loop,
                onFailure: { [reporter] error in
                    reporter.step(
                        "limit/nofile: a client waits: \(error.errno); raise the limit:"
                            + " `ulimit -n`, or LimitNOFILE= of the unit",
                        from: "control",
                        id: "limit/nofile"
                    )
                }
            ) { [weak self] request in
                guard let self, !isEnding else { throw RPCError(.ending) }
                return try answer(request)
            }
            context.tellListening("control", path)
        }
        if !configuration.dataPlane.uplinks.isEmpty { _ = try dataPlane.running() }
        for settings in configuration.devices { try devices.add(settings) }
        look()
    }

    private func tellReady() {
        reporter.step("ready: \(count)")
        manager.ready(count)
    }

    private var count: String {
        devices.all.count == 1 ? "1 device" : "\(devices.all.count) devices"
    }

    private func take(_ signals: FileDescriptor) {
        switch shim_next_signal(signals.rawValue) {
        case SIGHUP:
            // Not here: devices may be in the middle of a change that turns the loop.
            isReloadWanted = true
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
        devices.look(dataPlane.snapshot())
        looking = loop.after(milliseconds: Self.lookMilliseconds) { [weak self] in self?.look() }
    }

    private func close() {
        isEnding = true
        if let looking { loop.remove(looking) }
        looking = nil
        control?.close()
        control = nil
        devices.close()
        do {
            try dataPlane.stop()
            devices.forget()
        } catch {
            // A worker may still touch what they have: it stays until the process is gone.
            reporter.problem("\(error)")
            _ = unsafe Unmanaged.passRetained(self)
        }
    }
}

// The configuration is read again, and devices change.
extension Daemon {
    /// Makes or removes devices, and tells the service manager how many there are. Refuses what comes
    /// while another change is under way.
    func change<Result>(_ body: () throws -> Result) throws -> Result {
        guard !isChanging else {
            throw HostRefusal(
                "serve/changing",
                "devices are being made or removed already",
                remedy: "ask again when that is done"
            )
        }
        isChanging = true
        defer {
            isChanging = false
            manager.status(count)
        }
        return try body()
    }

    /// Reads the file again, and makes the devices those that it describes. Throws, and changes
    /// nothing, when the file is wrong or there is none.
    func reload() throws -> ConfigurationReload {
        guard let source else {
            throw HostRefusal(
                "serve/no-file",
                "the devices were described by options, not in a file",
                remedy: "start with --config FILE, or use `vhost-pci ctl device add` and `remove`"
            )
        }
        return try change {
            let file = try source.readAgain()
            manager.reloading()
            defer { manager.ready(count) }
            context.socketMode = file.socketMode
            context.socketGroup = file.socketGroup
            if file.logLevel != configuration.logLevel { reporter.level = file.logLevel }
            let report = ConfigurationReload(
                file,
                running: configuration,
                fromFile: Set(configuration.devices.map(\.name)),
                devices,
                isEnding: { isEnding }
            )
            configuration.devices = file.devices
            configuration.logLevel = file.logLevel
            tell(report, source.path)
            return report
        }
    }

    private func tell(_ report: ConfigurationReload, _ path: String) {
        for refusal in report.refused { reporter.step(refusal.line, level: .warning) }
        for key in report.restart {
            reporter.step("\(path): \(key): a change takes a restart", level: .warning)
        }
        reporter.step("read \(path) again: \(report.line)")
    }

    private func reloadForSignal() {
        isReloadWanted = false
        do {
            _ = try reload()
        } catch {
            let error = RPCError(error)
            let id = error.problems.isEmpty ? "\(error.id): " : ""
            let remedy = error.remedy.map { "; \($0)" } ?? ""
            reporter.problem("SIGHUP: \(id)\(error.text)\(remedy)")
        }
    }
}
