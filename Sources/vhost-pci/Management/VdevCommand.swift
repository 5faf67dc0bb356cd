import AdminQueue
import ArgumentParser
import Glibc
import HostSystem
import PCI
import VirtioSpec

/// `vhost-pci vdev`: the virtual devices of a management device.
struct VdevCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "vdev",
        abstract: "Create, show, change and destroy the virtual devices of a management device.",
        discussion: """
            A TARGET is as for `vhost-pci mgmt`. Resetting a management device destroys the virtual \
            devices that were created, and every command ends with a reset: what `vdev add` creates \
            lives until that command ends. Devices that are built in stay, with their ids.
            """,
        subcommands: [
            VdevAddCommand.self, VdevListCommand.self, VdevShowCommand.self, VdevSetCommand.self,
            VdevResetCommand.self, VdevDelCommand.self, VdevSaveCommand.self,
            VdevRestoreCommand.self,
        ]
    )
}

/// A device type by name or number.
struct DeviceTypeName: ExpressibleByArgument {
    let type: DeviceType

    init?(argument: String) {
        switch argument {
        case "net", "virtio-net": type = .net
        case "vhost-pci-net": type = .vhostPCINet
        case "management": type = .management
        case "console", "virtio-console": type = .console
        default:
            guard let number = UInt32(argument), number > 0 else { return nil }
            type = DeviceType(number)
        }
    }
}

/// `vhost-pci vdev list`.
struct VdevListCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "list",
        abstract: "List the virtual devices that are there."
    )

    @OptionGroup var options: ManagementOptions

    func run() throws {
        try options.work { session in
            guard let devices = try session.list() else {
                throw PCIError.notSupported("listing: the device lacks capability STATIC")
            }
            let list = VirtualDeviceList(target: "\(options.target)", devices)
            if let reason = list.reason {
                StepReporter.write("vhost-pci: \(reason)\n", to: STDERR_FILENO)
            }
            try options.tell(list, list.lines)
        }
    }
}

/// `vhost-pci vdev show`.
struct VdevShowCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "show",
        abstract: "Show features, queues and configuration of a virtual device."
    )

    @OptionGroup var options: VirtualDeviceOptions

    func run() throws {
        try options.management.work { session in
            let device = try session.show(options.id)
            try options.management.tell(
                VirtualDeviceShow(target: "\(session.target)", device: device),
                device.lines
            )
        }
    }
}

/// `vhost-pci vdev save`: commands that the dialect has no words for.
struct VdevSaveCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "save",
        abstract: "Save the state of a virtual device (not supported yet)."
    )

    @OptionGroup var options: VirtualDeviceOptions

    func run() throws {
        try CommandFailure.reporting(json: options.management.host.json) {
            throw PCIError.notSupported("saving a device; the virtual-device dialect cannot")
        }
    }
}

/// `vhost-pci vdev restore`.
struct VdevRestoreCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "restore",
        abstract: "Restore the state of a virtual device (not supported yet)."
    )

    @OptionGroup var options: VirtualDeviceOptions

    func run() throws {
        try CommandFailure.reporting(json: options.management.host.json) {
            throw PCIError.notSupported("restoring a device; the virtual-device dialect cannot")
        }
    }
}
