internal import CSystemShims
internal import Glibc

/// A file descriptor that is closed with its last reference.
///
/// Shared because several tables name one file (a peer's memory file backs several regions, a kick
/// descriptor stands in a ring state and in an epoll set). It never appears on a packet path: a
/// worker holds the raw number and whoever gave it keeps the object alive.
public final class FileDescriptor: Sendable {
    /// The number, valid for the life of this object.
    public let rawValue: Int32

    /// Takes ownership of an open descriptor.
    public init(owning rawValue: Int32) {
        self.rawValue = rawValue
    }

    deinit {
        _ = shim_close(rawValue)
    }

    /// A new descriptor for the same open file.
    public func duplicate() throws(SystemError) -> FileDescriptor {
        FileDescriptor(
            owning: try checked(shim_duplicate(rawValue), "duplicate descriptor \(rawValue)")
        )
    }

    /// A new descriptor for the same open file, with as high a number as half the limit allows.
    ///
    /// When a process dies, the kernel ends its files from the highest number down: what must be
    /// closed before other files is kept up there.
    public func duplicateHigh() throws(SystemError) -> FileDescriptor {
        FileDescriptor(
            owning: try checked(shim_duplicate_high(rawValue), "duplicate descriptor \(rawValue)")
        )
    }

    /// What `fstat` says of the file.
    ///
    /// Any error number is thrown: the file may be another party's, and on a file system that is a
    /// program of its user's that program chooses the number, EBADF and EFAULT included (HI-D10).
    public func status() throws(SystemError) -> FileStatus {
        var raw = shim_file_status()
        let status = unsafe shim_file_status(rawValue, &raw)
        guard status >= 0 else {
            throw SystemError("read the status of descriptor \(rawValue)", Errno(-status))
        }
        return FileStatus(
            size: raw.size,
            identity: FileIdentity(device: raw.device, inode: raw.inode),
            isRegular: raw.format == UInt32(S_IFREG),
            blockSize: raw.block_size,
            pageSize: raw.page_size,
            isReadWrite: raw.read_write != 0,
            isSealedAgainstShrinking: raw.sealed != 0
        )
    }

    /// True for a memfd and for a file on tmpfs or hugetlbfs: memory that the kernel alone keeps.
    ///
    /// Only they can be asked for seals, and the question never reaches a file system. Every other
    /// one, `fstat` and `fstatfs` included, would be answered by whoever serves the file: on FUSE
    /// that is a program of its user's, which may let us wait for ever (HI-D10).
    public var isSharedMemory: Bool { shim_memfd_seals(rawValue) >= 0 }

    /// True for an eventfd, the only kind a kick or call descriptor may have.
    public var isEventFD: Bool { shim_is_eventfd(rawValue) == 1 }
}

/// Which file a descriptor is open on; two descriptors of one file compare equal.
public struct FileIdentity: Hashable, Sendable {
    /// Device number.
    public let device: UInt64
    /// Inode number on that device.
    public let inode: UInt64
}

/// The part of `struct stat` that memory tables need.
public struct FileStatus: Sendable {
    /// Length in bytes.
    public let size: UInt64
    /// Which file it is.
    public let identity: FileIdentity
    /// True for a regular file (a memfd is one), false for devices, sockets, directories.
    public let isRegular: Bool
    /// Page size of a hugetlb file; the preferred block size otherwise.
    public let blockSize: UInt32
    /// What offset and length of a mapping must be multiples of: 2 MiB or 1 GiB for a hugetlb file.
    public let pageSize: UInt32
    /// The descriptor was opened for reading and writing; one opened with O_PATH was not, and
    /// neither can be mapped nor polled.
    public let isReadWrite: Bool
    /// The file cannot get shorter any more (HI-I12).
    public let isSealedAgainstShrinking: Bool
}
