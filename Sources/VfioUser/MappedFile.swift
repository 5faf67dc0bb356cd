internal import GuestMemory
internal import HostSystem

/// A client's file, mapped here; contains the SIGBUS of one that is cut later (VFU-S-18).
final class MappedFile: Sendable {
    let identity: FileIdentity
    let isWritable: Bool
    let mapping: Mapping
    /// Offset in the file of the mapping's first byte.
    private let offset: UInt64
    /// `nil` for a file that cannot get shorter.
    private let busFaults: BusFaultGuard?

    /// Files up to this length are mapped whole, so that later pieces of them cost nothing.
    private static let wholeLimit: UInt64 = 1 << 40

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
        isWritable = status.isReadWrite
        offset = first
        self.mapping = mapping
        busFaults =
            status.isSealedAgainstShrinking
            ? nil : try BusFaultGuard(mapping, at: 0, length: mapping.length)
    }

    /// Where a range of the file is in the mapping; `nil` when part of it is not mapped, or is not the
    /// file's any more.
    func position(of range: Range<UInt64>) -> Int? {
        guard range.lowerBound >= offset,
            range.upperBound - offset <= UInt64(mapping.length), busFaults?.hasFaulted != true
        else { return nil }
        return Int(exactly: range.lowerBound - offset)
    }
}

/// The files of one client that are mapped. QEMU takes all of its memory away and announces it anew
/// in pieces, several times while firmware runs; behind an emulated IOMMU it announces single pages:
/// one mapping of each file serves them all.
struct MappedFiles {
    private var files: [MappedFile] = []

    /// Most mappings that wait for their file to be announced again.
    private static let spare = 8
    /// Most mappings: what contains a cut file is shared with everybody else in this process.
    private static let limit = 256
    /// Most address space.
    private static let totalLimit = 16 << 40

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
