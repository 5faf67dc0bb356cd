/// How much a program says while it works.
enum LogLevel: String, CaseIterable, Codable, Comparable {
    /// What failed.
    case error
    /// And what was refused, with its error id, and what goes wrong at ports.
    case warning
    /// And what happens.
    case info
    /// And each request of the control socket.
    case debug

    static func < (one: LogLevel, other: LogLevel) -> Bool { one.rank < other.rank }

    private var rank: Int {
        switch self {
        case .error: 0
        case .warning: 1
        case .info: 2
        case .debug: 3
        }
    }
}
