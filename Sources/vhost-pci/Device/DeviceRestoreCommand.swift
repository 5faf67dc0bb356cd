import ArgumentParser
import HostSystem
import PCI

/// `vhost-pci device restore`.
struct DeviceRestoreCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "restore",
        abstract: "Put back the driver that a device had before this program changed it.",
        discussion: "Works after a crash. Without a record, the override is cleared."
    )

    @Argument(help: "0000:03:00.0", transform: DeviceTarget.parse)
    var target: DeviceTarget?

    @Flag(help: "Every device that this program changed since the host was started.")
    var all = false

    @OptionGroup var change: ChangeOptions
    @OptionGroup var host: HostOptions

    func validate() throws {
        guard (target != nil) != all else {
            throw ValidationError("name one device, or say --all")
        }
    }

    func run() throws {
        guard let target else { return try restoreAll() }
        try DeviceChange.run("device-restore", target, change, host) { binding, address in
            try binding.restorePlan(address, force: change.force)
        }
    }

    /// Goes on after a device that cannot be restored, and fails in the end.
    private func restoreAll() throws {
        try withoutInterruption {
            var report = DeviceRestoration()
            let binding = DriverBinding(host.tree)
            for address in BindingJournal(host.tree).addresses {
                do {
                    let plan = try binding.restorePlan(address, force: change.force)
                    report.devices.append(
                        try DeviceChange.carryOut(plan, "device-restore", address, binding, change)
                    )
                } catch {
                    report.add(CommandFailure(error), of: address)
                }
            }
            if host.json {
                try CommandFailure.print(report)
            } else {
                try CommandFailure.print(lines: report.lines)
            }
            if report.status != 0 { throw ExitCode(report.status) }
        }
    }
}

/// What `device restore --all` did, in the form `vhost-pci.device-restore-all/1`
/// (docs/device-json.md).
struct DeviceRestoration: Encodable {
    struct Failure: Encodable {
        var target: String
        var error: CommandFailure.Reason
    }

    var schema = "vhost-pci.device-restore-all/1"
    var devices: [DeviceChange] = []
    var failures: [Failure] = []
    /// Exit status: that of the first failure.
    private(set) var status: Int32 = 0

    enum CodingKeys: String, CodingKey {
        case schema, devices, failures
    }

    mutating func add(_ failure: CommandFailure, of address: PCIAddress) {
        failures.append(Failure(target: "\(address)", error: failure.error))
        if status == 0 { status = failure.exitStatus }
    }

    /// The outcome for people.
    var lines: [String] {
        if devices.isEmpty, failures.isEmpty {
            return ["nothing to do: this program has changed no device since the host was started"]
        }
        return devices.flatMap(\.lines)
            + failures.map { failure in
                let remedy = failure.error.remedy.map { "; \($0)" } ?? ""
                return "\(failure.target): \(failure.error.id ?? "failed"): \(failure.error.detail)"
                    + remedy
            }
    }
}
