/// What one check found.
public enum CheckVerdict: String, Sendable, Codable, CaseIterable {
    /// The device keeps the rule.
    case pass
    /// The device breaks it.
    case fail
    /// The rule does not concern this device, or this way of reaching it.
    case notApplicable = "not applicable"
}

/// One rule held against one device.
public struct CheckResult: Sendable, Codable, Equatable {
    /// Requirement id, `DEV-…`: docs/requirements/DEV.md has the rule and its source.
    public let id: String
    /// What was looked at, in a few words.
    public let subject: String
    /// What was found.
    public let verdict: CheckVerdict
    /// What the verdict rests on: the values read, or the error.
    public let evidence: String

    /// Puts a result together.
    public init(_ id: String, _ subject: String, _ verdict: CheckVerdict, _ evidence: String) {
        self.id = id
        self.subject = subject
        self.verdict = verdict
        self.evidence = evidence
    }
}

/// What a check body returns; whatever it throws is a failure with the error as evidence.
enum CheckOutcome {
    case pass(String)
    case fail(String)
    case notApplicable(String)

    /// Passes when `condition` holds; the evidence is the same either way.
    static func expect(_ condition: Bool, _ evidence: String) -> CheckOutcome {
        condition ? .pass(evidence) : .fail(evidence)
    }

    /// Passes when nothing is listed.
    static func none(_ faults: [String], otherwise evidence: String) -> CheckOutcome {
        faults.isEmpty ? .pass(evidence) : .fail(faults.joined(separator: "; "))
    }
}
