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
    /// Names that its virtual devices have, in the order of `peers`.
    private let names: [String]
    /// How often a peer connected, and whether one is there, by name of the virtual device.
    private let peers = PeerCount()

    private final class PeerCount {
        var connections: [String: UInt64] = [:]
        var present: Set<String> = []

        func follow(_ name: String, _ event: DeviceEvent) {
            switch event {
            case .peerConnected:
                connections[name, default: 0] += 1
                present.insert(name)
            case .peerGone: present.remove(name)
            default: break
            }
        }
    }

    init(_ settings: DeviceSettings, _ context: ServeContext) throws {
        self.settings = settings
        self.context = context
        let events = ServedEvents(context.reporter)
        self.events = events
        let names = (0..<settings.maximumDevices).map { "\(settings.name).\($0)" }
        self.names = names
        management = try EmulatedManagement(
            names: names,
            sliceSize: settings.window,
            isRemote: true,
            personality: settings.personality,
            loop: context.loop
        ) { [peers] name, event in
            peers.follow(name, event)
            var id: String?
            if case .refused(let refusal) = event { id = refusal.id }
            events.tell("\(event)", from: name, id: id)
        }
        let path = settings.vfioUser ?? ""
        socket = VfioUserSocket(settings.name, path, context, events)
        let paths = Dictionary(uniqueKeysWithValues: zip(names, settings.peers))
        management.onCreate = { [context, peers] name, device throws(AdminError) in
            peers.present.remove(name)
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
        let sockets = zip(names, settings.peers).map { name, path in
            let isThere = management.device(named: name) != nil
            return ServedDeviceReport.Socket(
                end: "vhost-user",
                path: path,
                state: !isThere ? .waiting : peers.present.contains(name) ? .connected : .listening,
                connections: peers.connections[name] ?? 0
            )
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
