/// What happens at a device: told as steps, and counted where it has an error id (rule R6 of
/// docs/requirements/HI-rules.md).
final class ServedEvents {
    /// How often something was refused, by error id.
    private(set) var refused: [String: UInt64] = [:]
    /// What was refused last.
    private(set) var lastRefusal: String?
    private let reporter: StepReporter

    /// Tells `reporter`.
    init(_ reporter: StepReporter) {
        self.reporter = reporter
    }

    /// Something happened at `source`; `id` where it was refused.
    func tell(_ text: String, from source: String, id: String? = nil) {
        if let id {
            refused[id, default: 0] &+= 1
            lastRefusal = text
        }
        reporter.step(text, from: source, id: id)
    }
}
