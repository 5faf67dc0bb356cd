import FoundationEssentials

/// The facts of a finished run, in the form `vhost-pci.run/1` (docs/run-json.md).
struct RunReport: Codable, Equatable {
    enum Verdict: String, Codable {
        case ok
        case failed
    }

    struct Traffic: Codable, Equatable {
        var packets: UInt64
        var bytes: UInt64
    }

    struct Latency: Codable, Equatable {
        var p50: UInt64
        var p99: UInt64
        var p999: UInt64
    }

    struct Kicks: Codable, Equatable {
        var sent: UInt64
        var suppressed: UInt64
        var full: UInt64
    }

    struct Worker: Codable, Equatable {
        var core: Int
        var node: Int
        var busyCycles: UInt64
        var idleCycles: UInt64
        var emptyPolls: UInt64

        enum CodingKeys: String, CodingKey {
            case core, node
            case busyCycles = "busy_cycles"
            case idleCycles = "idle_cycles"
            case emptyPolls = "empty_polls"
        }
    }

    struct Port: Codable, Equatable {
        enum Kind: String, Codable {
            case peer, tap, device, source, sink
        }

        var name: String
        var kind: Kind
        var path: String?
        var connections: UInt64?
        var received: Traffic
        var transmitted: Traffic
        var lost: UInt64?
        var mpps: Double?
        var gbitPerSecond: Double?
        var latency: Latency?
        var copiesPerPacket: Double?
        var kicks: Kicks?
        var drops: [String: UInt64]?
        var ringErrors: [String: UInt64]?
        var cutLengths: UInt64?
        var unfinished: UInt64?
        var failure: String?
        var attachFailures: UInt64?

        enum CodingKeys: String, CodingKey {
            case name, kind, path, connections, received, transmitted, lost, mpps, kicks, drops
            case unfinished, failure
            case attachFailures = "attach_failures"
            case gbitPerSecond = "gbit_per_second"
            case latency = "latency_nanoseconds"
            case copiesPerPacket = "copies_per_packet"
            case ringErrors = "ring_errors"
            case cutLengths = "cut_lengths"
        }
    }

    var schema = "vhost-pci.run/1"
    var verdict: Verdict
    var reasons: [String]
    var mode: String
    var durationSeconds: Double
    var workers: [Worker]
    var ports: [Port]

    enum CodingKeys: String, CodingKey {
        case schema, verdict, reasons, mode, workers, ports
        case durationSeconds = "duration_seconds"
    }

    /// The JSON text, keys in alphabetical order so that two reports can be compared by line.
    func json() throws -> String {
        let encoder = JSONEncoder()
        encoder.outputFormatting = [.prettyPrinted, .sortedKeys, .withoutEscapingSlashes]
        return String(decoding: try encoder.encode(self), as: UTF8.self)
    }
}
