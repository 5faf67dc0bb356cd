import ArgumentParser
import Glibc
import HostSystem
import PCI

/// `vhost-pci device traffic`.
struct DeviceTrafficCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "traffic",
        abstract: "Send numbered frames between two network devices that are wired to each other.",
        discussion: """
            Drives both devices, sends frames both ways at once and checks each byte where they \
            arrive. Exit status: 0 every frame arrived once, whole and in order; 1 not so; 2 wrong \
            usage; 3 refused.
            """
    )

    @Argument(
        help: "A virtio-net device bound to vfio-pci or uio_pci_generic, or `vfio-user:PATH`."
    )
    var first: String

    @Argument(help: "The device at the other end of its wire.")
    var second: String

    @Option(parsing: .unconditional, help: "Frames in each direction.")
    var frames: UInt64 = 100_000

    @Option(parsing: .unconditional, help: "Bytes of each frame, 60 to 1514. Default: a mix.")
    var packetSize: Int?

    @Option(parsing: .unconditional, help: "Give up when nothing has arrived for so many seconds.")
    var timeout = 10.0

    @Flag(help: "Sleep until an interrupt when there is nothing to do; fail when none comes.")
    var interrupts = false

    @OptionGroup var opening: OpenOptions

    @Flag(help: "Print one JSON object on standard output, the steps on standard error.")
    var json = false

    func validate() throws {
        let targets = try targets
        guard !targets.contains(.emulated) else {
            throw ValidationError("device traffic needs two network devices")
        }
        guard targets[0] != targets[1] else {
            throw ValidationError("both ends are the same device, \(targets[0])")
        }
        guard (1...UInt64(UInt32.max)).contains(frames) else {
            throw ValidationError("--frames takes 1 to \(UInt32.max), not \(frames)")
        }
        if let packetSize, !(60...1514).contains(packetSize) {
            throw ValidationError("--packet-size takes 60 to 1514 bytes, not \(packetSize)")
        }
        guard timeout > 0, timeout <= 86_400 else {
            throw ValidationError("--timeout takes seconds, more than 0 and at most a day")
        }
    }

    func run() throws {
        let reporter = StepReporter(json: json)
        try CommandFailure.reporting(json: json) {
            var plan = DeviceTraffic.Plan()
            plan.frames = frames
            plan.packetSize = packetSize
            plan.usesInterrupts = interrupts
            plan.timeout = timeout
            let traffic = try DeviceTraffic(plan, loop: EventLoop()) { reporter.step($0) }
            let functions = try targets.map { target in
                (name: "\(target)", function: try target.open(unsafeNoIOMMU: opening.unsafeNoIOMMU))
            }
            let report = try traffic.run(functions)
            if json {
                try CommandFailure.print(report)
            } else {
                try CommandFailure.print(lines: report.lines)
            }
            for reason in report.reasons { reporter.problem(reason) }
            if report.verdict == .failed { throw ExitCode(1) }
        }
    }

    private var targets: [DeviceTarget] {
        get throws { try [first, second].map(DeviceTarget.parse) }
    }
}
