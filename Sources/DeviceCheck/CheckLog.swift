/// Runs checks one after the other and keeps what they found.
final class CheckLog {
    private(set) var results: [CheckResult] = []
    private let prefixes: [String]
    private let report: (CheckResult) -> Void

    /// Runs the checks whose id begins with one of `prefixes`, all when there are none; `report`
    /// hears of each result at once.
    init(only prefixes: [String], _ report: @escaping (CheckResult) -> Void) {
        self.prefixes = prefixes
        self.report = report
    }

    /// Notes a failure that has to be told whatever was asked for, in the place of what that rule
    /// found before.
    func insist(_ id: String, _ subject: String, _ evidence: String) {
        results.removeAll { $0.id == id }
        let result = CheckResult(id, subject, .fail, evidence)
        results.append(result)
        report(result)
    }

    /// Holds one rule against the device.
    func check(_ id: String, _ subject: String, _ body: () throws -> CheckOutcome) {
        guard prefixes.isEmpty || prefixes.contains(where: { id.hasPrefix($0) }) else { return }
        let result: CheckResult
        do {
            switch try body() {
            case .pass(let evidence): result = CheckResult(id, subject, .pass, evidence)
            case .fail(let evidence): result = CheckResult(id, subject, .fail, evidence)
            case .notApplicable(let why): result = CheckResult(id, subject, .notApplicable, why)
            }
        } catch {
            result = CheckResult(id, subject, .fail, "\(error)")
        }
        results.append(result)
        report(result)
    }
}
