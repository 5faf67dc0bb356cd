import ArgumentParser
import Glibc
import HostSystem
import PCI
import VFIO

/// `vhost-pci device`: bring-up of PCI functions.
struct DeviceCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "device",
        abstract: "List, show, check and bind the PCI functions of this machine.",
        discussion: """
            A TARGET is the address of a PCI function, 0000:03:00.0 or 03:00.0; \
            `vfio-user:PATH`, the device of a server's socket; or `emulated`, the management device \
            emulated in this process. Exit status: 0 done, 1 failed, 2 wrong \
            usage, 3 refused because something is in use.
            """,
        subcommands: [
            DeviceListCommand.self, DeviceShowCommand.self, DeviceDumpCommand.self,
            DeviceCheckCommand.self, DeviceBindCommand.self, DeviceUnbindCommand.self,
            DeviceRestoreCommand.self, DeviceResetCommand.self, DeviceTrafficCommand.self,
        ]
    )
}

/// What all device commands take.
struct HostOptions: ParsableArguments {
    @Option(help: "Read the host's files below this directory instead of /.")
    var sysroot = "/"

    @Flag(help: "Print one JSON object.")
    var json = false

    /// The files to read.
    var tree: HostTree { HostTree(root: sysroot) }

    func validate() throws {
        var isDirectory = false
        if let attributes = HostTree.live.attributes(sysroot) {
            isDirectory = attributes.isDirectory
        }
        guard isDirectory else {
            throw ValidationError("--sysroot: '\(sysroot)' is not a directory")
        }
    }
}

/// What commands take that open a device.
struct OpenOptions: ParsableArguments {
    @Flag(
        name: .customLong("unsafe-no-iommu"),
        help: "Drive a device that no IOMMU keeps from overwriting any memory."
    )
    var unsafeNoIOMMU = false

    /// Opens a device for driving it; what makes that dangerous is told on standard error.
    func open(_ target: DeviceTarget, in tree: HostTree = .live) throws -> any PCIFunction {
        let function = try target.open(unsafeNoIOMMU: unsafeNoIOMMU, in: tree)
        if let warning = (function as? any HostFunction)?.warning {
            StepReporter.write("vhost-pci: \(warning)\n", to: STDERR_FILENO)
        }
        return function
    }
}
