internal import CSystemShims

/// An anonymous file in memory (memfd), sealed against shrinking and growing.
public struct MemoryFile: Sendable {
    /// The descriptor, to map or to hand to a peer.
    public let descriptor: FileDescriptor
    /// Length in bytes.
    public let size: Int

    /// Makes a zero-filled file of `size` bytes.
    ///
    /// `hugePageShift` is 0 for ordinary pages or the logarithm of a huge page size (21 for 2 MiB),
    /// of which `size` must then be a multiple.
    public init(name: String, size: Int, hugePageShift: UInt32 = 0) throws(SystemError) {
        let created = try checked(
            unsafe shim_memfd_create(name, hugePageShift),
            "create the memory file \(name)"
        )
        descriptor = FileDescriptor(owning: created)
        self.size = size
        try checked(
            shim_set_file_size(created, UInt64(size)),
            "size the memory file \(name) to \(size) bytes"
        )
        try checked(shim_memfd_seal_size(created), "seal the memory file \(name)")
    }

    /// Takes over a file of `size` bytes that was made elsewhere; it may have no seals.
    public init(adopting descriptor: FileDescriptor, size: Int) {
        self.descriptor = descriptor
        self.size = size
    }

    /// Maps the whole file, readable and writable.
    public func map() throws(SystemError) -> Mapping {
        try Mapping.file(descriptor, offset: 0, length: size)
    }
}
