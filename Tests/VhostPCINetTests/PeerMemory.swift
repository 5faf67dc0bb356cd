import CSystemShims
import HostSystem
import VhostUser

/// Memory files as peers hand them over.
enum PeerMemory {
    /// A region backed by a sealed file of our own.
    static func region(
        of file: MemoryFile,
        at guestAddress: UInt64,
        size: Int? = nil,
        fileOffset: UInt64 = 0,
        pageSize: UInt64 = 4096
    ) throws -> PeerRegion {
        try region(
            of: file.descriptor,
            at: guestAddress,
            size: size ?? file.size,
            fileOffset: fileOffset,
            pageSize: pageSize
        )
    }

    /// A region backed by any file.
    static func region(
        of file: FileDescriptor,
        at guestAddress: UInt64,
        size: Int,
        fileOffset: UInt64 = 0,
        pageSize: UInt64 = 4096
    ) throws -> PeerRegion {
        PeerRegion(
            guestAddress: guestAddress,
            size: UInt64(size),
            userAddress: 0x7000_0000_0000 + guestAddress,
            fileOffset: fileOffset,
            file: file,
            identity: try file.status().identity,
            pageSize: pageSize
        )
    }

    /// A file that its owner can still truncate.
    static func unsealed(size: UInt64) throws -> FileDescriptor {
        let file = FileDescriptor(
            owning: try checked(unsafe shim_memfd_create("foreign", 0), "create a file")
        )
        try truncate(file, to: size)
        return file
    }

    /// Changes the size of a file behind everybody's back.
    static func truncate(_ file: FileDescriptor, to size: UInt64) throws {
        try checked(shim_set_file_size(file.rawValue, size), "size a memory file")
    }
}
