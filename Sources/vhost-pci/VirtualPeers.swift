import AdminQueue
import HostSystem
import PollEngine
import VhostPCINet
import Virtio
import VirtioSpec

/// The vhost-user peers of a run: an emulated management device, a vhost-pci-net device for each
/// peer, made through the admin queue, and the drivers of those devices.
final class VirtualPeers {
    /// A peer: its port, its device and the driver of that device.
    private struct Peer {
        let name: String
        let path: String
        let id: UInt64
        let port: PortID
        let driver: VhostPCINetDriver
        let host: PeerPortHost
    }

    /// How often a front-end has connected, by port name. A front-end is attached anew whenever its
    /// memory or its rings change: the engine's count is another one.
    private final class Callers {
        var counts: [String: UInt64] = [:]
    }

    private let callers = Callers()
    private let reporter: StepReporter
    private let loop: EventLoop
    private let management: EmulatedManagement
    private let driver: ManagementDriver
    private let paths: [String]
    private var peers: [Peer] = []

    /// Brings the management device up, with room for one peer at each path.
    init(paths: [String], loop: EventLoop, reporter: StepReporter) throws {
        self.paths = paths
        self.loop = loop
        self.reporter = reporter
        let names = paths.indices.map { "peer\($0)" }
        management = try EmulatedManagement(names: names, loop: loop) {
            [reporter, callers] name, event in
            if event == .peerConnected { callers.counts[name, default: 0] += 1 }
            var id: String?
            if case .refused(let refusal) = event { id = refusal.id }
            reporter.step("\(event)", from: "\(name) device", id: id)
        }
        let transport = try PCITransport(function: management.function)
        let id = transport.deviceType.pciDeviceID.map { String($0, radix: 16) } ?? "?"
        reporter.step("device emulated: \(transport.deviceType), PCI 1af4:\(id)")
        driver = try ManagementDriver(transport: transport, loop: loop)
        driver.onReport = { [reporter] text in reporter.step("management device: \(text)") }
        for text in driver.reports { reporter.step("management device: \(text)") }
        reporter.step("dialect: virtual-device commands; capabilities \(driver.capabilities)")
    }

    /// Makes each peer's device and listens for its front-end.
    func start(_ engine: Engine) throws {
        for (index, path) in paths.enumerated() { try add("peer\(index)", path, engine) }
    }

    /// Socket of each peer, by port name.
    var pathByName: [String: String] {
        Dictionary(uniqueKeysWithValues: peers.map { ($0.name, $0.path) })
    }

    /// How often a front-end has connected, by port name.
    var connectionsByName: [String: UInt64] { callers.counts }

    /// Tells peers of pairs that are worked on no more. A device says it once a connection.
    func signalBroken(_ report: EngineReport) {
        for port in report.ports {
            for pair in port.brokenPairs { management.ringsBroke(port.name, pair: pair) }
        }
    }

    /// Ends the drivers; the rings are detached when this returns.
    func stop() {
        for peer in peers { peer.driver.stop() }
    }

    /// Destroys the devices, once no worker is left. Returns what went wrong.
    func destroy() -> [String] {
        var failures: [String] = []
        for peer in peers {
            do {
                try driver.destroy(peer.id)
            } catch {
                failures.append("\(peer.name): \(error)")
            }
        }
        driver.close()
        return failures
    }

    private func add(_ name: String, _ path: String, _ engine: Engine) throws {
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
}
