internal import CSystemShims

/// A range of this process's address space that is unmapped with its last reference.
@safe
public final class Mapping: Sendable {
    // Safety: the range belongs to this object from mmap to deinit; users keep the object alive
    // for as long as they hold an address inside it.
    /// First byte.
    public nonisolated(unsafe) let address: UnsafeMutableRawPointer
    /// Length in bytes, as mapped.
    public let length: Int

    private init(address: UnsafeMutableRawPointer, length: Int) {
        unsafe self.address = address
        self.length = length
    }

    deinit {
        _ = unsafe shim_unmap(address, length)
    }

    /// Maps `length` bytes of a file from `offset`, shared with everybody who maps it.
    ///
    /// `offset` and `length` must be multiples of the file's page size (the kernel checks).
    public static func file(
        _ file: FileDescriptor,
        offset: UInt64,
        length: Int,
        writable: Bool = true,
        populate: Bool = false
    ) throws(SystemError) -> Mapping {
        var address: UnsafeMutableRawPointer?
        let status = unsafe shim_map_file(
            nil,
            length,
            file.rawValue,
            offset,
            writable ? 1 : 0,
            populate ? 1 : 0,
            &address
        )
        try checked(status, "map \(length) bytes at offset \(offset) of a shared file")
        guard let address = unsafe address else {
            throw SystemError("map \(length) bytes", .noMemory)
        }
        return unsafe Mapping(address: address, length: length)
    }

    /// Maps private zero pages; nothing is reserved until they are written.
    public static func anonymous(length: Int) throws(SystemError) -> Mapping {
        var address: UnsafeMutableRawPointer?
        let status = unsafe shim_map_anonymous(nil, length, &address)
        try checked(status, "reserve \(length) bytes of address space")
        guard let address = unsafe address else {
            throw SystemError("reserve \(length) bytes", .noMemory)
        }
        return unsafe Mapping(address: address, length: length)
    }

    /// Maps private zero pages at an address that is a multiple of `alignment`, a power of two: the
    /// pages of a hugetlb file can be placed only where their own size divides the address.
    public static func anonymous(length: Int, alignment: Int) throws(SystemError) -> Mapping {
        precondition(alignment > 0 && alignment & (alignment - 1) == 0, "alignment \(alignment)")
        let least = 4096
        guard alignment > least else { return try anonymous(length: length) }
        let (room, overflow) = length.addingReportingOverflow(alignment)
        guard length > 0, !overflow else {
            throw SystemError("reserve \(length) bytes of address space", .noMemory)
        }
        var start: UnsafeMutableRawPointer?
        try checked(
            unsafe shim_map_anonymous(nil, room, &start),
            "reserve \(room) bytes of address space"
        )
        guard let start = unsafe start else {
            throw SystemError("reserve \(room) bytes", .noMemory)
        }
        // Safety: both ends lie in the range that was mapped just now and nobody has seen.
        let lead = -Int(bitPattern: start) & (alignment - 1)
        let pages = (length + least - 1) & ~(least - 1)
        if lead > 0 { _ = unsafe shim_unmap(start, lead) }
        if room > lead + pages {
            _ = unsafe shim_unmap(start + lead + pages, room - lead - pages)
        }
        return unsafe Mapping(address: start + lead, length: length)
    }

    /// Replaces part of this range by a file's pages; `at`, `length` and `offset` page-aligned.
    public func place(
        _ file: FileDescriptor,
        offset: UInt64,
        at position: Int,
        length: Int,
        writable: Bool = true
    ) throws(SystemError) {
        let target = unsafe try slice(position, length)
        var placed: UnsafeMutableRawPointer?
        try checked(
            unsafe shim_map_file(
                target,
                length,
                file.rawValue,
                offset,
                writable ? 1 : 0,
                0,
                &placed
            ),
            "map \(length) bytes at offset \(offset) of a shared file into a window"
        )
    }

    /// Replaces part of this range by private zero pages, so that nothing is mapped there any more
    /// and yet nobody who still looks there faults.
    public func clear(at position: Int, length: Int) throws(SystemError) {
        let target = unsafe try slice(position, length)
        var placed: UnsafeMutableRawPointer?
        try checked(
            unsafe shim_map_anonymous(target, length, &placed),
            "replace \(length) bytes of a window by zero pages"
        )
    }

    private func slice(_ position: Int, _ length: Int) throws(SystemError)
        -> UnsafeMutableRawPointer
    {
        guard position >= 0, length > 0, position <= self.length,
            length <= self.length - position
        else {
            throw SystemError("address \(length) bytes at \(position) of a mapping", .noSpace)
        }
        return unsafe address + position
    }
}
