import ArgumentParser
import HostSystem
import PCI

/// `vhost-pci doctor`.
struct DoctorCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "doctor",
        abstract: "Say whether this host is ready for user-space drivers, and what cures it.",
        discussion: """
            Each line: ok, warn, fail or unknown, the check, what was found and where it was read; \
            then what cures it. With a TARGET, that function is looked at too. Nothing is changed. \
            Exit status: 0 when no check fails, 1 when one does, 2 wrong usage.
            """
    )

    @Argument(help: "0000:03:00.0", transform: DeviceTarget.parse)
    var target: DeviceTarget?

    @OptionGroup var host: HostOptions

    func run() throws {
        try CommandFailure.reporting(json: host.json) {
            let address = try target?.address(for: "looking at the host")
            let report = try Doctor(host.tree, target: address).report
            if host.json {
                try CommandFailure.print(report)
            } else {
                try CommandFailure.print(lines: report.lines)
            }
            if report.counts.fail > 0 { throw ExitCode(1) }
        }
    }
}
