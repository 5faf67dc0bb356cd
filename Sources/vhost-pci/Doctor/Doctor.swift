import HostSystem
import PCI

/// Looks at a host, and at one function of it, for what keeps user space from driving devices.
///
/// Nothing is changed and nothing is opened but files of the kernel.
struct Doctor {
    let tree: HostTree
    let process: ProcessFacts
    let record: PCIBus.Record?

    /// Throws `pci/address` when there is no such function.
    init(_ tree: HostTree, target: PCIAddress? = nil) throws(PCIError) {
        self.tree = tree
        process = ProcessFacts(in: tree)
        if let target {
            record = try PCIBus.find(target, in: tree)
        } else {
            record = nil
        }
    }

    /// All findings: of the host, then of the function.
    var findings: [Finding] {
        let host =
            iommu + vfio + uio + memory + processors + system
            + [bindings]
        guard let record else { return host }
        return host + access(record) + condition(record) + place(record)
    }

    /// The report of these findings.
    var report: DoctorReport {
        DoctorReport(target: record.map { "\($0.address)" }, findings: findings)
    }

    func file(_ path: String) -> HostFile { HostFile(path, in: tree) }

    func directory(_ path: String) -> HostDirectory { HostDirectory(path, in: tree) }
}

/// What `doctor` says, in the form `vhost-pci.doctor/1` (docs/device-json.md).
struct DoctorReport: Codable, Equatable {
    struct Counts: Codable, Equatable {
        var ok: Int
        var warn: Int
        var fail: Int
        var unknown: Int
    }

    var schema = "vhost-pci.doctor/1"
    var target: String?
    var findings: [Finding]
    var counts: Counts

    init(target: String?, findings: [Finding]) {
        self.target = target
        self.findings = findings
        func count(_ outcome: Finding.Outcome) -> Int {
            findings.count { $0.outcome == outcome }
        }
        counts = Counts(
            ok: count(.ok),
            warn: count(.warn),
            fail: count(.fail),
            unknown: count(.unknown)
        )
    }

    /// The report for people: one line a finding, remedies below.
    var lines: [String] {
        let width = findings.map(\.id.count).max() ?? 0
        var lines: [String] = []
        for finding in findings {
            let outcome = finding.outcome.rawValue
            let place = finding.read.isEmpty ? "" : " (\(finding.read.joined(separator: ", ")))"
            lines.append(
                outcome + String(repeating: " ", count: 9 - outcome.count) + finding.id
                    + String(repeating: " ", count: width - finding.id.count + 2) + finding.found
                    + place
            )
            if let remedy = finding.remedy { lines.append("         -> \(remedy)") }
        }
        lines.append(
            "\(counts.ok) ok, \(counts.warn) warnings, \(counts.fail) failed,"
                + " \(counts.unknown) unknown"
        )
        return lines
    }
}
