import AdminQueue
import ArgumentParser
import PCI
import Virtio
import VirtioSpec

/// What commands take that drive a management device, and the one way in which they all do it.
struct ManagementOptions: ParsableArguments {
    @Argument(help: "0000:03:00.0, `vfio-user:PATH` or `emulated`.", transform: DeviceTarget.parse)
    var target: DeviceTarget

    @OptionGroup var host: HostOptions
    @OptionGroup var opening: OpenOptions

    /// Does a command's work on the device, and ends with the device in reset.
    func work(_ body: (ManagementSession) throws -> Void) throws {
        try CommandFailure.reporting(json: host.json) {
            do {
                let session = try ManagementSession(
                    target,
                    try opening.open(target, in: host.tree)
                )
                defer { session.close() }
                try body(session)
            } catch VirtioError.command(let command, let answer) {
                throw AdminRefusal.named(command, answer, target)
            }
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

/// What commands take that are about one virtual device.
struct VirtualDeviceOptions: ParsableArguments {
    @OptionGroup var management: ManagementOptions

    @Argument(help: "Id of the virtual device, as `vdev list` shows it.")
    var id: UInt64

    func validate() throws {
        guard id > 0 else {
            throw ValidationError("id 0 is the management device itself; ids begin with 1")
        }
    }
}

/// What commands take that change something.
struct VirtualDeviceChangeOptions: ParsableArguments {
    @Flag(help: "Print the commands that would be sent, and touch nothing.")
    var dryRun = false

    /// Carries `body` out, unless it is a dry run, and tells of it: `body` fills in what was changed
    /// and returns the sentence for people. `hold` keeps the session for as long as it takes.
    func run(
        _ change: VirtualDeviceChange,
        _ options: ManagementOptions,
        _ body: (ManagementSession, inout VirtualDeviceChange) throws -> String,
        hold: (ManagementSession, VirtualDeviceChange) throws -> Void = { _, _ in }
    ) throws {
        var change = change
        if dryRun { return try options.tell(change, change.lines(done: "")) }
        try options.work { session in
            let done = try body(session, &change)
            change.isDryRun = false
            change.isChanged = true
            try options.tell(change, change.lines(done: done))
            try hold(session, change)
        }
    }
}

/// Admin commands that a device refuses, with what the user of a command can do about it.
enum AdminRefusal {
    /// The refusal of `command` by the device at `target`; `answer` are the device's words.
    static func named(_ command: String, _ answer: String, _ target: DeviceTarget) -> HostRefusal {
        let qualifier = AdminQualifier.allCases.first { answer.hasPrefix($0.name + " ") }
        return HostRefusal(
            "admin/\(command)",
            answer,
            remedy: qualifier.flatMap { remedy($0, target) } ?? ""
        )
    }

    private static func remedy(_ qualifier: AdminQualifier, _ target: DeviceTarget) -> String? {
        switch qualifier {
        case .noSuchDevice:
            "no virtual device has that id: `vhost-pci vdev list \(target)` lists them"
        case .noRoomForDevice, .noResource:
            "the device has no room for another: destroy one, or serve it with a higher"
                + " `maximum-devices`"
        case .badDeviceType:
            "the device makes no virtual devices of that type: try vhost-pci-net"
        case .badFeatures:
            "some of these are not offered: leave --features out and see what `vdev add` shows"
        case .badAttribute:
            "the device cannot meet what was asked for: leave options out one by one"
        case .staticDevice:
            "it is built into the device and stays; `vhost-pci vdev reset` resets it"
        case .badOffset:
            "that is outside of its configuration space: `vhost-pci vdev show` tells how long it is"
        case .tryAgain:
            "the device is busy: try again"
        case .invalidOpcode, .invalidMember:
            "`vhost-pci mgmt commands \(target)` shows what the device can do"
        default: nil
        }
    }
}
