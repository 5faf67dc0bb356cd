/// A mapping whose pages somebody else may take away: a device's registers, or a file of another
/// process.
///
/// An access then ends in SIGBUS; the guard puts zero pages there instead, and the thread goes on.
public final class GuardedMapping: Sendable {
    // Safety: `mapping` lives as long as this object.
    /// The pages.
    public let mapping: Mapping
    private let busGuard: BusFaultGuard

    /// Guards all of `mapping`, which belongs to this object from now on.
    public init(_ mapping: Mapping) throws(SystemError) {
        self.mapping = mapping
        busGuard = try BusFaultGuard(mapping, at: 0, length: mapping.length)
    }

    /// An access found pages gone.
    public var hasFaulted: Bool { busGuard.hasFaulted }

    deinit {
        // Whoever gets these addresses next must not be guarded as if they were ours.
        try? mapping.clear(at: 0, length: mapping.length)
    }
}
