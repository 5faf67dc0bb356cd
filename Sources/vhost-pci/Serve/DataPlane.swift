import HostSystem
import PollEngine

/// The polling engine of the daemon, started when the first device needs it.
final class DataPlane {
    private let settings: DataPlaneSettings
    private let reporter: StepReporter
    private var engine: Engine?
    private var ports: [String: PortID] = [:]
    private var watch = PortWatch()
    private var started: UInt64 = 0
    private var goneUplinks: Set<String> = []

    /// Starts nothing.
    init(_ settings: DataPlaneSettings, _ reporter: StepReporter) {
        self.settings = settings
        self.reporter = reporter
    }

    /// The engine, with its uplinks; started at the first call.
    func running() throws -> Engine {
        if let engine { return engine }
        let cores =
            settings.cores.isEmpty ? Topology.usableCPUs.suffix(1) : settings.cores[...]
        let engine = try Engine(mode: settings.mode, cores: Array(cores), idle: settings.idle)
        for worker in engine.snapshot().workers {
            reporter.step(
                "worker on core \(worker.core), node \(worker.node),"
                    + " mode \(settings.mode.rawValue), idle \(settings.idle.rawValue)"
            )
        }
        for uplink in settings.uplinks {
            do {
                try engine.addTap(uplink)
            } catch {
                try? engine.stop()
                throw error
            }
            reporter.step("uplink \(uplink)")
        }
        started = MonotonicClock.now
        self.engine = engine
        return engine
    }

    /// The port of a device: the same one again for the same name until it is forgotten.
    func port(_ name: String) throws -> PortID {
        if let port = ports[name] { return port }
        let port = try running().addPort(name: name, kind: .peer)
        ports[name] = port
        return port
    }

    /// True while a worker has not let go of the port of a device that was closed.
    func isDetaching(_ name: String) -> Bool {
        guard let engine, let port = ports[name] else { return false }
        return engine.isDetaching(port)
    }

    /// Forgets the port of a device that was closed, with its totals: its place is free for others.
    /// While a worker has not let go of it nothing happens, and the next device of that name gets it.
    func forget(_ name: String) {
        guard let engine, let port = ports[name] else { return }
        do throws(EngineError) {
            try engine.removePort(port)
            ports[name] = nil
            watch.forget(name)
        } catch {
            reporter.step("\(error)", from: name)
        }
    }

    /// What has been counted; `nil` before the engine is started.
    func snapshot() -> EngineReport? { engine?.snapshot() }

    /// Tells what happened at ports, and takes uplinks out that were deleted.
    func look() {
        guard let engine else { return }
        let report = engine.snapshot()
        for line in watch.lines(report) { reporter.step(line, level: .warning) }
        for port in report.ports where port.isGone && port.isAttached {
            if goneUplinks.insert(port.name).inserted {
                reporter.problem("\(port.name): tap/gone: the interface was deleted")
            }
            try? engine.detach(port.id)
        }
    }

    /// The counters as an object.
    func report(paths: [String: String], connections: [String: UInt64]) -> RunReport? {
        engine.map { engine in
            ReportBuilder(
                engine: engine.snapshot(),
                paths: paths,
                connections: connections,
                summaries: [:],
                seconds: Double(MonotonicClock.now - started) / 1e9
            ).report(reasons: [])
        }
    }

    /// Ends the workers, within a limit; what a stuck one may touch must then stay.
    func stop() throws {
        try engine?.stop()
    }
}
