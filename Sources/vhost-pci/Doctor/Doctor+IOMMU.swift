import HostSystem
import PCI

// Is there an IOMMU, is it on, and how is it used.
extension Doctor {
    static let units = "/sys/class/iommu"
    static let tables = "/sys/firmware/acpi/tables"
    static let commandLine = "/proc/cmdline"

    var iommu: [Finding] {
        var findings = [firmware, unitsInUse, mode]
        if case .names(let names) = directory(Self.units), !names.isEmpty {
            findings.append(remapping)
            findings += names.compactMap(limits)
        }
        return findings
    }

    private var firmware: Finding {
        let id = "iommu/firmware"
        switch directory(Self.tables) {
        case .names(let names):
            let found = names.filter { IOMMUAbsence.tables.contains($0) }
            if !found.isEmpty {
                let list = found.joined(separator: ", ")
                return .ok(id, "firmware describes an IOMMU: \(list)", read: Self.tables)
            }
            let cause = IOMMUAbsence(in: tree)
            guard cause == .guest || cause == .firmware else {
                return .ok(id, "no table of an IOMMU, but the kernel uses one", read: Self.tables)
            }
            return .fail(id, cause.text, read: Self.tables, remedy: cause.remedy)
        case .absent:
            return .unknown(id, "this machine has no ACPI tables to look at", read: Self.tables)
        case .closed(let why):
            return .unknown(id, why, read: Self.tables, remedy: "run as root")
        }
    }

    private var unitsInUse: Finding {
        let id = "iommu/off"
        switch directory(Self.units) {
        case .names(let names) where !names.isEmpty:
            return .ok(id, "in use: \(names.joined(separator: ", "))", read: Self.units)
        case .closed(let why):
            return .unknown(id, why, read: Self.units, remedy: "run as root")
        default:
            let cause = IOMMUAbsence(in: tree)
            return .fail(
                id,
                "no IOMMU is in use: \(cause.text); vfio-pci refuses every function",
                read: Self.units,
                remedy: cause.remedy
            )
        }
    }

    // No mode is wrong: it says how the kernel's own drivers go through the IOMMU.
    private var mode: Finding {
        let id = "iommu/mode"
        guard let text = file(Self.commandLine).text else {
            return .unknown(id, "the kernel's arguments cannot be read", read: Self.commandLine)
        }
        let words = text.split(separator: " ").filter { word in
            ["iommu=", "intel_iommu=", "amd_iommu=", "iommu.passthrough="].contains {
                word.hasPrefix($0)
            }
        }
        let off = words.first { word in
            word.split(separator: "=").last?.split(separator: ",").contains("off") ?? false
        }
        if let off {
            return .fail(
                id,
                "the kernel was told to leave the IOMMU off: \(off)",
                read: Self.commandLine,
                remedy: "take \(off) out of the kernel's arguments"
            )
        }
        let list = words.isEmpty ? "none" : words.joined(separator: " ")
        return .ok(id, "kernel arguments about the IOMMU: \(list)", read: Self.commandLine)
    }

    /// The interrupt chips that the kernel drives through the remapping hardware have a name that
    /// starts with IR (linux: drivers/iommu/*/irq_remapping.c).
    private var remapping: Finding {
        let id = "iommu/remapping"
        let switchPath = "/sys/module/vfio_iommu_type1/parameters/allow_unsafe_interrupts"
        if let value = file(switchPath).text, value == "Y" || value == "1" {
            return .warn(
                id,
                "devices may be given to user space without interrupt remapping: they could send"
                    + " any interrupt",
                read: switchPath,
                remedy: "echo N > \(switchPath), unless this machine has no remapping"
            )
        }
        let path = "/proc/interrupts"
        guard let text = file(path).text else {
            return .unknown(id, "the interrupts cannot be read", read: path)
        }
        if text.split(whereSeparator: \.isWhitespace).contains(where: { $0.hasPrefix("IR-") }) {
            return .ok(id, "interrupts are remapped", read: path)
        }
        return .warn(
            id,
            "interrupts are not remapped: VFIO refuses devices with EPERM",
            read: path,
            remedy: "switch it on in the firmware (QEMU: intel-iommu,intremap=on), or, on a machine"
                + " whose devices are all trusted, echo Y > \(switchPath)"
        )
    }

    /// Widths and domains of an Intel unit (VT-d specification, Capability Register: MGAW are bits
    /// 21 to 16, one less than the width). Other units do not tell.
    private func limits(_ unit: String) -> Finding? {
        let id = "iommu/limits"
        let place = "\(Self.units)/\(unit)/intel-iommu"
        guard tree.exists(place) else { return nil }
        guard let text = file("\(place)/cap").text, let cap = UInt64(text, radix: 16) else {
            return .unknown(id, "\(unit): the capability register is no number", read: place)
        }
        let width = Int(cap >> 16 & 0x3f) + 1
        func count(_ name: String) -> Int? { file("\(place)/\(name)").text.flatMap { Int($0) } }
        let used = count("domains_used") ?? 0
        guard let supported = count("domains_supported"), supported > 0 else {
            return .ok(id, "\(unit): addresses of \(width) bits", read: "\(place)/cap")
        }
        let summary = "\(unit): addresses of \(width) bits, \(used) of \(supported) domains in use"
        if used >= supported {
            return .fail(
                id,
                summary,
                read: place,
                remedy: "give back devices that other programs hold: each has a domain"
            )
        }
        return .ok(id, summary, read: place)
    }
}
