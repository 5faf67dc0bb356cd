public import GuestMemory
public import HostSystem

/// What a client lets the device reach: ranges of I/O virtual addresses, each behind a mapped file,
/// behind a file that is read and written, or behind messages.
///
/// Every check of DMA_MAP and DMA_UNMAP is made here; a request that fails changes nothing.
public struct DMATable {
    /// Bounds on what a client may announce.
    public struct Limits: Sendable {
        /// Most ranges at one time (HI-E10).
        public var ranges: Int
        /// Most bytes of one range (HI-E8).
        public var length: UInt64
        /// Most ranges that keep a file open, to be read and written.
        public var openFiles: Int

        /// Sets all.
        public init(
            ranges: Int = Capabilities.defaultMemoryRanges,
            length: UInt64 = 8 << 40,
            openFiles: Int = 64
        ) {
            self.ranges = ranges
            self.length = length
            self.openFiles = openFiles
        }
    }

    /// How a run of bytes is reached.
    public enum Way: Sendable {
        /// It is in `memory`.
        case mapped
        /// By reading and writing a file at an offset.
        case file(FileDescriptor, offset: UInt64)
        /// By DMA_READ and DMA_WRITE.
        case messages
    }

    /// A run of bytes that is reached in one way.
    public struct Piece: Sendable {
        /// First address.
        public let address: UInt64
        /// Length in bytes.
        public let count: UInt64
        /// How.
        public let way: Way
    }

    private enum Backing {
        case mapped(MappedFile, position: Int)
        case file(FileDescriptor, offset: UInt64)
        case messages
    }

    private struct Entry {
        let address: UInt64
        let last: UInt64
        let access: MemoryAccess
        let backing: Backing

        var isMapped: Bool {
            if case .mapped = backing { true } else { false }
        }

        var isOpenFile: Bool {
            if case .file = backing { true } else { false }
        }
    }

    private let limits: Limits
    /// Ascending, disjoint.
    private var entries: [Entry] = []
    private var files = MappedFiles()
    private var openFiles = 0
    private var mappedCount = 0
    /// `nil` after a change, until somebody asks.
    private var table: MemoryTable? = .empty

    /// An empty table.
    public init(limits: Limits = Limits()) {
        self.limits = limits
    }

    /// Number of ranges.
    public var count: Int { entries.count }

    /// True when there is memory, and none of it can be reached directly.
    public var isUnshared: Bool { !entries.isEmpty && mappedCount == 0 }

    /// What can be reached directly.
    public mutating func memory() -> MemoryTable {
        if let table { return table }
        let new = makeMemory()
        table = new
        return new
    }

    /// Adds a range; true when `memory` is another one now (VFU-S-10 … VFU-S-14, VFU-S-18).
    public mutating func map(
        _ request: DMAMap,
        _ descriptors: [FileDescriptor]
    ) throws(Refusal) -> Bool {
        let last = try check(request)
        guard descriptors.count <= 1 else {
            throw Refusal(.descriptors, "\(descriptors.count) descriptors for one range")
        }
        guard entries.count < limits.ranges else {
            throw Refusal(.memorySlots, "all \(limits.ranges) ranges are taken")
        }
        let at = index(of: request.address)
        if at < entries.count, entries[at].address <= last {
            throw Refusal(
                .memoryOverlap,
                "\(Self.text(request.address, request.length)) over one at"
                    + " \(Self.hex(entries[at].address))",
                .exists
            )
        }
        let entry = Entry(
            address: request.address,
            last: last,
            access: Self.access(request.flags),
            backing: try backing(request, descriptors.first)
        )
        entries.insert(entry, at: at)
        if entry.isMapped {
            table = nil
            mappedCount += 1
        }
        return entry.isMapped
    }

    /// Takes away all ranges that the request holds as wholes; true when `memory` is another one now
    /// (VFU-S-15).
    ///
    /// The protocol speaks of exactly one. Behind an emulated IOMMU, QEMU takes address space away by
    /// powers of two, whatever is or is not mapped there, as the kernel's VFIO lets it.
    public mutating func unmap(_ request: DMAUnmap) throws(Refusal) -> Bool {
        guard request.argumentSize >= UInt32(DMAUnmap.size) else {
            throw Refusal(.memoryRange, "argsz \(request.argumentSize)")
        }
        if request.flags == .all {
            guard request.address == 0, request.length == 0 else {
                throw Refusal(.memoryRange, "all ranges, and \(Self.hex(request.address)) besides")
            }
            return remove(0..<entries.count)
        }
        guard request.flags.isEmpty else {
            throw Refusal(.memoryRange, "not supported: flags \(Self.hex(request.flags.rawValue))")
        }
        let last = request.address.addingReportingOverflow(request.length &- 1)
        guard request.length > 0, !last.overflow else {
            throw Refusal(.memoryRange, "\(Self.text(request.address, request.length)) wraps")
        }
        let first = index(of: request.address)
        var end = first
        while end < entries.count, entries[end].address <= last.partialValue {
            let entry = entries[end]
            guard entry.address >= request.address, entry.last <= last.partialValue else {
                throw Refusal(
                    .memoryRange,
                    "\(Self.text(request.address, request.length)) cuts a range at"
                        + " \(Self.hex(entry.address))",
                    .noSuchFile
                )
            }
            end += 1
        }
        return remove(first..<end)
    }

    /// Takes everything away, the kept mappings too.
    public mutating func removeAll() {
        entries = []
        openFiles = 0
        mappedCount = 0
        table = .empty
        files.drop { _ in true }
        hasUnusedFiles = false
    }

    /// True after ranges were taken away whose files are still mapped, in case they come back.
    public private(set) var hasUnusedFiles = false

    /// Lets go of files that no range is in.
    public mutating func dropUnusedFiles() {
        let used = filesInUse
        files.drop { !used.contains(ObjectIdentifier($0)) }
        hasUnusedFiles = false
    }

    /// How to reach `count` bytes at `address`, in order; `nil` when any of them cannot be reached
    /// that way (VFU-S-17).
    public func pieces(_ address: UInt64, _ count: UInt64, _ access: MemoryAccess) -> [Piece]? {
        guard count > 0 else { return [] }
        let last = address.addingReportingOverflow(count - 1)
        guard !last.overflow else { return nil }
        var pieces: [Piece] = []
        var at = address
        for entry in entries[index(of: address)...] {
            guard entry.address <= at, entry.access.isSuperset(of: access) else { return nil }
            let end = min(entry.last, last.partialValue)
            pieces.append(
                Piece(address: at, count: end - at + 1, way: Self.way(to: at, entry))
            )
            guard end < last.partialValue else { return pieces }
            at = end + 1
        }
        return nil
    }
}

// Checks.
extension DMATable {
    /// Returns the last address.
    private func check(_ request: DMAMap) throws(Refusal) -> UInt64 {
        guard request.argumentSize >= UInt32(DMAMap.size) else {
            throw Refusal(.memoryRange, "argsz \(request.argumentSize)")
        }
        guard request.flags.isSubset(of: .known) else {
            throw Refusal(.memoryRange, "flags \(Self.hex(request.flags.rawValue))")
        }
        let last = request.address.addingReportingOverflow(request.length &- 1)
        guard request.length > 0, !last.overflow,
            !request.offset.addingReportingOverflow(request.length).overflow
        else {
            throw Refusal(.memoryRange, "\(Self.text(request.address, request.length)) wraps")
        }
        guard request.length <= limits.length else {
            throw Refusal(
                .memoryRange,
                "\(request.length) bytes, the limit is \(limits.length)",
                .noSpace
            )
        }
        return last.partialValue
    }

    private mutating func backing(
        _ request: DMAMap,
        _ file: FileDescriptor?
    ) throws(Refusal) -> Backing {
        guard let file else {
            guard request.flags.isDisjoint(with: [.mappable, .fileAccess]) else {
                throw Refusal(.memoryRange, "a range of a file, without the file")
            }
            return .messages
        }
        let status = try Self.status(of: file)
        let range = request.offset..<(request.offset + request.length)
        guard range.upperBound <= status.size else {
            throw Refusal(
                .beyondEndOfFile,
                "\(request.length) bytes at offset \(Self.hex(request.offset)) of a file of"
                    + " \(status.size)"
            )
        }
        guard status.isReadWrite || !request.flags.contains(.writable) else {
            throw Refusal(.descriptorKind, "writable memory in a file that is open for reading")
        }
        if request.flags.contains(.fileAccess) {
            guard openFiles < limits.openFiles else {
                throw Refusal(.memorySlots, "all \(limits.openFiles) open files are taken")
            }
            openFiles += 1
            return .file(file, offset: request.offset)
        }
        if let found = files.find(status, range) {
            return try mapped(found.file, found.position, range.count)
        }
        let used = filesInUse
        do {
            let new = try files.add(file, status, range) { used.contains(ObjectIdentifier($0)) }
            return try mapped(new.file, new.position, range.count)
        } catch let refusal as Refusal {
            throw refusal
        } catch {
            throw Refusal(.descriptorKind, "\(error)")
        }
    }

    private func mapped(
        _ file: MappedFile,
        _ position: Int,
        _ count: Int
    ) throws(Refusal) -> Backing {
        do throws(SystemError) {
            try file.populate(at: position, length: count)
        } catch {
            throw Refusal(.noPages, error.description, .noMemory)
        }
        return .mapped(file, position: position)
    }

    /// Only files that the kernel alone keeps are asked anything: another one's file system could let
    /// us wait for ever.
    private static func status(of file: FileDescriptor) throws(Refusal) -> FileStatus {
        guard file.isSharedMemory else {
            throw Refusal(
                .descriptorKind,
                "not supported: memory that is no memfd and not on tmpfs or hugetlbfs"
            )
        }
        let status: FileStatus
        do {
            status = try file.status()
        } catch {
            throw Refusal(.descriptorKind, error.description)
        }
        guard status.isRegular else {
            throw Refusal(.descriptorKind, "memory must be a regular file")
        }
        return status
    }

    private static func access(_ flags: DMAMap.Flags) -> MemoryAccess {
        var access: MemoryAccess = []
        if flags.contains(.readable) { access.insert(.read) }
        if flags.contains(.writable) { access.insert(.write) }
        return access
    }

    static func hex(_ value: some BinaryInteger) -> String { "0x" + String(value, radix: 16) }

    private static func text(_ address: UInt64, _ length: UInt64) -> String {
        "\(hex(length)) bytes at \(hex(address))"
    }
}

// The entries.
extension DMATable {
    /// The first entry that ends at or behind an address.
    private func index(of address: UInt64) -> Int {
        var low = 0
        var high = entries.count
        while low < high {
            let middle = (low + high) / 2
            if entries[middle].last < address { low = middle + 1 } else { high = middle }
        }
        return low
    }

    private mutating func remove(_ range: Range<Int>) -> Bool {
        let taken = entries[range].count(where: \.isMapped)
        let hadMapped = taken > 0
        mappedCount -= taken
        openFiles -= entries[range].count(where: \.isOpenFile)
        entries.removeSubrange(range)
        if hadMapped {
            table = nil
            hasUnusedFiles = true
        }
        return hadMapped
    }

    private var filesInUse: Set<ObjectIdentifier> {
        var used: Set<ObjectIdentifier> = []
        for entry in entries {
            if case .mapped(let file, _) = entry.backing { used.insert(ObjectIdentifier(file)) }
        }
        return used
    }

    private static func way(to address: UInt64, _ entry: Entry) -> Way {
        switch entry.backing {
        case .mapped: .mapped
        case .file(let file, let offset): .file(file, offset: offset + (address - entry.address))
        case .messages: .messages
        }
    }

    /// Neighbours in both address spaces become one region: a buffer over both is one run then.
    private func makeMemory() -> MemoryTable {
        var regions: [MemoryRegion] = []
        var owners: [ObjectIdentifier: MappedFile] = [:]
        var latest: MappedFile?
        for entry in entries {
            guard case .mapped(let file, let position) = entry.backing, !entry.access.isEmpty
            else { continue }
            if latest !== file { owners[ObjectIdentifier(file)] = file }
            latest = file
            // Safety: the position was checked against the mapping, which the table keeps.
            let new = unsafe MemoryRegion(
                start: entry.address,
                size: entry.last - entry.address + 1,
                host: file.mapping.address + position,
                access: entry.access
            )
            guard let new else { continue }
            if let joined = regions.last.flatMap({ MemoryTable.join($0, new) }) {
                regions[regions.count - 1] = joined
            } else {
                regions.append(new)
            }
        }
        // Entries are disjoint, and so are their regions.
        return (try? MemoryTable(regions, owners: Array(owners.values))) ?? .empty
    }
}
