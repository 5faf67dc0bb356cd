internal import HostSystem
internal import PCI

/// A mapped part of a BAR.
///
/// The kernel answers an access with SIGBUS when the function was taken away or its memory decoding
/// was switched off: the guard puts zero pages there instead, and the thread goes on.
final class VFIOWindow: Sendable {
    // Safety: `mapping` lives as long as this object.
    let mapping: Mapping
    private let busGuard: BusFaultGuard

    init(_ mapping: Mapping) throws(SystemError) {
        self.mapping = mapping
        busGuard = try BusFaultGuard(mapping, at: 0, length: mapping.length)
    }

    /// An access found the function gone.
    var hasFaulted: Bool { busGuard.hasFaulted }

    deinit {
        // Whoever gets these addresses next must not be guarded as if they were ours.
        try? mapping.clear(at: 0, length: mapping.length)
    }
}
