import AdminQueue
import HostSystem
import PCI
import VhostPCINet
import VirtioSpec

/// A management device at a vfio-user socket. The vhost-pci-net devices that its driver creates listen
/// for their peers at the sockets that were set aside for them.
final class ServedManagement: ServedDevice {
    let settings: DeviceSettings
    private let context: ServeContext
    private let management: EmulatedManagement
    private let socket: VfioUserSocket
    private let events: ServedEvents
    /// What comes to the sockets of its virtual devices, by the names that these have.
    private let peers: [(name: String, record: PeerRecord)]

    init(_ settings: DeviceSettings, _ context: ServeContext) throws {
        self.settings = settings
        self.context = context
        let events = ServedEvents(context.reporter)
        self.events = events
        let names = (0..<settings.maximumDevices).map { "\(settings.name).\($0)" }
        let paths = Dictionary(uniqueKeysWithValues: zip(names, settings.peers))
        let records = Dictionary(
            uniqueKeysWithValues: names.map { name in
                (name, PeerRecord(paths[name] ?? "", of: name, events))
            }
        )
        peers = zip(names, settings.peers).compactMap { name, _ in
            records[name].map { (name, $0) }
        }
        management = try EmulatedManagement(
            names: names,
            sliceSize: settings.window,
            isRemote: true,
            personality: settings.personality,
            loop: context.loop
        ) { name, event in
            records[name]?.follow(event)
        }
        let path = settings.vfioUser ?? ""
        socket = VfioUserSocket(settings.name, path, context, events)
        management.onCreate = { [context] name, device throws(AdminError) in
            records[name]?.begin()
            guard let path = paths[name] else {
                return context.reporter.step(
                    "\(name): no socket is set aside for its peer (key `peers`)"
                )
            }
            do {
                try device.listen(on: context.listener(name, nil, path: path))
                context.tellListening(name, path)
            } catch {
                context.reporter.problem("\(name): \(error)")
                throw .noRoom
            }
        }
        for _ in 0..<settings.builtIn {
            do throws(AdminError) {
                _ = try management.device.addStaticDevice(type: .vhostPCINet)
            } catch {
                throw HostRefusal("serve/built-in", "a virtual device cannot be built in: \(error)")
            }
        }
        try socket.open(management.endpoint)
    }

    var report: ServedDeviceReport {
        let sockets = peers.map { name, record in
            var socket = record.report
            if management.device(named: name) == nil { socket.state = .waiting }
            return socket
        }
        var report = ServedDeviceReport(settings, sockets: [socket.report] + sockets, events)
        report.virtualDevices = management.device.virtualDeviceIDs.map {
            ServedDeviceReport.Virtual(id: $0)
        }
        return report
    }

    func close() {
        socket.close()
        management.close()
    }
}
