import Glibc
import HostSystem
import PCI

/// What systemd, or whoever speaks as it does, is told about the daemon (sd_notify(3)). Without one
/// everything here does nothing.
final class ServiceManager {
    private let socket: DatagramSocket?
    private let loop: EventLoop
    private var timer: EventLoop.Source?
    /// Milliseconds between two signs of life; `nil` when nobody watches.
    let watchdogMilliseconds: UInt64?

    /// Reads NOTIFY_SOCKET, WATCHDOG_USEC and WATCHDOG_PID of an environment.
    init(_ environment: [String: String], loop: EventLoop) {
        self.loop = loop
        socket = environment["NOTIFY_SOCKET"].flatMap { try? DatagramSocket(to: $0) }
        let isForUs = environment["WATCHDOG_PID"].map { $0 == "\(getpid())" } ?? true
        watchdogMilliseconds = environment["WATCHDOG_USEC"].flatMap { UInt64($0) }
            // Half the time, so that one sign may be late.
            .flatMap { isForUs && $0 >= 2000 ? $0 / 2000 : nil }
    }

    /// Everything listens.
    func ready(_ status: String) {
        send("READY=1\nSTATUS=\(status)")
        if timer == nil { signOfLife() }
    }

    /// The configuration is read again; `ready` ends that.
    func reloading() {
        send("RELOADING=1\nMONOTONIC_USEC=\(MonotonicClock.now / 1000)")
    }

    /// What the daemon does, in one line.
    func status(_ text: String) {
        send("STATUS=\(text)")
    }

    /// The daemon ends.
    func stopping() {
        if let timer { loop.remove(timer) }
        timer = nil
        send("STOPPING=1\nSTATUS=ending")
    }

    /// Comes from the loop: a loop that hangs gives none.
    private func signOfLife() {
        guard let watchdogMilliseconds, socket != nil else { return }
        send("WATCHDOG=1")
        timer = loop.after(milliseconds: watchdogMilliseconds) { [weak self] in
            self?.signOfLife()
        }
    }

    private func send(_ text: String) {
        // A service manager that is gone is no reason to stop serving.
        try? socket?.send(text)
    }
}

/// Sockets that were opened for the daemon before it was started (sd_listen_fds(3)).
struct ActivatedSockets {
    /// By name. Listening ones stay here when a device goes: whoever opened them listens on, so that
    /// nobody could bind their paths again.
    private(set) var sockets: [String: FileDescriptor] = [:]
    /// Who uses them, by name.
    private var users: [String: User] = [:]

    private struct User {
        weak var listener: UnixListener?
    }

    /// First descriptor that is handed over.
    private static let first: Int32 = 3
    private static let limit = 256

    /// None.
    init() {}

    /// Reads LISTEN_PID, LISTEN_FDS and LISTEN_FDNAMES of an environment and takes the descriptors
    /// over. Throws when there are some and their names are missing or not each other's only.
    init(_ environment: [String: String]) throws {
        guard environment["LISTEN_PID"] == "\(getpid())",
            let text = environment["LISTEN_FDS"], let count = Int(text), count > 0
        else { return }
        let list = environment["LISTEN_FDNAMES"] ?? ""
        let names =
            list.isEmpty
            ? [] : list.split(separator: ":", omittingEmptySubsequences: false).map(String.init)
        guard count <= Self.limit, names.count == count, Set(names).count == count else {
            throw HostRefusal(
                "serve/activation",
                "\(count) sockets were handed over, with \(names.count) names"
                    + "\(names.isEmpty ? "" : ": ")\(names.joined(separator: ", "))",
                remedy: "give each socket unit its own FileDescriptorName=, such as net0 for the"
                    + " device of that name"
            )
        }
        for (index, name) in names.enumerated() {
            let number = Self.first + Int32(clamping: index)
            guard fcntl(number, F_SETFD, FD_CLOEXEC) == 0 else {
                throw HostRefusal(
                    "serve/activation",
                    "descriptor \(number), \(name), is not open"
                )
            }
            sockets[name] = FileDescriptor(owning: number)
        }
    }

    /// Adds a socket that was handed over in another way.
    mutating func add(_ socket: FileDescriptor, for device: String, _ end: String) {
        sockets["\(device).\(end)"] = socket
    }

    /// Names that no device of a configuration goes by, nor its control socket.
    func unused(_ configuration: ServeConfiguration) -> [String] {
        var known: Set<String> = configuration.control == nil ? [] : ["control"]
        for device in configuration.devices {
            known.formUnion(["", ".vfio-user", ".vhost-user"].map { device.name + $0 })
            known.formUnion(device.peers.indices.map { "\(device.name).\($0)" })
        }
        return sockets.keys.filter { !known.contains($0) }.sorted()
    }

    /// The socket for a device's end, `vfio-user` or `vhost-user`: named after both, or after the
    /// device alone. `nil` when there is none, or another end uses it. A connected socket is handed
    /// out once, a listening one again when the device before is gone.
    mutating func listener(
        _ device: String,
        _ end: String?,
        path: String
    ) throws(SystemError) -> UnixListener? {
        for name in [end.map { "\(device).\($0)" }, device].compactMap({ $0 }) {
            guard let socket = sockets[name], users[name]?.listener == nil else { continue }
            let listener = try UnixListener(adopting: socket, name: path)
            if listener.descriptor === socket {
                users[name] = User(listener: listener)
            } else {
                // A connection must end with the device that has it.
                sockets[name] = nil
            }
            return listener
        }
        return nil
    }
}
