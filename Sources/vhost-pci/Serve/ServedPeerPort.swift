import HostSystem
import PCI
import PollEngine
import VhostPCINet
import Virtio
import Virtqueue

/// A net device at a vhost-user socket: the machine that connects there is a port of the switch. The
/// daemon drives a vhost-pci-net device of its own for it.
final class ServedPeerPort: ServedDevice {
    let settings: DeviceSettings
    private let device: VhostPCINetDevice
    private let driver: VhostPCINetDriver
    private let host: PeerPortHost
    private let events: ServedEvents
    private let peer: PeerRecord

    init(_ settings: DeviceSettings, _ context: ServeContext) throws {
        self.settings = settings
        let events = ServedEvents(context.reporter)
        self.events = events
        let path = settings.vhostUser ?? ""
        peer = PeerRecord(path, of: "\(settings.name) device", events)
        let listener = try context.listener(settings.name, "vhost-user", path: path)
        let engine = try context.dataPlane.running()
        let port = try context.dataPlane.port(settings.name)
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
        device.report = { [peer] event in peer.follow(event) }
        try driver.start()
        try device.listen(on: listener)
        context.tellListening(name, path)
    }

    func look(_ report: EngineReport?) {
        for pair in host.brokenPairs.keys { device.ringsBroke(pair: pair) }
    }

    var report: ServedDeviceReport {
        var report = ServedDeviceReport(settings, sockets: [peer.report], events)
        report.phase = host.failure == nil ? device.phase.rawValue : "failed"
        report.failure = host.failure?.description
        report.queuePairs = settings.queuePairs
        return report
    }

    func close() {
        driver.stop()
        device.close()
    }
}
