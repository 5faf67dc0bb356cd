import ArgumentParser
import DeviceCheck
import Glibc
import PCI

/// `vhost-pci device check`.
struct DeviceCheckCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "check",
        abstract: "Hold a virtio device against numbered rules of the standard.",
        discussion: """
            One line for each rule: its id, pass, fail or not applicable, what was looked at and \
            what was found; docs/requirements/DEV.md has the rules and their sources. The device is \
            reset, sends frames and is given broken rings on purpose: nothing else may need it \
            meanwhile. It is left in reset. Exit status 1 when a rule failed.
            """
    )

    @Argument(help: "0000:03:00.0, `vfio-user:PATH` or `emulated`.", transform: DeviceTarget.parse)
    var target: DeviceTarget

    @Option(help: "Only rules whose id begins so, such as DEV-Q; may be given several times.")
    var only: [String] = []

    @OptionGroup var host: HostOptions
    @OptionGroup var opening: OpenOptions

    func validate() throws {
        for prefix in only where !DeviceCheck.families.contains(where: prefix.hasPrefix) {
            throw ValidationError(
                "--only: no rule begins with '\(prefix)': use "
                    + DeviceCheck.families.joined(separator: ", ") + ", or a longer id"
            )
        }
    }

    func run() throws {
        try CommandFailure.reporting(json: host.json) {
            let function = try opening.open(target, in: host.tree)
            let results = try DeviceCheck.run(function, only: only) { result in
                guard !host.json else { return }
                StepReporter.write(DeviceCheckReport.line(result) + "\n", to: STDOUT_FILENO)
            }
            guard !results.isEmpty else {
                StepReporter.write(
                    "vhost-pci: --only: no rule has the id \(only.joined(separator: " or "))\n",
                    to: STDERR_FILENO
                )
                throw ExitCode(2)
            }
            let report = DeviceCheckReport(target: "\(target)", results: results)
            if host.json {
                try CommandFailure.print(report)
            } else {
                try CommandFailure.print(lines: [report.summary])
            }
            if report.verdict != .ok { throw ExitCode(EXIT_FAILURE) }
        }
    }
}
