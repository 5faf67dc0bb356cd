internal import CSystemShims

/// Contains SIGBUS inside part of a mapping: when somebody truncates the file behind it, the first
/// access turns the whole guarded range into zero pages, and the thread goes on (HI-I11).
///
/// Keep the guard for as long as foreign pages are mapped there, and replace them before letting it
/// go.
public final class BusFaultGuard: Sendable {
    private let slot: Int32
    private let mapping: Mapping

    /// Guards `length` bytes at `position` of a mapping.
    public init(_ mapping: Mapping, at position: Int, length: Int) throws(SystemError) {
        guard position >= 0, length > 0, position <= mapping.length,
            length <= mapping.length - position
        else { throw SystemError("guard \(length) bytes at \(position) of a mapping", .noSpace) }
        try checked(shim_sigbus_install(), "handle SIGBUS")
        slot = try checked(
            unsafe shim_sigbus_guard(mapping.address + position, length),
            "guard \(length) bytes of shared memory"
        )
        self.mapping = mapping
    }

    deinit {
        shim_sigbus_unguard(slot)
    }

    /// True once an access hit a page that its file no longer has; the range shows zeros since.
    public var hasFaulted: Bool { shim_sigbus_faults(slot) > 0 }
}
