/// A request that was not carried out, and what follows from it.
struct RequestRefusal: Error, Sendable {
    /// How the sender learns of a refusal when it did not ask for an acknowledgement, or cannot get
    /// one.
    enum WithoutAcknowledgement: Sendable {
        /// By losing the connection: going on would leave the two ends with different ideas of
        /// memory, rings or features (VU-H-07).
        case close
        /// Not at all, or by a later question: nothing depends on it (VU-H-08, HI-D34).
        case goOn
    }

    /// The rule that was broken.
    let violation: Violation
    /// What happens when no negative acknowledgement can be given.
    let otherwise: WithoutAcknowledgement
    /// The connection ends even where a negative acknowledgement could be given.
    let alwaysCloses: Bool

    /// A refusal that a negative acknowledgement tells, or else the end of the connection.
    init(
        _ id: ViolationID,
        _ detail: String,
        otherwise: WithoutAcknowledgement = .close,
        alwaysCloses: Bool = false
    ) {
        self.init(Violation(id, detail), otherwise: otherwise, alwaysCloses: alwaysCloses)
    }

    /// A refusal for a violation that was found elsewhere.
    init(
        _ violation: Violation,
        otherwise: WithoutAcknowledgement = .close,
        alwaysCloses: Bool = false
    ) {
        self.violation = violation
        self.otherwise = otherwise
        self.alwaysCloses = alwaysCloses
    }
}
