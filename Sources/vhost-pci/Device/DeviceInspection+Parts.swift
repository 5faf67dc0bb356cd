import HostSystem
import PCI
import VirtioSpec

// One part of a report from one source each.
extension DeviceInspection {
    static func identity(_ identity: PCIIdentity?) -> DeviceReport.Identity {
        DeviceReport.Identity(
            vendor: identity?.vendor ?? 0xffff,
            device: identity?.device ?? 0xffff,
            subsystemVendor: identity?.subsystemVendor ?? 0xffff,
            subsystemDevice: identity?.subsystem ?? 0xffff,
            classCode: identity?.classCode ?? 0xffffff,
            revision: identity?.revision ?? 0xff
        )
    }

    static func host(_ record: PCIBus.Record) -> DeviceReport.Host {
        DeviceReport.Host(
            driver: record.driver,
            driverOverride: record.driverOverride,
            group: record.group.map { group in
                DeviceReport.Group(
                    number: group.number,
                    type: group.type,
                    members: group.members.map { member in
                        DeviceReport.Member(
                            address: "\(member.address)",
                            driver: member.driver,
                            classCode: member.classCode,
                            isInTheWay: member.isInTheWay
                        )
                    }
                )
            },
            node: record.node,
            localCPUs: record.localCPUs,
            resetMethods: record.resetMethods ?? [],
            powerState: record.powerState,
            linkSpeed: record.link?.speed,
            linkWidth: record.link?.width,
            maximumLinkSpeed: record.link?.maximumSpeed,
            maximumLinkWidth: record.link?.maximumWidth,
            physicalFunction: record.physicalFunction.map { "\($0)" },
            virtualFunctions: record.maximumVirtualFunctions.map { _ in
                record.virtualFunctions.map { "\($0)" }
            },
            maximumVirtualFunctions: record.maximumVirtualFunctions,
            interfaces: record.interfaces,
            disks: record.disks,
            allocatedVectors: record.allocatedVectors
        )
    }

    static func bar(_ resource: PCIResource) -> DeviceReport.BAR {
        var kind = resource.isPortIO ? "I/O ports" : "memory"
        if resource.number == 6 { kind = "expansion ROM" }
        if resource.is64Bit { kind += ", 64-bit" }
        if resource.isPrefetchable { kind += ", prefetchable" }
        return DeviceReport.BAR(
            number: resource.number,
            address: resource.isUnassigned ? nil : resource.start,
            size: resource.size,
            kind: kind
        )
    }

    static func entry(_ capability: Capability) -> DeviceReport.CapabilityEntry {
        var fields: [String: JSONValue] = [:]
        for field in capability.fields {
            switch field.value {
            case .number(let value), .bits(let value): fields[field.name] = .number(value)
            case .flag(let value): fields[field.name] = .flag(value)
            case .text(let value): fields[field.name] = .text(value)
            }
        }
        return DeviceReport.CapabilityEntry(
            id: capability.identifier,
            isExtended: capability.isExtended,
            offset: capability.offset,
            version: capability.version,
            name: capability.name,
            fields: fields,
            problems: capability.problems
        )
    }

    static func features(_ bits: FeatureBits, _ type: DeviceType) -> [DeviceReport.Feature] {
        bits.bits.map {
            DeviceReport.Feature(bit: $0, name: FeatureBits.name(ofBit: $0, for: type))
        }
    }

    /// What stands in the way of using a function, told before it is used (HI-J6, HI-J13, HI-J30).
    func notes(
        on record: PCIBus.Record,
        _ image: ConfigurationImage,
        to report: inout DeviceReport
    ) {
        if let override = record.driverOverride, override != record.driver {
            report.notes.append(
                DeviceReport.Note(
                    id: "bind/override",
                    text: "driver_override says \(override), but the driver is"
                        + " \(record.driver ?? "none"): an earlier change was not finished",
                    remedy: "vhost-pci device restore \(record.address)"
                )
            )
        }
        if record.group == nil {
            let cause = IOMMUAbsence(in: tree)
            report.notes.append(
                DeviceReport.Note(id: "iommu/off", text: cause.text, remedy: cause.remedy)
            )
        }
        if record.resetMethods == nil {
            report.notes.append(
                DeviceReport.Note(
                    id: "pci/reset",
                    text: "the kernel has no way to reset this function"
                        + (record.isVirtio ? "; only the virtio status register resets it" : "")
                )
            )
        }
        if let link = record.link, link.isDegraded {
            report.notes.append(
                DeviceReport.Note(
                    id: "pci/link",
                    text: "the link runs at \(link.speed) x\(link.width), below what it could do"
                )
            )
        }
    }
}
