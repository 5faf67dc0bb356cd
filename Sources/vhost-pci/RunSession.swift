import AdminQueue
import CSystemShims
import Glibc
import HostSystem
import PCI
import PollEngine
import VhostPCINet
import Virtio
import VirtioSpec

/// One run from bring-up to the final report. Control plane on the calling thread, packets on the
/// engine's workers.
final class RunSession {
    /// A peer: its port, its device and the driver of that device.
    private struct Peer {
        let name: String
        let path: String
        let id: UInt64
        let port: PortID
        let driver: VhostPCINetDriver
        let host: PeerPortHost
    }

    private let options: RunOptions
    private let reporter: StepReporter
    private let loop: EventLoop
    private var peers: [Peer] = []
    private var reasons: [String] = []
    private var latencies: [String: PeerTraffic.Summary] = [:]
    private var watch = PortWatch()
    private var nextLook: UInt64 = 0
    private var lastSnapshot: (at: UInt64, report: EngineReport)?

    init(_ options: RunOptions, _ reporter: StepReporter) throws {
        self.options = options
        self.reporter = reporter
        loop = try EventLoop()
    }

    /// Runs until the time is over, the own peers are done, or a signal asks to end.
    func run() throws -> RunReport {
        shim_ignore_broken_pipes()
        let signals = FileDescriptor(
            owning: try checked(shim_termination_signals(), "watch for signals")
        )
        try checked(shim_sigbus_install(), "contain SIGBUS")
        let ownPeers = options.peers.isEmpty ? try OwnPeers() : nil
        let paths = ownPeers?.paths ?? options.peers
        let names = paths.indices.map { "peer\($0)" }
        let management = try EmulatedManagement(names: names, loop: loop) {
            [reporter] name, event in
            var id: String?
            if case .refused(let refusal) = event { id = refusal.id }
            reporter.step("\(event)", from: "\(name) device", id: id)
        }
        let driver = try bringUp(management)
        let engine = try startEngine()
        defer { try? engine.stop() }
        for (name, path) in zip(names, paths) {
            try addPeer(name, path, driver, management, engine)
        }
        for uplink in options.uplinks {
            try engine.addTap(uplink.interface)
            reporter.step("uplink \(uplink.interface)")
        }
        try ownPeers?.start(seconds: options.duration ?? 5)
        let started = MonotonicClock.now
        let wasInterrupted = try serve(until: signals, ownPeers, engine, management)
        let seconds = Double(MonotonicClock.now - started) / 1e9
        if let ownPeers {
            if wasInterrupted {
                reasons.append("ended by a signal before every packet was verified")
            } else {
                verify(ownPeers)
            }
        }
        return try finish(driver, engine, seconds: seconds)
    }

    private func bringUp(_ management: EmulatedManagement) throws -> ManagementDriver {
        let transport = try PCITransport(function: management.function)
        let id = transport.deviceType.pciDeviceID.map { String($0, radix: 16) } ?? "?"
        reporter.step("device \(options.device): \(transport.deviceType), PCI 1af4:\(id)")
        let driver = try ManagementDriver(transport: transport, loop: loop)
        driver.onReport = { [reporter] text in reporter.step("management device: \(text)") }
        for text in driver.reports { reporter.step("management device: \(text)") }
        reporter.step("dialect: virtual-device commands; capabilities \(driver.capabilities)")
        return driver
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

    private func addPeer(
        _ name: String,
        _ path: String,
        _ driver: ManagementDriver,
        _ management: EmulatedManagement,
        _ engine: Engine
    ) throws {
        let id = try driver.create(type: .vhostPCINet)
        reporter.step("\(name): virtual device \(id), \(DeviceType.vhostPCINet)")
        let port = try engine.addPort(name: name, kind: .peer)
        let host = PeerPortHost(engine: engine, port: port, loop: loop) { [reporter] text, id in
            reporter.step(text, from: "\(name) driver", id: id)
        }
        let net = VhostPCINetDriver(
            transport: try driver.transport(for: id),
            loop: loop,
            host: host
        )
        try net.start()
        try management.listen(name, at: path)
        reporter.step("\(name): listening on \(path)")
        peers.append(Peer(name: name, path: path, id: id, port: port, driver: net, host: host))
    }

    /// True when a signal ended it.
    private func serve(
        until signals: FileDescriptor,
        _ ownPeers: OwnPeers?,
        _ engine: Engine,
        _ management: EmulatedManagement
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
            signalBroken(engine, management)
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

    /// Tells peers of pairs that are worked on no more; at most every 20 ms, however often the loop
    /// turns. A device says it once a connection.
    private func signalBroken(_ engine: Engine, _ management: EmulatedManagement) {
        let now = MonotonicClock.now
        guard now >= nextLook else { return }
        nextLook = now + 20_000_000
        for port in engine.snapshot().ports {
            for pair in port.brokenPairs { management.ringsBroke(port.name, pair: pair) }
        }
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
            for (peer, summary) in zip(peers, summaries) { latencies[peer.name] = summary }
        } catch {
            reasons.append("\(error)")
        }
    }

    private func finish(
        _ driver: ManagementDriver,
        _ engine: Engine,
        seconds: Double
    ) throws -> RunReport {
        tell(engine.snapshot())
        for peer in peers { peer.driver.stop() }
        try engine.stop()
        for peer in peers {
            do {
                try driver.destroy(peer.id)
            } catch {
                reasons.append("\(peer.name): \(error)")
            }
        }
        driver.close()
        reporter.tellOmitted()
        return ReportBuilder(
            engine: engine.snapshot(),
            paths: Dictionary(uniqueKeysWithValues: peers.map { ($0.name, $0.path) }),
            summaries: latencies,
            seconds: seconds
        ).report(reasons: reasons)
    }
}
