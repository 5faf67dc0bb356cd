/// How often each error id came up: what is ignored or refused is at least counted.
public struct IncidentCounters: Sendable, Equatable {
    /// Counts by error id, such as `notify/index`. Only ids of this project appear.
    public private(set) var counts: [String: UInt64] = [:]

    /// Starts with nothing counted.
    public init() {}

    /// Counts one.
    public mutating func count(_ id: String) {
        counts[id, default: 0] &+= 1
    }

    /// How often an id came up.
    public subscript(id: String) -> UInt64 { counts[id] ?? 0 }
}
