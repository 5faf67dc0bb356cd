/// Something that the other side asked for and that is not done: a stable id, and the values that
/// led to it.
public struct Refusal: Error, Equatable, Sendable, CustomStringConvertible {
    /// The error id that counters, reports and tests share, such as `mem/range`.
    public let id: String
    /// What was wrong, for people.
    public let detail: String

    /// Names a refusal.
    public init(_ id: String, _ detail: String) {
        self.id = id
        self.detail = detail
    }

    /// One line: error id first.
    public var description: String { "\(id): \(detail)" }
}

extension UInt64 {
    /// For messages.
    var hexadecimal: String { "0x" + String(self, radix: 16) }
}
