import Glibc
import HostSystem
import PCI
import PollEngine

/// A device of the daemon. Everything happens on the thread of the loop.
protocol ServedDevice: AnyObject {
    /// What it was made of.
    var settings: DeviceSettings { get }
    /// How it stands.
    var report: ServedDeviceReport { get }

    /// Somebody is connected.
    var isInUse: Bool { get }

    /// Looks after what others broke; called a few times a second.
    func look(_ report: EngineReport?)

    /// Ends its connections and gives back what it has, except what threads of the engine still use;
    /// takes a bounded time.
    func close()
}

extension ServedDevice {
    func look(_ report: EngineReport?) {}

    var isInUse: Bool { report.sockets.contains { $0.state == .connected } }
}

/// What `device.list` and `device.show` tell of a device.
struct ServedDeviceReport: Codable, Equatable {
    /// One of its sockets.
    struct Socket: Codable, Equatable {
        enum State: String, Codable {
            /// It is opened when the peer of the device is known.
            case waiting
            case listening
            case connected
        }

        var end: String
        var path: String
        var state: State
        var connections: UInt64

        enum CodingKeys: String, CodingKey {
            case path, state, connections
            case end = "protocol"
        }
    }

    /// A virtual device of a management device.
    struct Virtual: Codable, Equatable {
        var id: UInt64
        var name: String?
    }

    var name: String
    var kind: String
    var sockets: [Socket]
    /// How far the device and its peer have come, where it has one.
    var phase: String?
    /// Why no ring of the driver or the peer is worked, where that is our fault.
    var failure: String?
    var virtualDevices: [Virtual]?
    var mac: String?
    var mtu: UInt16?
    var queuePairs: Int?
    /// How often something was refused, by error id.
    var refused: [String: UInt64]?
    /// What was refused last.
    var lastRefusal: String?

    enum CodingKeys: String, CodingKey {
        case name, kind, sockets, phase, failure, mac, mtu, refused
        case lastRefusal = "last_refusal"
        case virtualDevices = "virtual_devices"
        case queuePairs = "queue_pairs"
    }

    init(_ settings: DeviceSettings, sockets: [Socket], _ events: ServedEvents) {
        name = settings.name
        kind = settings.kind.rawValue
        self.sockets = sockets
        refused = events.refused.isEmpty ? nil : events.refused
        lastRefusal = events.lastRefusal
    }
}

/// What devices of the daemon share.
final class ServeContext {
    let loop: EventLoop
    let reporter: StepReporter
    let dataPlane: DataPlane
    /// Mode and group of sockets that are made from now on.
    var socketMode: UInt16
    var socketGroup: UInt32?
    private var activated: ActivatedSockets

    init(
        loop: EventLoop,
        reporter: StepReporter,
        dataPlane: DataPlane,
        socketMode: UInt16,
        socketGroup: UInt32? = nil,
        activated: ActivatedSockets
    ) {
        self.loop = loop
        self.reporter = reporter
        self.dataPlane = dataPlane
        self.socketMode = socketMode
        self.socketGroup = socketGroup
        self.activated = activated
    }

    /// The socket of a device's end: one that was handed over by that name, or a new one at `path`.
    func listener(_ device: String, _ end: String?, path: String) throws -> UnixListener {
        do throws(SystemError) {
            if let listener = try activated.listener(device, end, path: path) { return listener }
        } catch {
            throw HostRefusal(
                "serve/activation",
                "what was handed over as \(path) is no socket to listen at: \(error.errno)",
                remedy: "hand over a unix stream socket, listening or connected"
            )
        }
        let listener: UnixListener
        do throws(SystemError) {
            listener = try UnixListener(path: path, mode: socketMode)
        } catch {
            throw HostRefusal(listeningAt: path, error)
        }
        if let socketGroup, unsafe chown(path, .max, socketGroup) != 0 {
            throw HostRefusal(
                "socket/mode",
                "\(path) cannot be given to group \(socketGroup): \(Errno(errno))",
                remedy: "socket-group takes a group of the daemon's user"
            )
        }
        return listener
    }

    /// Says that a socket accepts. Scenarios and people wait for this line.
    func tellListening(_ device: String, _ path: String) {
        reporter.step("\(device): listening on \(path)")
    }
}

/// Makes devices of settings.
enum ServedDevices {
    /// Makes a device and opens its sockets.
    static func make(
        _ settings: DeviceSettings,
        _ context: ServeContext
    ) throws -> any ServedDevice {
        switch settings.kind {
        case .management: try ServedManagement(settings, context)
        case .net where settings.vhostUser != nil: try ServedPeerPort(settings, context)
        case .net: try ServedNet(settings, context)
        case .peerNet: try ServedPeerNet(settings, context)
        }
    }
}
