import PCI

/// What came of reading the configuration again: `vhost-pci.reload/1` (docs/serve.md).
struct ConfigurationReload: Codable, Equatable {
    /// A device that is not as the file has it.
    struct Refusal: Codable, Equatable {
        var name: String
        var id: String
        var detail: String
        var remedy: String?

        init(_ name: String, _ error: any Error) {
            self.name = name
            let reason = CommandFailure(error).error
            id = reason.id ?? "serve/device"
            detail = reason.detail
            remedy = reason.remedy
        }

        /// One line for people.
        var line: String {
            ["\(id): \(detail)", remedy].compactMap { $0 }
                .joined(separator: "; ")
        }
    }

    var schema = "vhost-pci.reload/1"
    /// Names of devices.
    var added: [String] = []
    var removed: [String] = []
    /// Removed, and made anew.
    var changed: [String] = []
    var unchanged: [String] = []
    var refused: [Refusal] = []
    /// Keys whose change takes a restart.
    var restart: [String] = []

    /// Nothing came of it.
    init() {}

    /// Makes the devices those of `file`. A device that was never in a file stays, and one that is in
    /// use stays as it is.
    ///
    /// `fromFile` are the names of devices that a file described. Stops early when `isEnding`.
    init(
        _ file: ServeConfiguration,
        running: ServeConfiguration,
        fromFile: Set<String>,
        _ devices: DeviceSet,
        isEnding: () -> Bool
    ) {
        if file.control != running.control { restart.append("control") }
        if file.dataPlane != running.dataPlane { restart.append("data-plane") }
        let wanted = Set(file.devices.map(\.name))
        for device in devices.all where fromFile.contains(device.settings.name) {
            let name = device.settings.name
            guard !wanted.contains(name), !isEnding() else { continue }
            devices.remove(device)
            removed.append(name)
        }
        var earlier: [String: DeviceSettings] = [:]
        for settings in file.devices {
            guard let device = devices.device(settings.name), !isEnding() else { continue }
            if device.settings == settings {
                unchanged.append(settings.name)
            } else if device.isInUse {
                refused.append(Refusal(settings.name, Self.inUse(settings.name)))
            } else {
                // All of them first: one may want the socket of another.
                devices.remove(device)
                earlier[settings.name] = device.settings
            }
        }
        for settings in file.devices
        where devices.device(settings.name) == nil && !isEnding() {
            make(settings, earlier[settings.name], devices)
        }
    }

    private mutating func make(
        _ settings: DeviceSettings,
        _ earlier: DeviceSettings?,
        _ devices: DeviceSet
    ) {
        do {
            try devices.add(settings)
            if earlier == nil { added.append(settings.name) } else { changed.append(settings.name) }
        } catch {
            refused.append(Refusal(settings.name, error))
            guard let earlier else { return }
            do {
                try devices.add(earlier)
            } catch {
                // What it was is gone as well, and the list says so.
                removed.append(settings.name)
            }
        }
    }

    private static func inUse(_ name: String) -> HostRefusal {
        HostRefusal(
            "serve/in-use",
            "\(name): somebody is connected; it stays as it is",
            remedy: "end the connection and reload again, or `vhost-pci ctl device remove \(name)`"
                + " first"
        )
    }

    /// The summary for people.
    var line: String {
        "\(added.count) added, \(removed.count) removed, \(changed.count) changed,"
            + " \(unchanged.count) unchanged, \(refused.count) refused"
    }
}
