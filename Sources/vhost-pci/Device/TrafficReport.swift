/// What `device traffic` found, in the form `vhost-pci.device-traffic/1` (docs/device-json.md).
struct TrafficReport: Codable, Equatable {
    /// One direction.
    struct Direction: Codable, Equatable {
        var from: String
        var to: String
        var sent: UInt64
        var received: UInt64
        var bytes: UInt64
        var lost: UInt64
        var reordered: UInt64
        var damaged: UInt64
        var foreign: UInt64
        var interrupts: UInt64

        init(_ flow: TrafficFlow, from: String, to: String, interrupts: UInt64) {
            self.from = from
            self.to = to
            sent = flow.sent
            received = flow.received
            bytes = flow.bytes
            lost = flow.lost
            reordered = flow.reordered
            damaged = flow.damaged
            foreign = flow.foreign
            self.interrupts = interrupts
        }

        /// Both ends.
        var name: String { "\(from) -> \(to)" }

        /// The counts that matter, for people.
        var findings: String {
            "\(sent) sent, \(received) received, \(lost) lost, \(reordered) reordered,"
                + " \(damaged) damaged"
        }
    }

    enum Verdict: String, Codable {
        case ok
        case failed
    }

    var schema = "vhost-pci.device-traffic/1"
    var verdict: Verdict
    var reasons: [String]
    var durationSeconds: Double
    var directions: [Direction]

    enum CodingKeys: String, CodingKey {
        case schema, verdict, reasons, directions
        case durationSeconds = "duration_seconds"
    }

    init(seconds: Double, directions: [Direction], reasons: [String]) {
        verdict = reasons.isEmpty ? .ok : .failed
        self.reasons = reasons
        durationSeconds = seconds
        self.directions = directions
    }

    /// One line for each direction.
    var lines: [String] {
        directions.map { direction in
            let isGood = !reasons.contains { $0.hasPrefix(direction.name) }
            var line = "\(direction.name): \(isGood ? "ok" : "failed"), \(direction.findings)"
            line += ", \(direction.foreign) foreign, \(direction.interrupts) interrupts"
            if durationSeconds > 0 {
                let rate = Double(direction.received) / durationSeconds
                line += ", \(FinalTable.decimal(rate, places: 0)) frames/s"
            }
            return line
        }
    }
}
