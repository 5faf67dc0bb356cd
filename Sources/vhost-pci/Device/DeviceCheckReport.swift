import DeviceCheck

/// What `device check --json` prints: schema `vhost-pci.device-check/1`, docs/device-json.md.
struct DeviceCheckReport: Encodable {
    enum Verdict: String, Encodable {
        case ok
        case failed
    }

    let schema = "vhost-pci.device-check/1"
    let target: String
    let verdict: Verdict
    let passed: Int
    let failed: Int
    let notApplicable: Int
    let results: [CheckResult]

    enum CodingKeys: String, CodingKey {
        case schema, target, verdict, passed, failed, results
        case notApplicable = "not_applicable"
    }

    init(target: String, results: [CheckResult]) {
        self.target = target
        self.results = results
        passed = results.count { $0.verdict == .pass }
        failed = results.count { $0.verdict == .fail }
        notApplicable = results.count { $0.verdict == .notApplicable }
        verdict = failed == 0 ? .ok : .failed
    }

    /// One rule as people read it.
    static func line(_ result: CheckResult) -> String {
        let verdict = result.verdict == .notApplicable ? "n/a " : result.verdict.rawValue
        return "\(result.id)  \(verdict)  \(result.subject): \(result.evidence)"
    }

    /// The last line.
    var summary: String {
        "\(target): \(results.count) rules, \(passed) passed, \(failed) failed,"
            + " \(notApplicable) not applicable"
    }
}
