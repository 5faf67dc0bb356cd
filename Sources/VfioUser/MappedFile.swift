internal import GuestMemory
internal import HostSystem

/// A client's file, mapped here; contains the SIGBUS of one that is cut later, and of a page that the
/// kernel cannot provide: a seal keeps a file from getting shorter, not from getting holes (VFU-S-18).
final class MappedFile: RevocableMemory {
    let identity: FileIdentity
    let isWritable: Bool
    let mapping: Mapping
    /// What the client calls it, and which file it is.
    let name: String
    /// Offset in the file of the mapping's first byte.
    private let offset: UInt64
    private let pageSize: Int
    private let busFaults: BusFaultGuard

    /// Files up to this length are mapped whole, so that later pieces of them cost nothing.
    private static let wholeLimit: UInt64 = 1 << 39

    /// Maps at least `range` of a file.
    init(
        _ file: FileDescriptor,
        _ status: FileStatus,
        _ range: Range<UInt64>
    ) throws(SystemError) {
        let page = max(4096, UInt64(status.pageSize))
        let isWhole = status.size <= Self.wholeLimit
        let first = isWhole ? 0 : range.lowerBound / page * page
        let end = isWhole ? status.size : range.upperBound
        guard let length = Int(exactly: end - first) else {
            throw SystemError("map \(end - first) bytes", .noMemory)
        }
        let mapping = try Mapping.file(
            file,
            offset: first,
            length: length,
            writable: status.isReadWrite
        )
        identity = status.identity
        name = "\(file.name) (inode \(status.identity.inode))"
        isWritable = status.isReadWrite
        offset = first
        pageSize = Int(page)
        self.mapping = mapping
        busFaults = try BusFaultGuard(mapping, at: 0, length: mapping.length)
    }

    /// The file was cut, or a page of it could not be had: the mapping shows zeros since.
    var isLost: Bool { busFaults.hasFaulted }

    func holds(_ address: UnsafeRawPointer) -> Bool {
        let start = unsafe UnsafeRawPointer(mapping.address)
        return unsafe address >= start && address < start + mapping.length
    }

    /// Where a range of the file is in the mapping; `nil` when part of it is not mapped, or is not the
    /// file's any more.
    func position(of range: Range<UInt64>) -> Int? {
        guard range.lowerBound >= offset,
            range.upperBound - offset <= UInt64(mapping.length), !isLost
        else { return nil }
        return Int(exactly: range.lowerBound - offset)
    }

    /// Makes the huge pages of a part exist: the lack of one shows here, and not when a ring in it is
    /// touched (HI-I14). Ordinary pages come on demand.
    func populate(at position: Int, length: Int) throws(SystemError) {
        guard pageSize > 4096, isWritable else { return }
        let first = position / pageSize * pageSize
        let end = min(mapping.length, (position + length + pageSize - 1) / pageSize * pageSize)
        try mapping.populate(at: first, length: end - first)
    }
}

/// The files of one client that are mapped. QEMU takes all of its memory away and announces it anew
/// in pieces, several times while firmware runs; behind an emulated IOMMU it announces single pages:
/// one mapping of each file serves them all.
struct MappedFiles {
    private var files: [MappedFile] = []

    /// Most mappings that wait for their file to be announced again.
    private static let spare = 8
    /// Most mappings of one client. The guards against SIGBUS, 4096 in all, and the address space are
    /// those of the process, which may serve 64 devices.
    private static let limit = 48
    /// Most address space of one client.
    private static let totalLimit = 1 << 40

    /// The mapping that holds `range` of the file, if there is one.
    func find(
        _ status: FileStatus,
        _ range: Range<UInt64>
    ) -> (file: MappedFile, position: Int)? {
        for known in files
        where known.identity == status.identity && (known.isWritable || !status.isReadWrite) {
            if let position = known.position(of: range) { return (known, position) }
        }
        return nil
    }

    /// Maps a file; `isInUse` tells which of the others have to stay.
    mutating func add(
        _ file: FileDescriptor,
        _ status: FileStatus,
        _ range: Range<UInt64>,
        isInUse: (MappedFile) -> Bool
    ) throws(SystemError) -> (file: MappedFile, position: Int) {
        if files.count(where: { !isInUse($0) }) >= Self.spare { drop { !isInUse($0) } }
        guard files.count < Self.limit else {
            throw SystemError("map more than \(Self.limit) files of one client", .noSpace)
        }
        let new = try MappedFile(file, status, range)
        let total = files.reduce(new.mapping.length) { $0 + $1.mapping.length }
        guard total <= Self.totalLimit else {
            throw SystemError("map \(total) bytes for one client", .noSpace)
        }
        guard let position = new.position(of: range) else {
            throw SystemError("map \(range.count) bytes of a file that changes", .noSpace)
        }
        files.append(new)
        return (new, position)
    }

    /// Lets go of the mappings that `isUnused`.
    mutating func drop(where isUnused: (MappedFile) -> Bool) {
        files.removeAll(where: isUnused)
    }
}
