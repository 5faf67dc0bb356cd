import HostSystem
import PollEngine
import VhostPCINet
import Virtio
import VirtioNet
import Virtqueue

/// A virtio-net device at a vfio-user socket: a port of the switch, whose rings lie in the memory of
/// the machine that drives it.
final class ServedNet: ServedDevice {
    let settings: DeviceSettings
    private let device: NetDevice
    private let host: PeerPortHost
    private let socket: VfioUserSocket
    private let events: ServedEvents
    private let address: MACAddress?
    private var isRunning = false

    init(_ settings: DeviceSettings, _ context: ServeContext) throws {
        self.settings = settings
        let name = settings.name
        let events = ServedEvents(context.reporter)
        self.events = events
        let engine = try context.dataPlane.running()
        host = PeerPortHost(
            engine: engine,
            port: try context.dataPlane.port(name),
            loop: context.loop
        ) { text, id in events.tell(text, from: name, id: id) }
        let bytes = settings.mac?.bytes ?? LocalMACAddress().bytes
        address = MACAddress(bytes: bytes)
        device = try NetDevice(
            NetDeviceOptions(
                macAddress: bytes,
                mtu: settings.mtu ?? 1500,
                queuePairs: settings.queuePairs
            ),
            loop: context.loop,
            host: host
        )
        socket = VfioUserSocket(name, settings.vfioUser ?? "", context, events)
        device.report = { [weak self] event in
            self?.follow(event)
            var id: String?
            if case .refused(let refused, _) = event { id = refused }
            events.tell("\(event)", from: name, id: id)
        }
        try socket.open(try VirtioPCIFunction(device: device))
    }

    private func follow(_ event: NetDeviceEvent) {
        switch event {
        case .running: isRunning = true
        case .stopped: isRunning = false
        default: break
        }
    }

    var report: ServedDeviceReport {
        var report = ServedDeviceReport(settings, sockets: [socket.report], events)
        report.phase = phase
        report.failure = device.failure?.description
        report.mac = address.map { "\($0)" }
        report.mtu = device.options.mtu
        report.queuePairs = settings.queuePairs
        return report
    }

    private var phase: String {
        if device.failure != nil { return "failed" }
        return device.isAttached ? "attached" : isRunning ? "running" : "idle"
    }

    func close() {
        socket.close()
        device.driverLost()
    }
}
