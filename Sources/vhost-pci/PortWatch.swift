import PollEngine

/// Says, once each, what goes wrong at a port while others go on: a ring that its driver broke, a
/// peer that takes nothing, a station table that is full. Looked at once a second, so that no peer
/// can make it talk faster.
struct PortWatch {
    /// A port that takes nothing for as long as this is told.
    private static let patienceNanoseconds: UInt64 = 1_000_000_000

    private var ringErrors: [String: [String: UInt64]] = [:]
    private var stalled: Set<String> = []
    private var full: Set<String> = []
    private var gone: Set<String> = []

    /// The lines for what is new in this report.
    mutating func lines(_ report: EngineReport) -> [String] {
        var lines: [String] = []
        for port in report.ports {
            lines += broken(port)
            if let line = stall(port) { lines.append(line) }
            if port.isGone, gone.insert(port.name).inserted {
                lines.append(
                    "\(port.name): tap/gone, the interface was deleted; the uplink is out until this"
                        + " program is started again"
                )
            }
            if port.unlearnedAddresses > 0, full.insert(port.name).inserted {
                lines.append(
                    "\(port.name): switch/table-full, it has more source addresses than the switch"
                        + " remembers; packets for the others go to every port"
                )
            }
        }
        return lines
    }

    /// The port was removed: another one of that name begins anew.
    mutating func forget(_ name: String) {
        ringErrors[name] = nil
        stalled.remove(name)
        full.remove(name)
        gone.remove(name)
    }

    /// Devices are not spoken of here: they are taken out, which is told there.
    private mutating func broken(_ port: EngineReport.Port) -> [String] {
        guard port.kind != .device else { return [] }
        let known = ringErrors.updateValue(port.ringErrors, forKey: port.name) ?? [:]
        return port.ringErrors.sorted { $0.key < $1.key }
            .filter { $0.value > known[$0.key, default: 0] }
            .map { id, _ in
                "\(port.name): \(id), its driver broke a ring; this queue pair rests until the peer"
                    + " connects anew"
            }
    }

    private mutating func stall(_ port: EngineReport.Port) -> String? {
        guard let age = port.stalledNanoseconds else {
            guard stalled.remove(port.name) != nil, port.isAttached else { return nil }
            return "\(port.name): takes packets again"
        }
        guard age >= Self.patienceNanoseconds, stalled.insert(port.name).inserted else {
            return nil
        }
        let seconds = FinalTable.decimal(Double(age) / 1e9, places: 1)
        return "\(port.name): peer/stalled, it has taken no packet for \(seconds) s"
    }
}
