import PCI
import PollEngine

/// The devices of the daemon, by name, and those that were removed while a worker still used what
/// they have.
final class DeviceSet {
    /// In the order in which they were made.
    private(set) var all: [any ServedDevice] = []
    /// Removed, and kept for a worker that may still signal their eventfds.
    private var departed: [any ServedDevice] = []
    private let make: (DeviceSettings) throws -> any ServedDevice
    private let isDetaching: (String) -> Bool
    private let forgetPort: (String) -> Void
    /// The socket that no device may have.
    private let control: String?

    /// Most devices.
    static let limit = 64

    /// Makes devices by `make`; `isDetaching` is asked by name while a worker has not let go. `forget`
    /// gets each name that no device has any more.
    init(
        control: String?,
        forget: @escaping (String) -> Void = { _ in },
        isDetaching: @escaping (String) -> Bool,
        make: @escaping (DeviceSettings) throws -> any ServedDevice
    ) {
        self.control = control
        self.isDetaching = isDetaching
        forgetPort = forget
        self.make = make
    }

    /// The device of that name.
    func device(_ name: String) -> (any ServedDevice)? {
        all.first { $0.settings.name == name }
    }

    /// Makes a device; refuses a name or a socket that is used already.
    @discardableResult
    func add(_ settings: DeviceSettings) throws -> any ServedDevice {
        let name = settings.name
        guard device(name) == nil else {
            throw HostRefusal(
                "serve/name",
                "there is a '\(name)' already",
                remedy: "choose another name, or remove that device first"
            )
        }
        for path in settings.paths {
            let owner = all.first { $0.settings.paths.contains(path) }?.settings.name
            guard owner != nil || path == control else { continue }
            throw HostRefusal(
                "serve/socket",
                "\(name): the socket \(path) is used already, by"
                    + " \(owner.map { "'\($0)'" } ?? "the control socket")",
                remedy: "give each socket a path of its own"
            )
        }
        guard all.count < Self.limit else {
            throw HostRefusal(
                "serve/limit",
                "there are \(all.count) devices already",
                remedy: "remove one, or start another daemon"
            )
        }
        do {
            let device = try make(settings)
            all.append(device)
            return device
        } catch {
            if !isDetaching(name) { forgetPort(name) }
            throw HostRefusal(naming: name, error)
        }
    }

    /// Ends a device. What a worker still uses stays until it has let go.
    func remove(_ gone: any ServedDevice) {
        // Closing may turn the loop: nobody shall find the device any more.
        all.removeAll { $0 === gone }
        gone.close()
        departed.append(gone)
        letGo()
    }

    /// Of what no worker uses any more nothing is kept; a port goes with the last device of its name.
    private func letGo() {
        for gone in departed where !isDetaching(gone.settings.name) {
            departed.removeAll { $0 === gone }
            if device(gone.settings.name) == nil { forgetPort(gone.settings.name) }
        }
    }

    /// Looks after all of them, and lets go of those that no worker uses any more.
    func look(_ report: EngineReport?) {
        for device in all { device.look(report) }
        letGo()
    }

    /// Ends all of them; they are kept until `forget`.
    func close() {
        for device in all { device.close() }
    }

    /// No worker runs any more.
    func forget() {
        all = []
        departed = []
    }
}

extension HostRefusal {
    /// What went wrong with one device of several.
    init(naming name: String, _ error: any Error) {
        let reason = CommandFailure(error).error
        self.init(
            reason.id ?? "serve/device",
            "\(name): \(reason.detail)",
            remedy: reason.remedy ?? ""
        )
    }
}
