import ArgumentParser
import FoundationEssentials
import Glibc
import HostSystem

/// `vhost-pci bench mmio`: what an access to a device behind a socket costs.
struct MMIOBenchCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "mmio",
        abstract: "Measure accesses to a device behind a vfio-user socket, and its accesses to us.",
        discussion: """
            Our client in one thread drives our server in another, over a unix socket; each is pinned \
            to a CPU. With --target the client drives any other server instead, of which only a \
            register is read. Times are those of the monotonic clock, which itself takes some tens of \
            nanoseconds.
            """
    )

    @Flag(help: "Print one JSON object, vhost-pci.bench-mmio/1.")
    var json = false

    @Option(help: "CPU of the client; the first one that may be used when not given.")
    var core: Int?

    @Option(help: "CPU of the server; the last one that may be used when not given.")
    var serverCore: Int?

    @Option(help: "Measured accesses of each kind, 100 to 10000000.")
    var accesses = 20_000

    @Option(help: "Read a register of this server's device: vfio-user:PATH.")
    var target: String?

    @Option(help: "With --target: which BAR's first register is read.")
    var bar = 0

    func validate() throws {
        guard (100...10_000_000).contains(accesses) else {
            throw ValidationError("--accesses takes 100 to 10000000")
        }
        for cpu in [core, serverCore].compactMap(\.self) where !Topology.mayUse(cpu: cpu) {
            let usable = Topology.usableCPUs.map(String.init).joined(separator: ", ")
            throw ValidationError("this process may not run on CPU \(cpu), only on \(usable)")
        }
        guard (0...5).contains(bar) else { throw ValidationError("--bar takes 0 to 5") }
        _ = try path
    }

    /// The socket of another server.
    private var path: String? {
        get throws {
            guard let target else { return nil }
            guard case .vfioUser(let path) = try DeviceTarget.parse(target) else {
                throw ValidationError("--target takes vfio-user:PATH")
            }
            return path
        }
    }

    func run() throws {
        try CommandFailure.reporting(json: json) {
            var report = MMIOBenchReport()
            // Once this thread is pinned there is only one CPU left.
            let usable = Topology.usableCPUs
            let client = core ?? usable.first ?? 0
            let server = serverCore ?? usable.last ?? 0
            report.clientCore = client
            try Topology.pinThread(to: client)
            if let path = try path {
                report.target = path
                try report.measureReads(path, bar: bar, accesses)
            } else {
                report.serverCore = server
                try report.measure(accesses, serverCore: server)
            }
            if json { return try CommandFailure.print(report) }
            try CommandFailure.print(lines: report.lines)
        }
    }
}
