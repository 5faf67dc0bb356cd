import CSystemShims
import Glibc
import HostSystem
import PCI
import PollEngine
import VFIO

/// One run from bring-up to the final report. Control plane on the calling thread, packets on the
/// engine's workers.
final class RunSession {
    private let options: RunOptions
    private let reporter: StepReporter
    private let loop: EventLoop
    private let open: (DeviceTarget) throws -> any PCIFunction
    private var reasons: [String] = []
    private var latencies: [String: PeerTraffic.Summary] = [:]
    private var watch = PortWatch()
    private var nextLook: UInt64 = 0
    private var lastSnapshot: (at: UInt64, report: EngineReport)?

    /// `open` opens a PCI function for driving it.
    init(
        _ options: RunOptions,
        _ reporter: StepReporter,
        open: @escaping (DeviceTarget) throws -> any PCIFunction
    ) throws {
        self.options = options
        self.reporter = reporter
        self.open = open
        loop = try EventLoop()
    }

    /// Runs until the time is over, the own peers are done, no device is left, or a signal asks to
    /// end.
    func run() throws -> RunReport {
        shim_ignore_broken_pipes()
        let signals = FileDescriptor(
            owning: try checked(shim_termination_signals(), "watch for signals")
        )
        try checked(shim_sigbus_install(), "contain SIGBUS")
        let targets = try options.pciTargets
        let ownPeers = options.peers.isEmpty && targets.isEmpty ? try OwnPeers() : nil
        let paths = ownPeers?.paths ?? options.peers
        // What cannot be opened is refused before anything is begun.
        var functions = try targets.map { ("\($0)", try open($0)) }
        let peers =
            paths.isEmpty
            ? nil : try VirtualPeers(paths: paths, loop: loop, reporter: reporter)
        let engine = try startEngine()
        let devices = DevicePorts(
            engine: engine,
            loop: loop,
            usesInterrupts: options.idle == .sleep
        ) { [reporter] name, text, id in
            reporter.step(text, from: name, id: id)
        }
        defer {
            devices.stop()
            // Workers first; where one is stuck, what it may touch stays, for good: a doorbell is the
            // address of a register that its function keeps mapped.
            if (try? engine.stop()) != nil {
                _ = devices.close()
            } else {
                _ = unsafe Unmanaged.passRetained(devices)
            }
        }
        try peers?.start(engine)
        for (name, function) in functions {
            if let warning = (function as? any HostFunction)?.warning {
                reporter.problem("\(name): \(warning)")
            }
            try devices.add(name, function)
        }
        // One that the kernel wants back is closed as soon as its driver lets go.
        functions = []
        for uplink in options.uplinks {
            try engine.addTap(uplink.interface)
            reporter.step("uplink \(uplink.interface)")
        }
        try ownPeers?.start(seconds: options.duration ?? 5)
        let started = MonotonicClock.now
        let wasInterrupted = try serve(until: signals, ownPeers, engine, peers, devices)
        let seconds = Double(MonotonicClock.now - started) / 1e9
        if let ownPeers {
            if wasInterrupted {
                reasons.append("ended by a signal before every packet was verified")
            } else {
                verify(ownPeers)
            }
        }
        return try finish(engine, peers, devices, seconds: seconds)
    }

    private func startEngine() throws -> Engine {
        let engine = try Engine(
            mode: options.chosenMode,
            cores: options.chosenCores,
            idle: options.idle,
            packetSize: options.packetSize
        )
        for worker in engine.snapshot().workers {
            reporter.step(
                "worker on core \(worker.core), node \(worker.node),"
                    + " mode \(options.chosenMode.rawValue), idle \(options.idle.rawValue)"
            )
        }
        return engine
    }

    /// True when a signal ended it.
    private func serve(
        until signals: FileDescriptor,
        _ ownPeers: OwnPeers?,
        _ engine: Engine,
        _ peers: VirtualPeers?,
        _ devices: DevicePorts
    ) throws -> Bool {
        var isOver = false
        let signal = try loop.watch(signals) { [reporter] in
            let number = shim_next_signal(signals.rawValue)
            guard number > 0 else { return }
            reporter.step(number == SIGINT ? "interrupted" : "asked to end")
            isOver = true
        }
        defer { loop.remove(signal) }
        let limit = ownPeers == nil ? options.duration : (options.duration ?? 5) + OwnPeers.grace
        let deadline = limit.map { Deadline(milliseconds: UInt64($0 * 1000)) }
        var nextLive = MonotonicClock.now
        while !isOver {
            try loop.turn(limitMilliseconds: min(100, deadline?.remainingMilliseconds ?? 100))
            if deadline?.hasPassed == true { break }
            if let ownPeers, ownPeers.haveEnded() { break }
            look(engine, peers, devices)
            if ownPeers == nil, peers == nil, devices.areAllOut { break }
            if MonotonicClock.now >= nextLive {
                showLive(engine)
                nextLive = MonotonicClock.now + 1_000_000_000
            }
        }
        return isOver
    }

    private func tell(_ report: EngineReport) {
        for line in watch.lines(report) { reporter.step(line) }
    }

    /// Takes uplinks out whose interface was deleted: epoll would wake a sleeping worker for them
    /// without pause.
    private func letGo(_ report: EngineReport, _ engine: Engine) {
        for port in report.ports where port.isGone && port.isAttached {
            reasons.append("\(port.name): tap/gone")
            do {
                try engine.detach(port.id)
            } catch {
                reporter.step("\(port.name): \(error)")
            }
        }
    }

    /// Looks after what others broke; at most every 20 ms, however often the loop turns.
    private func look(_ engine: Engine, _ peers: VirtualPeers?, _ devices: DevicePorts) {
        let now = MonotonicClock.now
        guard now >= nextLook else { return }
        nextLook = now + 20_000_000
        let report = engine.snapshot()
        peers?.signalBroken(report)
        devices.look(report)
    }

    private func showLive(_ engine: Engine) {
        let now = MonotonicClock.now
        let report = engine.snapshot()
        tell(report)
        letGo(report, engine)
        defer { lastSnapshot = (now, report) }
        guard let last = lastSnapshot, now > last.at else { return }
        let seconds = Double(now - last.at) / 1e9
        let rates = zip(report.ports, last.report.ports).map { port, before in
            let packets =
                port.received.packets - before.received.packets
                + port.transmitted.packets - before.transmitted.packets
            let mpps = FinalTable.decimal(Double(packets) / seconds / 1e6, places: 3)
            return "\(port.name) \(port.isAttached ? "up" : "down") \(mpps) Mpps"
        }
        reporter.live(rates.joined(separator: "  "))
    }

    /// Compares what the own peers counted on both ends.
    private func verify(_ ownPeers: OwnPeers) {
        do {
            let summaries = try ownPeers.summaries()
            reasons += OwnPeers.findings(summaries)
            for (index, summary) in summaries.enumerated() { latencies["peer\(index)"] = summary }
        } catch {
            reasons.append("\(error)")
        }
    }

    private func finish(
        _ engine: Engine,
        _ peers: VirtualPeers?,
        _ devices: DevicePorts,
        seconds: Double
    ) throws -> RunReport {
        tell(engine.snapshot())
        devices.look(engine.snapshot())
        peers?.stop()
        devices.stop()
        try engine.stop()
        // What the last turns met shows only now.
        devices.account(engine.snapshot())
        reasons += devices.reasons + devices.close() + (peers?.destroy() ?? [])
        reporter.tellOmitted()
        // A machine behind a function of its own is found where the function is.
        let windows = devices.connectionsByName
        let places = Dictionary(uniqueKeysWithValues: windows.keys.map { ($0, $0) })
        return ReportBuilder(
            engine: engine.snapshot(),
            paths: (peers?.pathByName ?? [:]).merging(places) { own, _ in own },
            connections: (peers?.connectionsByName ?? [:]).merging(windows) { own, _ in own },
            summaries: latencies,
            seconds: seconds
        ).report(reasons: reasons)
    }
}
