import ArgumentParser
import FoundationEssentials
import Glibc
import HostSystem
import RingBench

/// `vhost-pci bench`: what parts of the program cost on this machine.
struct BenchCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "bench",
        abstract: "Measure parts of the program on this machine.",
        subcommands: [RingBenchCommand.self, MMIOBenchCommand.self]
    )
}

/// `vhost-pci bench ring`: our device side of a split ring against the same loop in C.
struct RingBenchCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "ring",
        abstract: "Measure the device side of split rings against the same loop in C.",
        discussion: """
            Both sides of each ring run in one thread, so that no cache line travels between cores. \
            Cycles are ticks of the time-stamp counter, from the best block of all rounds; the ratio \
            is the median over rounds. With --profile only our side runs, for a counting profiler: \
            divide the difference between two counts of --packets by their difference.
            """
    )

    @Flag(help: "Print one JSON object, vhost-pci.bench-ring/1.")
    var json = false

    @Option(help: "CPU to run on; the last one that may be used when not given.")
    var core: Int?

    @Option(help: "Rounds of each implementation, 9 to 1000.")
    var rounds = 15

    @Option(
        help: "Run only our side of one operation: walk, dequeue, enqueue, forward or idle.",
        transform: RingBenchCommand.operation
    )
    var profile: RingOperation?

    @Option(help: "Frame length for --profile, 60 to 1518.")
    var size = 64

    @Option(help: "Packets a call for --profile: 1, 2, 4, 8, 16 or 32.")
    var burst = 32

    @Option(help: "Packets for --profile.")
    var packets = 65_536

    private static func operation(_ text: String) throws -> RingOperation {
        guard let operation = RingOperation(rawValue: text) else {
            throw ValidationError("there is no operation '\(text)'")
        }
        return operation
    }

    func validate() throws {
        guard (60...1518).contains(size) else {
            throw ValidationError("--size takes 60 to 1518 bytes")
        }
        guard [1, 2, 4, 8, 16, 32].contains(burst) else {
            throw ValidationError("--burst takes 1, 2, 4, 8, 16 or 32 packets")
        }
        guard (256...1_000_000_000).contains(packets) else {
            throw ValidationError("--packets takes 256 to 1000000000")
        }
        guard (9...1000).contains(rounds) else {
            throw ValidationError("--rounds takes 9 to 1000")
        }
        if let core, !Topology.mayUse(cpu: core) {
            let usable = Topology.usableCPUs.map(String.init).joined(separator: ", ")
            throw ValidationError(
                "--core: this process may not run on CPU \(core), only on \(usable)"
            )
        }
    }

    func run() throws {
        do {
            if let cpu = core ?? Topology.usableCPUs.last { try Topology.pinThread(to: cpu) }
            if let profile {
                let moved = try RingBench.profile(
                    profile,
                    size: size,
                    burst: burst,
                    packets: packets
                )
                try StepReporter.writeResult("packets=\(moved)\n")
                return
            }
            let report = try RingBench.report(rounds: rounds)
            try StepReporter.writeResult(json ? text(of: report) : report.text)
        } catch {
            StepReporter.write("vhost-pci: bench ring: \(error)\n", to: STDERR_FILENO)
            throw ExitCode(1)
        }
    }

    private func text(of report: RingReport) throws -> String {
        let encoder = JSONEncoder()
        encoder.outputFormatting = [.prettyPrinted, .sortedKeys, .withoutEscapingSlashes]
        return String(decoding: try encoder.encode(report), as: UTF8.self) + "\n"
    }
}
