import ArgumentParser
import Glibc
import HostSystem
import PCI
import VirtioSpec

/// `vhost-pci device list`.
struct DeviceListCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "list",
        abstract: "List the PCI functions of this machine."
    )

    @Flag(help: "Only virtio functions.")
    var virtio = false

    @OptionGroup var host: HostOptions

    func run() throws {
        try CommandFailure.reporting(json: host.json) {
            let list = try DeviceList(in: host.tree, onlyVirtio: virtio)
            if host.json {
                try CommandFailure.print(list)
                if let reason = list.reason { StepReporter.write(reason + "\n", to: STDERR_FILENO) }
            } else {
                try CommandFailure.print(lines: list.lines)
            }
        }
    }
}

/// The functions of a host, in the form `vhost-pci.device-list/1` (docs/device-json.md).
struct DeviceList: Codable, Equatable {
    struct Entry: Codable, Equatable {
        var address: String
        var vendor: UInt16
        var device: UInt16
        var classCode: UInt32
        var name: String
        var virtioType: String?
        var driver: String?
        var driverOverride: String?
        var group: Int?
        var node: Int?
        var uses: [String]

        enum CodingKeys: String, CodingKey {
            case address, vendor, device, name, driver, uses
            case classCode = "class"
            case virtioType = "virtio_type"
            case driverOverride = "driver_override"
            case group = "iommu_group"
            case node = "numa_node"
        }
    }

    var schema = "vhost-pci.device-list/1"
    var devices: [Entry]
    /// Why the list is empty.
    var reason: String?

    init(in tree: HostTree, onlyVirtio: Bool) throws {
        let all = try PCIBus.functions(in: tree)
        devices = all.filter { !onlyVirtio || $0.isVirtio }.map { record in
            Entry(
                address: "\(record.address)",
                vendor: record.identity.vendor,
                device: record.identity.device,
                classCode: record.identity.classCode,
                name: record.name,
                virtioType: record.identity.virtioType.map { "\(DeviceType($0))" },
                driver: record.driver,
                driverOverride: record.driverOverride,
                group: record.group?.number,
                node: record.node,
                uses: record.interfaces + record.disks
            )
        }
        guard devices.isEmpty else { return }
        let place = tree.place(of: PCIBus.directory)
        if !all.isEmpty {
            reason = "none of the \(all.count) PCI functions is a virtio function"
        } else if tree.exists(PCIBus.directory) {
            reason = "no functions: \(place) is empty, as in a container or a guest without PCI"
        } else {
            reason = "no functions: there is no \(place), so this kernel has no PCI bus"
        }
    }

    /// The table for people.
    var lines: [String] {
        if let reason { return [reason] }
        var table = TextTable(["address", "ids", "driver", "group", "node", "in use as", "name"])
        for entry in devices {
            let override = entry.driverOverride.map { $0 == entry.driver ? "" : " (wants \($0))" }
            table.add([
                entry.address,
                HexText.bare(entry.vendor, digits: 4) + ":"
                    + HexText.bare(entry.device, digits: 4),
                (entry.driver ?? "-") + (override ?? ""),
                entry.group.map(String.init) ?? "",
                entry.node.map(String.init) ?? "",
                entry.uses.joined(separator: " "),
                entry.virtioType.map { "\(entry.name) [\($0)]" } ?? entry.name,
            ])
        }
        return table.lines
    }
}
