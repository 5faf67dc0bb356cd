import HostSystem
import PCI
import PollEngine
import VhostPCINet
import Virtio

/// A net device at a vhost-user socket: the machine that connects there is a port of the switch. The
/// daemon drives a vhost-pci-net device of its own for it.
final class ServedPeerPort: ServedDevice {
    let settings: DeviceSettings
    private let device: VhostPCINetDevice
    private let driver: VhostPCINetDriver
    private let host: PeerPortHost
    private let path: String
    private let port: PortID
    private let events: ServedEvents
    private var connections: UInt64 = 0
    private var isPeerThere = false

    init(_ settings: DeviceSettings, _ context: ServeContext) throws {
        self.settings = settings
        let events = ServedEvents(context.reporter)
        self.events = events
        path = settings.vhostUser ?? ""
        let listener = try context.listener(settings.name, "vhost-user", path: path)
        let engine = try context.dataPlane.running()
        port = try context.dataPlane.port(settings.name)
        device = VhostPCINetDevice(
            name: settings.name,
            window: PeerWindowSlice(
                mapping: try Mapping.anonymous(length: EmulatedManagement.sliceSize)
            ),
            doorbells: try DoorbellTable(count: 2 * settings.queuePairs),
            queuePairs: settings.queuePairs,
            loop: context.loop
        )
        let function = InProcessFunction(endpoint: try VirtioPCIFunction(device: device))
        let name = settings.name
        host = PeerPortHost(engine: engine, port: port, loop: context.loop) {
            text,
            id in
            events.tell(text, from: "\(name) driver", id: id)
        }
        driver = VhostPCINetDriver(
            transport: try PCITransport(function: function),
            loop: context.loop,
            host: host
        )
        device.report = { [weak self] event in self?.follow(event) }
        try driver.start()
        try device.listen(on: listener)
        context.tellListening(name, path)
    }

    private func follow(_ event: DeviceEvent) {
        switch event {
        case .peerConnected:
            connections += 1
            isPeerThere = true
        case .peerGone: isPeerThere = false
        default: break
        }
        var id: String?
        if case .refused(let refusal) = event { id = refusal.id }
        events.tell("\(event)", from: "\(settings.name) device", id: id)
    }

    func look(_ report: EngineReport?) {
        for port in report?.ports ?? [] where port.name == settings.name {
            for pair in port.brokenPairs { device.ringsBroke(pair: pair) }
        }
    }

    var report: ServedDeviceReport {
        let socket = ServedDeviceReport.Socket(
            end: "vhost-user",
            path: path,
            state: isPeerThere ? .connected : .listening,
            connections: connections
        )
        var report = ServedDeviceReport(settings, sockets: [socket], events)
        report.phase = device.phase.rawValue
        report.queuePairs = settings.queuePairs
        return report
    }

    func close() {
        driver.stop()
        device.close()
    }
}
