internal import CSystemShims

extension FileDescriptor {
    /// True for a memory file that nobody can shrink any more (HI-I12); false for one that can be
    /// shrunk and for every file that has no seals.
    public var isSealedAgainstShrinking: Bool {
        let seals = shim_memfd_seals(rawValue)
        return seals >= 0 && seals & shim_seal_shrink() != 0
    }
}
