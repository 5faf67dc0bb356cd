import ArgumentParser
import HostSystem
import PCI

/// What commands take that change a device.
struct ChangeOptions: ParsableArguments {
    @Flag(help: "Print every write and make none.")
    var dryRun = false

    @Flag(help: "Go on although others use the device.")
    var force = false
}

/// `vhost-pci device bind`.
struct DeviceBindCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "bind",
        abstract: "Give a device to another kernel driver.",
        discussion: """
            Refuses a device that is in use. The state from before is kept in \
            /run/vhost-pci/bindings, so that `device restore` works after a crash too; if the \
            driver does not take the device, driver and override are put back at once.
            """
    )

    @Argument(help: "0000:03:00.0", transform: DeviceTarget.parse)
    var target: DeviceTarget

    @Option(help: "vfio-pci, uio_pci_generic, or another driver of this kernel.")
    var driver = "vfio-pci"

    @Flag(
        name: .customLong("unsafe-no-iommu"),
        help: "Let vfio-pci have it without an IOMMU, where the kernel allows that."
    )
    var unsafeNoIOMMU = false

    @OptionGroup var change: ChangeOptions
    @OptionGroup var host: HostOptions

    func run() throws {
        try DeviceChange.run("device-bind", target, change, host) { binding, address in
            try binding.bindPlan(
                address,
                to: driver,
                force: change.force,
                withoutIOMMU: unsafeNoIOMMU
            )
        }
    }
}

/// `vhost-pci device unbind`.
struct DeviceUnbindCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "unbind",
        abstract: "Take a device from its driver and give it to none."
    )

    @Argument(help: "0000:03:00.0", transform: DeviceTarget.parse)
    var target: DeviceTarget

    @OptionGroup var change: ChangeOptions
    @OptionGroup var host: HostOptions

    func run() throws {
        try DeviceChange.run("device-unbind", target, change, host) { binding, address in
            try binding.unbindPlan(address, force: change.force)
        }
    }
}

/// `vhost-pci device reset`.
struct DeviceResetCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "reset",
        abstract: "Reset a function, by the first method that the kernel has for it."
    )

    @Argument(help: "0000:03:00.0, `vfio-user:PATH` or `emulated`.", transform: DeviceTarget.parse)
    var target: DeviceTarget

    @OptionGroup var change: ChangeOptions
    @OptionGroup var host: HostOptions

    func run() throws {
        try CommandFailure.reporting(json: host.json) {
            var report = DeviceChange(schema: "vhost-pci.device-reset/1", target: "\(target)")
            if case .pci(let address) = target {
                let reset = FunctionReset(host.tree)
                let write = try reset.plan(address, force: change.force)
                report.writes = [DeviceChange.Write(text: write.text, path: write.path)]
                if !change.dryRun { try reset.carryOut(write) }
            } else if !change.dryRun {
                try target.open(unsafeNoIOMMU: false).reset()
            }
            report.isDryRun = change.dryRun
            report.isChanged = !change.dryRun
            report.done = "\(target) was reset"
            if host.json { return try CommandFailure.print(report) }
            try CommandFailure.print(lines: report.lines)
        }
    }
}

/// What a command changed, in the forms `vhost-pci.device-bind/1` and its like
/// (docs/device-json.md).
struct DeviceChange: Codable, Equatable {
    struct Write: Codable, Equatable {
        var text: String
        var path: String
    }

    var schema: String
    var target: String
    var driverBefore: String?
    var driverAfter: String?
    var writes: [Write] = []
    var notes: [String] = []
    var isDryRun = false
    var isChanged = false
    /// One sentence for people.
    var done = ""

    enum CodingKeys: String, CodingKey {
        case schema, target, writes, notes
        case driverBefore = "driver_before"
        case driverAfter = "driver_after"
        case isDryRun = "dry_run"
        case isChanged = "changed"
    }

    /// Plans, and carries the plan out unless it is a dry run; tells what came of it.
    static func run(
        _ name: String,
        _ target: DeviceTarget,
        _ change: ChangeOptions,
        _ host: HostOptions,
        _ makePlan: (DriverBinding, PCIAddress) throws -> BindingPlan
    ) throws {
        // Interrupted or not, the change is finished or rolled back, and told.
        try withoutInterruption {
            try CommandFailure.reporting(json: host.json) {
                let address = try target.address(for: "changing the driver")
                let binding = DriverBinding(host.tree)
                let plan = try makePlan(binding, address)
                let report = try carryOut(plan, name, address, binding, change)
                if host.json { return try CommandFailure.print(report) }
                try CommandFailure.print(lines: report.lines)
            }
        }
    }

    /// Carries a plan out unless it is a dry run.
    static func carryOut(
        _ plan: BindingPlan,
        _ name: String,
        _ address: PCIAddress,
        _ binding: DriverBinding,
        _ change: ChangeOptions
    ) throws -> DeviceChange {
        var report = DeviceChange(schema: "vhost-pci.\(name)/1", target: "\(address)")
        report.driverBefore = plan.driverBefore
        report.writes = plan.writes.map { Write(text: $0.text, path: $0.path) }
        report.notes = plan.notes
        report.isDryRun = change.dryRun
        report.driverAfter = change.dryRun ? plan.driverBefore : try binding.carryOut(plan)
        report.isChanged = !plan.isDone && !change.dryRun
        let driver = report.driverAfter ?? "no driver"
        report.done =
            plan.isDone
            ? "nothing to do: \(address) has \(driver)"
            : "\(address) has \(driver) now; before it had \(plan.driverBefore ?? "no driver")"
        return report
    }

    /// The outcome for people.
    var lines: [String] {
        var lines: [String] = []
        if isDryRun {
            lines = writes.map { write in
                "write \"\(write.text == "\n" ? "\\n" : write.text)\" to \(write.path)"
            }
        }
        if !isDryRun || writes.isEmpty { lines.append(done) }
        return lines + notes.map { "note: \($0)" }
    }
}
