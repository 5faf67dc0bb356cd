import AdminQueue
import ArgumentParser
import HostSystem

/// `vhost-pci mgmt`: what a management device is and can do.
struct MgmtCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "mgmt",
        abstract: "Show a management device and what its admin queue can do.",
        discussion: """
            A TARGET is `emulated`, or the address of a management device that is bound to vfio-pci \
            or uio_pci_generic. The device is reset and brought up, and reset again in the end: \
            virtual devices that somebody created are gone then, those that are built in stay.
            """,
        subcommands: [MgmtShowCommand.self, MgmtCapsCommand.self, MgmtCommandsCommand.self]
    )
}

/// What commands take that drive a management device.
struct ManagementOptions: ParsableArguments {
    @Argument(help: "0000:03:00.0 or `emulated`.", transform: DeviceTarget.parse)
    var target: DeviceTarget

    @OptionGroup var host: HostOptions
    @OptionGroup var opening: OpenOptions

    /// Does a command's work on the device, and ends with the device in reset.
    func work(_ body: (ManagementSession) throws -> Void) throws {
        try CommandFailure.reporting(json: host.json) {
            let session = try ManagementSession(
                target,
                unsafeNoIOMMU: opening.unsafeNoIOMMU,
                in: host.tree
            )
            defer { session.close() }
            try body(session)
        }
    }

    /// Prints a result in the form that was asked for.
    func tell(_ object: some Encodable, _ lines: @autoclosure () -> [String]) throws {
        if host.json {
            try CommandFailure.print(object)
        } else {
            try CommandFailure.print(lines: lines())
        }
    }
}

/// `vhost-pci mgmt show`.
struct MgmtShowCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "show",
        abstract: "Show dialects, capabilities and how many virtual devices there are."
    )

    @OptionGroup var options: ManagementOptions

    func run() throws {
        try options.work { session in
            let report = try ManagementReport(session)
            try options.tell(report, report.lines)
        }
    }
}

/// `vhost-pci mgmt caps`.
struct MgmtCapsCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "caps",
        abstract: "Show each capability of the admin queue, offered or not."
    )

    @OptionGroup var options: ManagementOptions

    func run() throws {
        try options.work { session in
            let table = CapabilityTable(
                target: "\(options.target)",
                session.driver.capabilities
            )
            try options.tell(table, table.lines)
        }
    }
}

/// `vhost-pci mgmt commands`.
struct MgmtCommandsCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "commands",
        abstract: "Show each admin command, and whether the device's capabilities allow it."
    )

    @OptionGroup var options: ManagementOptions

    func run() throws {
        try options.work { session in
            let table = AdminCommandTable(
                target: "\(options.target)",
                session.driver.capabilities
            )
            try options.tell(table, table.lines)
        }
    }
}
