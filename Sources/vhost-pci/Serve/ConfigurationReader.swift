import AdminQueue
import Glibc
import HostSystem
import PollEngine
import VirtioSpec

/// Makes a configuration of what was written, or says everything that is wrong with it (HI-J22).
struct ConfigurationReader {
    private let problems = ConfigurationProblems()

    /// Reads the text of a file; throws all its problems at once.
    static func read(yaml: String) throws(ConfigurationProblemList) -> ServeConfiguration {
        let value: ConfigurationValue
        do {
            value = try ConfigurationValue.parse(yaml: yaml)
        } catch let problem as ConfigurationProblem {
            throw ConfigurationProblemList([problem])
        } catch {
            throw ConfigurationProblemList([ConfigurationProblem(.syntax, line: 0, "\(error)")])
        }
        return try read(value)
    }

    /// Reads what was put together from options; throws all problems at once.
    static func read(
        _ value: ConfigurationValue
    ) throws(ConfigurationProblemList) -> ServeConfiguration {
        let reader = ConfigurationReader()
        let configuration = reader.configuration(value)
        guard reader.problems.all.isEmpty, let configuration else {
            throw ConfigurationProblemList(reader.problems.all)
        }
        return configuration
    }

    /// Reads one device; throws all problems at once.
    static func read(
        device value: ConfigurationValue
    ) throws(ConfigurationProblemList) -> DeviceSettings {
        let reader = ConfigurationReader()
        guard case .map(let entries, let line) = value else {
            throw ConfigurationProblemList([
                ConfigurationProblem(.type, line: value.line, "a device is a group of keys")
            ])
        }
        let device = reader.device(entries, line, path: "")
        guard reader.problems.all.isEmpty, let device else {
            throw ConfigurationProblemList(reader.problems.all)
        }
        return device
    }

    private func configuration(_ value: ConfigurationValue) -> ServeConfiguration? {
        guard case .map(let entries, let line) = value else {
            problems.add(.type, value.line, nil, "the file is \(value.form), not a group of keys")
            return nil
        }
        let section = ConfigurationSection(
            entries,
            line: line,
            path: "",
            allowed: [
                "control", "socket-mode", "socket-group", "log-level", "data-plane", "devices",
            ],
            problems
        )
        var configuration = ServeConfiguration()
        configuration.control = section.socketPath("control")
        if let mode = section.value("socket-mode", "a file mode such as 0660", Self.mode) {
            configuration.socketMode = mode
        }
        configuration.socketGroup = section.value(
            "socket-group",
            "a group of this machine",
            Self.group
        )
        configuration.logLevel = section.word("log-level", LogLevel.self) ?? .info
        if let (entries, line) = section.group("data-plane") {
            configuration.dataPlane = dataPlane(entries, line)
        }
        let groups = section.groups("devices") ?? []
        if !section.has("devices") || groups.isEmpty, problems.all.isEmpty {
            problems.add(.missing, section.line(of: "devices"), "devices", "there is no device")
        }
        var lines: [Int] = []
        for (index, group) in groups.enumerated() {
            let path = "devices[\(index)]"
            if let device = device(group.entries, group.line, path: path) {
                configuration.devices.append(device)
                lines.append(group.line)
            }
        }
        if groups.count > DeviceSet.limit {
            problems.add(
                .range,
                section.line(of: "devices"),
                "devices",
                "\(groups.count) devices; at most \(DeviceSet.limit) are allowed"
            )
        }
        checkUnique(configuration, lines)
        return configuration
    }

    private func dataPlane(
        _ entries: [ConfigurationValue.Entry],
        _ line: Int
    ) -> DataPlaneSettings {
        let section = ConfigurationSection(
            entries,
            line: line,
            path: "data-plane",
            allowed: ["mode", "cores", "idle", "uplinks"],
            problems
        )
        var settings = DataPlaneSettings()
        settings.mode = section.word("mode", ForwardingMode.self) ?? settings.mode
        settings.idle = section.word("idle", IdleStrategy.self) ?? settings.idle
        let lists = section.list("cores") { text, name, line -> [Int]? in
            guard let list = CoreList(argument: text) else {
                problems.add(.type, line, name, "'\(text)' is no CPU or range such as 0-3")
                return nil
            }
            for core in list.cores where !Topology.mayUse(cpu: core) {
                problems.add(
                    .range,
                    line,
                    name,
                    "this process may not use CPU \(core); usable are \(Topology.usableCPUs)"
                )
            }
            return list.cores
        }
        settings.cores = (lists ?? []).flatMap { $0 }
        if Set(settings.cores).count != settings.cores.count {
            problems.add(.duplicate, section.line(of: "cores"), "data-plane.cores", "a CPU twice")
        }
        if settings.mode == .switch, settings.cores.count > 1 {
            problems.add(
                .conflict,
                section.line(of: "cores"),
                "data-plane.cores",
                "mode switch works on one CPU"
            )
        }
        settings.uplinks =
            section.list("uplinks") { text, name, line in
                guard let uplink = Uplink(argument: text) else {
                    problems.add(.type, line, name, "'\(text)' is no uplink such as tap:uplink0")
                    return nil
                }
                return uplink.interface
            } ?? []
        if settings.mode != .switch, !settings.uplinks.isEmpty {
            problems.add(
                .conflict,
                section.line(of: "uplinks"),
                "data-plane.uplinks",
                "only mode switch has uplinks"
            )
        }
        return settings
    }

    /// Names and sockets are each other's only; `lines` are those of the devices.
    private func checkUnique(_ configuration: ServeConfiguration, _ lines: [Int]) {
        var names: Set<String> = []
        var sockets: Set<String> = Set([configuration.control].compactMap { $0 })
        for (index, device) in configuration.devices.enumerated() {
            let line = lines[index]
            if !names.insert(device.name).inserted {
                problems.add(
                    .duplicate,
                    line,
                    "devices[\(index)].name",
                    "there is a '\(device.name)' already"
                )
            }
            for path in device.paths where !sockets.insert(path).inserted {
                problems.add(
                    .duplicate,
                    line,
                    "devices[\(index)]",
                    "the socket \(path) is used already"
                )
            }
        }
    }

    /// The number of a group, by name or as it is.
    static func group(_ text: String) -> UInt32? {
        if let number = UInt32(text), number != .max { return number }
        return unsafe getgrnam(text).map { unsafe $0.pointee.gr_gid }
    }

    static func mode(_ text: String) -> UInt16? {
        let digits = text.hasPrefix("0o") ? text.dropFirst(2) : text[...]
        guard (3...4).contains(digits.count), digits.allSatisfy({ ("0"..."7").contains($0) }),
            let mode = UInt16(digits, radix: 8), mode <= 0o777
        else { return nil }
        return mode
    }
}

// One device.
extension ConfigurationReader {
    private static let keys: [DeviceSettings.Kind: [String]] = [
        .management: [
            "vfio-user", "peers", "maximum-devices", "built-in", "window", "personality",
        ],
        .net: ["vfio-user", "vhost-user", "mac", "mtu", "queue-pairs"],
        .peerNet: ["vfio-user", "vhost-user", "queue-pairs", "headroom"],
    ]

    private func device(
        _ entries: [ConfigurationValue.Entry],
        _ line: Int,
        path: String
    ) -> DeviceSettings? {
        let kindName = entries.first { $0.key == "kind" }
        var kind: DeviceSettings.Kind?
        if case .text(let text, _)? = kindName?.value { kind = .init(rawValue: text) }
        let own = kind.map { Self.keys[$0] ?? [] } ?? Array(Set(Self.keys.values.joined())).sorted()
        let section = ConfigurationSection(
            entries,
            line: line,
            path: path,
            allowed: ["name", "kind"] + own,
            hint: { key in
                guard let kind, Self.keys.values.contains(where: { $0.contains(key) }) else {
                    return nil
                }
                return "a \(kind.rawValue) device has no such key"
            },
            problems
        )
        for key in ["name", "kind"] where !section.has(key) {
            problems.add(.missing, line, section.name(key), "every device has one")
        }
        let name = section.value(
            "name",
            "a name: letters, digits, '-', '_' and '.', at most 64, a letter or digit first",
            Self.name
        )
        guard section.word("kind", DeviceSettings.Kind.self) != nil, let kind else { return nil }
        var device = DeviceSettings(name: name ?? "", kind: kind)
        device.vfioUser = section.socketPath("vfio-user")
        device.vhostUser = section.socketPath("vhost-user")
        device.peers = section.socketPaths("peers") ?? []
        device.mac = section.value("mac", "the address of a station such as 02:00:00:00:00:01") {
            MACAddress(argument: $0).flatMap { $0.isGroup ? nil : $0 }
        }
        device.mtu = section.number("mtu", in: Int(NetConfiguration.leastMTU)...65535)
            .map { UInt16(clamping: $0) }
        device.queuePairs = section.number("queue-pairs", in: 1...8) ?? device.queuePairs
        device.headroom = section.number("headroom", in: 1...16) ?? device.headroom
        device.maximumDevices =
            section.number("maximum-devices", in: 1...64)
            ?? max(device.maximumDevices, device.peers.count)
        device.builtIn = section.number("built-in", in: 0...64) ?? device.builtIn
        device.window =
            section.value("window", "a size from 1M to 64G, a power of two", Self.size)
            ?? device.window
        device.personality = section.word("personality", Personality.self) ?? device.personality
        checkSockets(device, section)
        return name == nil ? nil : device
    }

    private func checkSockets(_ device: DeviceSettings, _ section: ConfigurationSection) {
        func missing(_ key: String, _ why: String) {
            if !section.has(key) { problems.add(.missing, section.line, section.name(key), why) }
        }
        switch device.kind {
        case .management:
            missing("vfio-user", "a management device is presented there")
            if device.peers.count > device.maximumDevices {
                problems.add(
                    .conflict,
                    section.line(of: "peers"),
                    section.name("peers"),
                    "\(device.peers.count) sockets for at most \(device.maximumDevices) devices"
                )
            }
            if device.builtIn > device.maximumDevices {
                problems.add(
                    .conflict,
                    section.line(of: "built-in"),
                    section.name("built-in"),
                    "\(device.builtIn) devices of at most \(device.maximumDevices)"
                )
            }
        case .net:
            if section.has("vfio-user"), section.has("vhost-user") {
                problems.add(
                    .conflict,
                    section.line(of: "vhost-user"),
                    section.name("vhost-user"),
                    "a net device has one driver: give vfio-user or vhost-user"
                )
            } else if !section.has("vfio-user") {
                missing("vhost-user", "a net device is presented there, or at vfio-user")
            }
            for key in ["mac", "mtu"] where section.has("vhost-user") && section.has(key) {
                problems.add(
                    .conflict,
                    section.line(of: key),
                    section.name(key),
                    "behind vhost-user the front-end's program chooses it"
                )
            }
        case .peerNet:
            missing("vhost-user", "its peer, a virtio-net front-end, connects there")
            missing("vfio-user", "its driver finds it there")
        }
    }

    private static func size(_ text: String) -> Int? {
        let shifts: [Character: Int] = ["M": 20, "G": 30]
        guard let unit = text.last, let shift = shifts[unit], text.utf8.count <= 5,
            let number = Int(text.dropLast()), number > 0, number & (number - 1) == 0,
            number << shift <= 64 << 30
        else { return nil }
        return number << shift
    }

    private static func name(_ text: String) -> String? {
        guard text.utf8.count <= 64, let first = text.unicodeScalars.first,
            first.properties.isAlphabetic && first.isASCII || ("0"..."9").contains(first),
            text.unicodeScalars.allSatisfy({ scalar in
                scalar.isASCII
                    && (scalar.properties.isAlphabetic || ("0"..."9").contains(scalar)
                        || "-_.".unicodeScalars.contains(scalar))
            })
        else { return nil }
        return text
    }
}

/// Everything that is wrong with a configuration.
struct ConfigurationProblemList: Error, Equatable {
    let problems: [ConfigurationProblem]

    init(_ problems: [ConfigurationProblem]) {
        // In the order in which they stand in the file.
        self.problems = problems.enumerated().sorted { one, other in
            (one.element.line ?? 0, one.offset) < (other.element.line ?? 0, other.offset)
        }.map(\.element)
    }
}
