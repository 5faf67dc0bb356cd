import AdminQueue
import ArgumentParser

/// `vhost-pci mgmt`: what a management device is and can do.
struct MgmtCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "mgmt",
        abstract: "Show a management device and what its admin queue can do.",
        discussion: """
            A TARGET is `emulated`, `vfio-user:PATH` with the socket of a server, or the address of a \
            management device that is bound to vfio-pci or uio_pci_generic. The device is reset and brought up, and reset again in the end: \
            virtual devices that somebody created are gone then, those that are built in stay.
            """,
        subcommands: [MgmtShowCommand.self, MgmtCapsCommand.self, MgmtCommandsCommand.self]
    )
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
