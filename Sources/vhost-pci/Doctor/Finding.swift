/// The outcome of one check of a host.
struct Finding: Codable, Equatable {
    /// What the check says of the host.
    enum Outcome: String, Codable {
        /// As it should be, or of no consequence.
        case ok
        /// Works, but slower, less safely, or not for everybody.
        case warn
        /// Keeps user space from driving devices.
        case fail
        /// Could not be read: never taken for fine (HI-J28).
        case unknown
    }

    /// Which check, named like the refusal that it foresees.
    var id: String
    var outcome: Outcome
    /// What was found.
    var found: String
    /// The files that were read.
    var read: [String]
    /// What cures it.
    var remedy: String?

    static func ok(_ id: String, _ found: String, read: String...) -> Finding {
        Finding(id: id, outcome: .ok, found: found, read: read)
    }

    static func warn(_ id: String, _ found: String, read: String..., remedy: String) -> Finding {
        Finding(id: id, outcome: .warn, found: found, read: read, remedy: remedy)
    }

    static func fail(_ id: String, _ found: String, read: String..., remedy: String) -> Finding {
        Finding(id: id, outcome: .fail, found: found, read: read, remedy: remedy)
    }

    static func unknown(
        _ id: String,
        _ found: String,
        read: String...,
        remedy: String? = nil
    ) -> Finding {
        Finding(id: id, outcome: .unknown, found: found, read: read, remedy: remedy)
    }
}
