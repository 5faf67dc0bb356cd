/// A device report for people: one fact a line, capabilities with their fields behind them.
struct DeviceText {
    let report: DeviceReport

    /// The lines.
    var lines: [String] {
        var lines = identity
        lines += host
        lines += bars
        lines += capabilities
        lines += virtio
        lines += report.notes.flatMap { note in
            ["note       \(note.id): \(note.text)"]
                + (note.remedy.map { ["           -> \($0)"] } ?? [])
        }
        return lines
    }

    private func line(_ label: String, _ text: String) -> String {
        label + String(repeating: " ", count: max(1, 11 - label.count)) + text
    }

    private var identity: [String] {
        let ids = report.identity
        let pair = HexText.bare(ids.vendor, digits: 4) + ":" + HexText.bare(ids.device, digits: 4)
        let subsystem =
            HexText.bare(ids.subsystemVendor, digits: 4) + ":"
            + HexText.bare(ids.subsystemDevice, digits: 4)
        let kind = HexText.bare(ids.classCode, digits: 6)
        return [
            line("device", report.target + (ids.name.map { "  \($0)" } ?? "")),
            line("ids", "\(pair), subsystem \(subsystem), revision \(ids.revision)"),
            line("class", ids.className.map { "\(kind) \($0)" } ?? kind),
        ]
    }

    private var host: [String] {
        guard let host = report.host else { return [] }
        var lines = [line("driver", host.driver ?? "none")]
        if let override = host.driverOverride { lines.append(line("override", override)) }
        if let group = host.group {
            let type = group.type.map { ", \($0)" } ?? ""
            lines.append(line("group", "IOMMU group \(group.number)\(type)"))
            for member in group.members where member.address != report.target {
                let driver = member.driver ?? "no driver"
                let way = member.isInTheWay ? ", keeps the group from user space" : ""
                lines.append(line("", "also \(member.address), \(driver)\(way)"))
            }
        } else {
            lines.append(line("group", "none"))
        }
        let cpus = host.localCPUs.map { ", near CPUs \($0)" } ?? ""
        lines.append(line("node", (host.node.map(String.init) ?? "not told") + cpus))
        let methods = host.resetMethods.joined(separator: " ")
        lines.append(line("reset", methods.isEmpty ? "none" : methods))
        if let state = host.powerState { lines.append(line("power", state)) }
        if let speed = host.linkSpeed, let width = host.linkWidth {
            let speedLimit = host.maximumLinkSpeed ?? "?"
            let widthLimit = host.maximumLinkWidth.map(String.init) ?? "?"
            lines.append(line("link", "\(speed) x\(width) of \(speedLimit) x\(widthLimit)"))
        }
        if let function = host.physicalFunction {
            lines.append(line("sr-iov", "virtual function of \(function)"))
        }
        if let maximum = host.maximumVirtualFunctions {
            let functions = host.virtualFunctions ?? []
            let list = functions.isEmpty ? "" : ": " + functions.joined(separator: " ")
            lines.append(
                line("sr-iov", "\(functions.count) of \(maximum) virtual functions\(list)")
            )
        }
        let uses = host.interfaces + host.disks
        if !uses.isEmpty { lines.append(line("in use as", uses.joined(separator: " "))) }
        return lines
    }

    private var bars: [String] {
        report.bars.map { bar in
            let place = bar.address.map { " at \(HexText.of($0))" } ?? ""
            return line("BAR \(bar.number)", "\(Self.size(bar.size))\(place), \(bar.kind)")
        }
    }

    private var capabilities: [String] {
        var lines: [String] = []
        if let vectors = report.messageVectors {
            let used = report.host?.allocatedVectors.map { ", \($0) in use by the kernel" } ?? ""
            lines.append(line("MSI-X", "\(vectors) vectors\(used)"))
        }
        for capability in report.capabilities {
            let id = HexText.of(capability.id, digits: capability.isExtended ? 4 : 2)
            let version = capability.version.map { " v\($0)" } ?? ""
            let place = "[\(HexText.bare(capability.offset, digits: 2))\(version)]"
            var name = capability.name ?? "unknown capability \(id)"
            var fields = capability.fields
            if case .text(let structure)? = fields.removeValue(forKey: "structure") {
                name = "virtio \(structure)"
            }
            lines.append(line("cap", "\(place) \(name)\(Self.text(fields))"))
            lines += capability.problems.map { line("", "! \($0)") }
        }
        return lines
    }

    private static func text(_ fields: [String: JSONValue]) -> String {
        let parts = fields.sorted { rank($0.key) < rank($1.key) }.map { name, value in
            switch value {
            case .flag(let flag): flag ? "\(name)+" : "\(name)-"
            case .text(let text): "\(name) \(text)"
            case .number(let number): "\(name) \(inHex(name) ? HexText.of(number) : "\(number)")"
            }
        }
        return parts.isEmpty ? "" : ": " + parts.joined(separator: ", ")
    }

    // What a structure is comes before where it is.
    private static func rank(_ name: String) -> String {
        let first = ["type", "version", "bar", "offset", "size", "multiplier"]
        return first.firstIndex(of: name).map { "\($0)" } ?? "~" + name
    }

    private static func inHex(_ name: String) -> Bool {
        ["offset", "size", "vendor", "device", "id", "status", "mask", "severity"]
            .contains { name == $0 || name.hasSuffix("_" + $0) }
    }

    private var virtio: [String] {
        guard let virtio = report.virtio else { return [] }
        let transitional = virtio.isTransitional ? ", transitional" : ""
        var lines = [line("virtio", "\(virtio.typeName), type \(virtio.type)\(transitional)")]
        if let status = virtio.status { lines.append(line("status", status)) }
        for (label, features) in [
            ("offers", virtio.offered), ("negotiated", virtio.negotiated),
        ] {
            guard let features else { continue }
            let names = features.map { "\($0.name ?? "unknown")(\($0.bit))" }
            lines.append(line(label, names.isEmpty ? "nothing" : names.joined(separator: " ")))
        }
        if let queues = virtio.queues {
            let sizes = queues.prefix(32).map { "\($0.size)" }.joined(separator: " ")
            let rest = queues.count > 32 ? " and \(queues.count - 32) more" : ""
            lines.append(line("queues", "\(queues.count), sizes \(sizes)\(rest)"))
        }
        if let first = virtio.firstAdminQueue, let count = virtio.adminQueueCount {
            lines.append(line("admin", "\(count) admin queues from number \(first)"))
        }
        lines += (virtio.configuration ?? []).map { line("config", "\($0.name) \($0.value)") }
        return lines
    }

    /// A length with the largest unit that fits exactly.
    static func size(_ bytes: UInt64) -> String {
        for (unit, shift) in [("GiB", UInt64(30)), ("MiB", 20), ("KiB", 10)]
        where bytes >= 1 << shift && bytes & ((1 << shift) - 1) == 0 {
            return "\(bytes >> shift) \(unit)"
        }
        return "\(bytes) bytes"
    }
}
