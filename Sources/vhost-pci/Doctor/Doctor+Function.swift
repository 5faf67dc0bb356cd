import HostSystem
import PCI
import VirtioSpec

// One function.
extension Doctor {
    // MARK: Who has it

    func access(_ record: PCIBus.Record) -> [Finding] {
        [group(record), reserved(record)].compactMap { $0 } + holders(record)
            + [override(record), uses(record), virtualFunctions(record)].compactMap { $0 }
    }

    private func group(_ record: PCIBus.Record) -> Finding {
        let path = "\(record.directory)/iommu_group"
        guard let group = record.group else {
            let cause = IOMMUAbsence(in: tree)
            return .fail(
                "vfio/group",
                "\(record.address) is in no IOMMU group: \(cause.text)",
                read: path,
                remedy: cause.remedy
            )
        }
        let members = group.members.map { member in
            "\(member.address) (\(member.driver ?? "no driver"))"
                + (member.isBridge ? ", a bridge" : "")
        }
        let list = "group \(group.number): " + members.joined(separator: "; ")
        let others = group.members.filter { $0.isInTheWay && $0.address != record.address }
        guard let first = others.first else { return .ok("vfio/group", list, read: path) }
        let names = others.map { "\($0.address)" }.joined(separator: ", ")
        return .fail(
            "vfio/group",
            "\(list); in the way: \(names)",
            read: "/sys/kernel/iommu_groups/\(group.number)/devices",
            remedy: "vhost-pci device bind \(first.address)"
        )
    }

    /// Ranges that firmware wants mapped one to one: the kernel gives such a function to nobody.
    private func reserved(_ record: PCIBus.Record) -> Finding? {
        guard let group = record.group else { return nil }
        let id = "iommu/reserved"
        let path = "/sys/kernel/iommu_groups/\(group.number)/reserved_regions"
        switch file(path) {
        case .text(let text):
            let lines = text.split(separator: "\n").map { $0.split(separator: " ") }
            if let direct = lines.first(where: { $0.count == 3 && $0[2] == "direct" }) {
                return .fail(
                    id,
                    "firmware uses \(direct[0]) to \(direct[1]) through this device",
                    read: path,
                    remedy: "switch that use off in the firmware (RMRR); VFIO refuses the device"
                )
            }
            let kinds = lines.compactMap { $0.count == 3 ? "\($0[0]) to \($0[1]) \($0[2])" : nil }
            let list = kinds.isEmpty ? "none" : kinds.joined(separator: "; ")
            return .ok(id, "addresses that are left out: \(list)", read: path)
        case .absent: return .unknown(id, "the kernel does not list them", read: path)
        case .closed(let why): return .unknown(id, why, read: path)
        }
    }

    private func holders(_ record: PCIBus.Record) -> [Finding] {
        guard let driver = record.driver, DriverBinding.userDrivers.contains(driver) else {
            return []
        }
        var findings: [Finding] = []
        if driver == "vfio-pci", let group = record.group {
            let path = "/dev/vfio/\(group.number)"
            findings.append(
                tree.exists(path)
                    ? node(path)
                    : .fail(
                        "vfio/permission",
                        "bound to vfio-pci, but there is no \(path)",
                        read: path,
                        remedy: "in a container, have it passed in"
                    )
            )
        }
        if driver == "uio_pci_generic", let group = record.group {
            findings.append(translation(group))
        }
        let users = DeviceUse.list(of: record, in: tree).filter { $0.kind == .process }
        if let user = users.first {
            findings.append(
                .warn("vfio/busy", user.text, read: "/proc", remedy: "end that process first")
            )
        } else if process.has(.administer) == true {
            findings.append(.ok("vfio/busy", "no process has it open", read: "/proc"))
        } else {
            findings.append(
                .unknown(
                    "vfio/busy",
                    "the files of other users' processes cannot be seen",
                    read: "/proc",
                    remedy: "run as root"
                )
            )
        }
        return findings
    }

    private func translation(_ group: IOMMUGroup) -> Finding {
        let id = "iommu/translated"
        let path = "/sys/kernel/iommu_groups/\(group.number)/type"
        guard let type = group.type else {
            return .unknown(id, "the kernel does not tell how the group is used", read: path)
        }
        guard group.isTranslated else {
            return .ok(id, "the IOMMU lets its addresses through (\(type))", read: path)
        }
        return .fail(
            id,
            "the IOMMU translates its accesses (\(type)): UIO's physical addresses reach nothing",
            read: path,
            remedy: "bind it to vfio-pci, or boot with iommu=pt"
        )
    }

    private func override(_ record: PCIBus.Record) -> Finding {
        let id = "bind/override"
        let path = "\(record.directory)/driver_override"
        let driver = record.driver ?? "no driver"
        guard let override = record.driverOverride else {
            return .ok(id, "\(driver), and no override", read: path)
        }
        if override == record.driver { return .ok(id, "\(driver), as told", read: path) }
        return .warn(
            id,
            "told to have \(override), but it has \(driver): that driver refused it, or an earlier"
                + " change was not finished",
            read: path,
            remedy: "vhost-pci device restore \(record.address); the kernel's log says why"
        )
    }

    private func uses(_ record: PCIBus.Record) -> Finding {
        let id = "bind/in-use"
        let uses = DeviceUse.list(of: record, in: tree)
            .filter { $0.kind != .process && $0.kind != .virtualFunction }
        guard !uses.isEmpty else {
            return .ok(id, "nobody is seen to use it", read: record.directory)
        }
        return .warn(
            id,
            uses.map(\.text).joined(separator: ", "),
            read: record.directory,
            remedy: "end that use before it is bound"
        )
    }

    private func virtualFunctions(_ record: PCIBus.Record) -> Finding? {
        let id = "pci/sriov"
        let path = "\(record.directory)/sriov_numvfs"
        if let function = record.physicalFunction {
            return .ok(id, "a virtual function of \(function)", read: "\(record.directory)/physfn")
        }
        guard let maximum = record.maximumVirtualFunctions else { return nil }
        let count = record.virtualFunctions.count
        let found = "\(count) of \(maximum) virtual functions are on"
        guard count > 0 else { return .ok(id, found, read: path) }
        return .warn(
            id,
            "\(found): they go when this function is taken",
            read: path,
            remedy: "free them, then echo 0 > \(path)"
        )
    }

    // MARK: What state it is in

    func condition(_ record: PCIBus.Record) -> [Finding] {
        [power(record), reset(record)] + space(record)
            + [bars(record), link(record), errors(record)].compactMap { $0 }
    }

    private func power(_ record: PCIBus.Record) -> Finding {
        let path = "\(record.directory)/power_state"
        guard let state = record.powerState else {
            return .unknown("pci/power", "the kernel does not tell its power state", read: path)
        }
        if state == "D0" { return .ok("pci/power", "on (D0)", read: path) }
        // vfio-pci puts a function to sleep that nobody has open.
        if record.driver == "vfio-pci" {
            return .ok("pci/power", "asleep (\(state)) until it is opened", read: path)
        }
        return .warn(
            "pci/power",
            "asleep (\(state)): its registers read as ones until a driver wakes it",
            read: path,
            remedy: "bind it to a driver; the kernel's log says why it sleeps under one"
        )
    }

    private func reset(_ record: PCIBus.Record) -> Finding {
        let path = "\(record.directory)/reset_method"
        if let methods = record.resetMethods {
            let list = methods.joined(separator: ", ")
            return .ok("pci/reset", "the kernel can reset it: \(list)", read: path)
        }
        return .warn(
            "pci/reset",
            "the kernel has no way to reset it",
            read: path,
            remedy: record.isVirtio
                ? "none needed: a virtio driver resets it through the status register"
                : "only a power cycle resets it"
        )
    }

    /// What configuration space says, as far as it can be read.
    private func space(_ record: PCIBus.Record) -> [Finding] {
        let path = "\(record.directory)/config"
        let image: ConfigurationImage
        do { image = try ConfigurationImage(of: record.address, in: tree) } catch {
            return [.unknown("pci/cap", "\(error)", read: path, remedy: "run as root")]
        }
        guard !image.isHeaderOnly else {
            return [
                .unknown(
                    "pci/cap",
                    "only \(image.bytes.count) bytes of configuration space can be read",
                    read: path,
                    remedy: "run as root"
                )
            ]
        }
        let report = CapabilityReport(image, bars: BARSizes(record.resources))
        let problems = report.problems + report.capabilities.flatMap(\.problems)
        var findings: [Finding] = []
        if let first = problems.first {
            findings.append(
                .fail(
                    "pci/cap",
                    problems.joined(separator: "; "),
                    read: path,
                    remedy: first.hasPrefix("pci/device-gone")
                        ? "wake it, or look for it again: echo 1 > /sys/bus/pci/rescan"
                        : "the device, or who emulates it, breaks the specification"
                )
            )
        } else if record.isVirtio, report.virtio(.common).isEmpty {
            findings.append(
                .fail(
                    "pci/cap",
                    "no common configuration structure: only the interface from before virtio 1.0",
                    read: path,
                    remedy: "QEMU: disable-legacy=on,disable-modern=off"
                )
            )
        } else {
            let count = report.capabilities.count
            findings.append(.ok("pci/cap", "\(count) capabilities, all in bounds", read: path))
        }
        findings.append(interrupts(report, path))
        return findings
    }

    private func interrupts(_ report: CapabilityReport, _ path: String) -> Finding {
        let id = "pci/interrupts"
        guard let vectors = report.messageVectors else {
            return .warn(
                id,
                "no MSI-X: one shared interrupt at most",
                read: path,
                remedy: "poll, which needs none"
            )
        }
        guard vectors < 3 else { return .ok(id, "MSI-X with \(vectors) vectors", read: path) }
        return .warn(
            id,
            "MSI-X with \(vectors) vectors: two queues and configuration changes need three",
            read: path,
            remedy: "QEMU: vectors=N on the device; queues will share a vector"
        )
    }

    private func bars(_ record: PCIBus.Record) -> Finding {
        let id = "pci/bar"
        let path = "\(record.directory)/resource"
        let bars = record.resources.filter { $0.number < 6 }
        guard tree.exists(path) else { return .unknown(id, "they are not listed", read: path) }
        let lost = bars.filter { $0.isUnassigned && $0.isMemory }
        if !lost.isEmpty {
            return .fail(
                id,
                "no address: BAR \(lost.map { "\($0.number)" }.joined(separator: ", "))",
                read: path,
                remedy: "boot with pci=realloc, or give the machine more room for PCI memory"
            )
        }
        let small = bars.filter { $0.isMemory && ($0.size < 4096 || $0.start & 0xfff != 0) }
        guard small.isEmpty else {
            return .warn(
                id,
                "no page of its own: BAR \(small.map { "\($0.number)" }.joined(separator: ", "))",
                read: path,
                remedy: "none needed: such a BAR is read and written through calls, not mapped"
            )
        }
        let list = bars.map { "\($0.number): \(DeviceText.size($0.size))" }
        return .ok(id, list.isEmpty ? "none" : list.joined(separator: ", "), read: path)
    }

    private func link(_ record: PCIBus.Record) -> Finding? {
        guard let link = record.link else { return nil }
        let path = "\(record.directory)/current_link_speed"
        let now = "\(link.speed) x\(link.width)"
        guard link.isDegraded else { return .ok("pci/link", now, read: path) }
        let best =
            "\(link.maximumSpeed ?? "?") x\(link.maximumWidth.map(String.init) ?? "?")"
        return .warn(
            "pci/link",
            "\(now), but the device could do \(best)",
            read: path,
            remedy: "look at the slot, and at the bridge above"
        )
    }

    private func errors(_ record: PCIBus.Record) -> Finding? {
        let names = ["correctable": "COR", "nonfatal": "NONFATAL", "fatal": "FATAL"]
        var counts: [String] = []
        var isThere = false
        for (kind, total) in names.sorted(by: { $0.key < $1.key }) {
            let text = file("\(record.directory)/aer_dev_\(kind)").text ?? ""
            let line = text.split(separator: "\n").first { $0.hasPrefix("TOTAL_ERR_\(total) ") }
            guard let count = line?.split(separator: " ").last.flatMap({ UInt64($0) }) else {
                continue
            }
            isThere = true
            if count > 0 { counts.append("\(count) \(kind)") }
        }
        guard isThere else { return nil }
        let path = "\(record.directory)/aer_dev_*"
        if counts.isEmpty { return .ok("pci/errors", "no errors on the bus", read: path) }
        return .warn(
            "pci/errors",
            "errors on the bus: \(counts.joined(separator: ", "))",
            read: path,
            remedy: "look at the slot and the cable; the kernel's log has each error"
        )
    }

    // MARK: What it is near to

    func place(_ record: PCIBus.Record) -> [Finding] {
        let id = "numa/remote"
        let path = "\(record.directory)/numa_node"
        let withMemory = file("\(Self.nodes)/has_memory").text.flatMap { NumberList($0)?.numbers }
        guard let node = record.node else {
            guard let withMemory else {
                return [.unknown(id, "the machine's nodes cannot be read", read: Self.nodes)]
            }
            if withMemory.count <= 1 {
                return [.ok(id, "the machine has one node", read: "\(Self.nodes)/has_memory")]
            }
            return [
                .warn(
                    id,
                    "the machine does not say which of its nodes the function is near to: half of"
                        + " all accesses may cross over",
                    read: path,
                    remedy: "measure with --cores of each node"
                )
            ]
        }
        if let withMemory, !withMemory.contains(node) {
            return [
                .warn(
                    id,
                    "node \(node), which has no memory: every access crosses to another",
                    read: path,
                    "\(Self.nodes)/has_memory",
                    remedy: "use another slot"
                )
            ]
        }
        let near = record.localCPUs.flatMap { NumberList($0)?.numbers } ?? []
        guard let allowed = allowedCPUs, !near.isEmpty else {
            return [.unknown(id, "node \(node); the CPUs near it cannot be read", read: path)]
        }
        let usable = near.intersection(allowed)
        guard !usable.isEmpty else {
            return [
                .warn(
                    id,
                    "node \(node), whose CPUs this process may not use: every access crosses over",
                    read: path,
                    ProcessFacts.statusPath,
                    remedy: "widen the cpuset to CPUs \(record.localCPUs ?? "")"
                )
            ]
        }
        return [.ok(id, "node \(node), near CPUs \(record.localCPUs ?? "")", read: path)]
    }
}
