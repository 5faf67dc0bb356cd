import VhostPCINet

/// What comes to the vhost-user socket of a vhost-pci-net device: how often a front-end was there, and
/// whether one is.
final class PeerRecord {
    private let path: String
    private let source: String
    private let events: ServedEvents
    private var connections: UInt64 = 0
    private var isThere = false

    /// Nobody was there yet. Events are told as those of `source`.
    init(_ path: String, of source: String, _ events: ServedEvents) {
        self.path = path
        self.source = source
        self.events = events
    }

    /// Takes an event of the device in, and tells it.
    func follow(_ event: DeviceEvent) {
        switch event {
        case .peerConnected:
            connections += 1
            isThere = true
        case .peerGone: isThere = false
        default: break
        }
        var id: String?
        if case .refused(let refusal) = event { id = refusal.id }
        events.tell("\(event)", from: source, id: id)
    }

    /// The device behind the socket is another one: nobody is connected to it yet.
    func begin() { isThere = false }

    /// How the socket stands.
    var report: ServedDeviceReport.Socket {
        ServedDeviceReport.Socket(
            end: "vhost-user",
            path: path,
            state: isThere ? .connected : .listening,
            connections: connections
        )
    }
}
