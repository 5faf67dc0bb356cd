/// The report for people: one row a port, one line a worker, the verdict last.
struct FinalTable {
    let report: RunReport

    private static let headings = [
        "port", "received", "transmitted", "lost", "Mpps", "Gbit/s", "p50 us", "p99 us",
        "p99.9 us", "copies", "kicks sent/spared",
    ]

    /// The lines, without a trailing line end.
    func lines() -> [String] {
        var rows = [Self.headings]
        rows += report.ports.map(row)
        var lines = align(rows)
        for port in report.ports {
            lines += counted("dropped", port.drops, at: port)
            lines += counted("broken rings", port.ringErrors, at: port)
        }
        lines += report.workers.map(line)
        lines += report.reasons.map { "failed: \($0)" }
        let duration = Self.decimal(report.durationSeconds, places: 1)
        lines.append("\(report.mode), \(duration) s: \(report.verdict.rawValue)")
        return lines
    }

    private func counted(
        _ what: String,
        _ counts: [String: UInt64]?,
        at port: RunReport.Port
    ) -> [String] {
        guard let counts, !counts.isEmpty else { return [] }
        let reasons = counts.sorted { $0.key < $1.key }.map { "\($0.key) \($0.value)" }
        return ["\(port.name) \(what): \(reasons.joined(separator: ", "))"]
    }

    private func row(_ port: RunReport.Port) -> [String] {
        let path = port.path.map { " (\($0))" } ?? ""
        return [
            port.name + path,
            "\(port.received.packets)",
            "\(port.transmitted.packets)",
            port.lost.map(String.init) ?? "-",
            port.mpps.map { Self.decimal($0, places: 3) } ?? "-",
            port.gbitPerSecond.map { Self.decimal($0, places: 3) } ?? "-",
            microseconds(port.latency?.p50),
            microseconds(port.latency?.p99),
            microseconds(port.latency?.p999),
            port.copiesPerPacket.map { Self.decimal($0, places: 2) } ?? "-",
            port.kicks.map { "\($0.sent)/\($0.suppressed)" } ?? "-",
        ]
    }

    private func line(_ worker: RunReport.Worker) -> String {
        let all = worker.busyCycles &+ worker.idleCycles
        let busy = all == 0 ? 0 : Double(worker.busyCycles) / Double(all) * 100
        return "worker on core \(worker.core), node \(worker.node):"
            + " \(Self.decimal(busy, places: 1)) % busy, \(worker.emptyPolls) empty polls"
    }

    private func microseconds(_ nanoseconds: UInt64?) -> String {
        nanoseconds.map { Self.decimal(Double($0) / 1000, places: 1) } ?? "-"
    }

    private func align(_ rows: [[String]]) -> [String] {
        let widths = Self.headings.indices.map { column in
            rows.map { $0[column].count }.max() ?? 0
        }
        return rows.map { row in
            row.indices.map { column in
                let pad = String(repeating: " ", count: widths[column] - row[column].count)
                return column == 0 ? row[column] + pad : pad + row[column]
            }.joined(separator: "  ")
        }
    }

    /// A number with a fixed count of decimals, without Foundation's formatting.
    static func decimal(_ value: Double, places: Int) -> String {
        guard value.isFinite else { return "-" }
        var scale = 1.0
        for _ in 0..<places { scale *= 10 }
        let scaled = (abs(value) * scale).rounded()
        guard scaled < Double(UInt64.max) else { return "\(value)" }
        let digits = String(UInt64(scaled))
        let padded = String(repeating: "0", count: max(0, places + 1 - digits.count)) + digits
        let sign = value < 0 && scaled > 0 ? "-" : ""
        guard places > 0 else { return sign + padded }
        return sign + padded.dropLast(places) + "." + padded.suffix(places)
    }
}
