internal import HostSystem

/// What the owner of a region allows the other side to do with it.
@frozen
public struct MemoryAccess: OptionSet, Sendable, BitwiseCopyable {
    /// Bit 0 read, bit 1 write.
    public let rawValue: UInt32

    /// Takes the bits as they are.
    @inlinable
    public init(rawValue: UInt32) {
        self.rawValue = rawValue
    }

    /// The bytes may be read.
    @inlinable public static var read: MemoryAccess { MemoryAccess(rawValue: 1) }
    /// The bytes may be written.
    @inlinable public static var write: MemoryAccess { MemoryAccess(rawValue: 2) }
    /// Both.
    @inlinable public static var readWrite: MemoryAccess { MemoryAccess(rawValue: 3) }
}

/// One contiguous run of addresses (GPA or IOVA) and where it is mapped here.
@frozen
@safe
public struct MemoryRegion: BitwiseCopyable, @unchecked Sendable {
    // Safety: `host` stays mapped for `size` bytes as long as the table that holds this region.
    /// First address, in the space of whoever wrote the descriptors.
    public let start: UInt64
    /// Length in bytes; `start + size` does not wrap.
    public let size: UInt64
    /// Where the first byte is mapped.
    @usableFromInline let host: UnsafeMutableRawPointer
    /// What may be done here.
    public let access: MemoryAccess

    /// Describes a mapped run; `nil` when it is empty or wraps the address space (HI-D12).
    @unsafe
    public init?(
        start: UInt64,
        size: UInt64,
        host: UnsafeMutableRawPointer,
        access: MemoryAccess = .readWrite
    ) {
        guard size > 0, !start.addingReportingOverflow(size - 1).overflow else { return nil }
        self.start = start
        self.size = size
        unsafe self.host = host
        self.access = access
    }

    /// Where the first byte is mapped.
    @unsafe
    @inlinable public var base: UnsafeMutableRawPointer {
        @_noLocks @inline(__always) get { unsafe host }
    }

    /// Host address of `length` bytes at `address`, all inside this region; `nil` otherwise.
    @_noLocks @inlinable @inline(__always)
    public func translate(_ address: UInt64, _ length: UInt32) -> UnsafeMutableRawPointer? {
        let offset = address &- start
        guard offset < size, UInt64(length) <= size &- offset else { return nil }
        return unsafe host + Int(truncatingIfNeeded: offset)
    }

    /// A region that holds no address.
    @_noLocks @inlinable
    public init(empty host: UnsafeMutableRawPointer) {
        start = 0
        size = 0
        unsafe self.host = unsafe host
        access = MemoryAccess(rawValue: 0)
    }
}

/// An immutable table of regions: the only way from another party's address to a pointer.
///
/// A change of memory makes a new table; whoever works on rings picks it up at a burst boundary and
/// says so before the old one, and with it the old mapping, is let go.
@safe
public final class MemoryTable: @unchecked Sendable {
    // Safety: `regions` is allocated in init, written nowhere else, freed in deinit.
    private let regions: UnsafeMutableBufferPointer<MemoryRegion>
    /// Mappings that the regions point into.
    let owners: [any AnyObject & Sendable]

    /// Why a set of regions is no table.
    public enum Problem: Error, Equatable, Sendable {
        /// Two regions cover a common address (HI-D13).
        case overlap(first: UInt64, second: UInt64)
    }

    /// Sorts the regions; `owners` are kept alive with the table.
    public init(
        _ regions: [MemoryRegion],
        owners: [any AnyObject & Sendable]
    ) throws(Problem) {
        let sorted = regions.sorted { $0.start < $1.start }
        for (low, high) in zip(sorted, sorted.dropFirst()) where high.start - low.start < low.size {
            throw .overlap(first: low.start, second: high.start)
        }
        unsafe self.regions = .allocate(capacity: sorted.count)
        _ = unsafe self.regions.initialize(from: sorted)
        self.owners = owners
    }

    deinit {
        unsafe regions.deallocate()
    }

    /// A table without memory: every translation fails.
    public static let empty: MemoryTable = {
        guard let table = try? MemoryTable([], owners: []) else {
            preconditionFailure("an empty table cannot overlap")
        }
        return table
    }()

    /// The regions, ascending.
    public var all: [MemoryRegion] { unsafe Array(regions) }

    /// The face that rings use. It does not keep the table alive: hold the table beside it.
    @unsafe
    public var view: MemoryView {
        unsafe MemoryView(
            regions: UnsafePointer(regions.baseAddress),
            count: regions.count
        )
    }
}

/// A table as the data path sees it: two words, copied freely, owning nothing.
@frozen
@unsafe
public struct MemoryView: BitwiseCopyable {
    @usableFromInline let regions: UnsafePointer<MemoryRegion>?
    @usableFromInline let count: Int

    @usableFromInline
    init(regions: UnsafePointer<MemoryRegion>?, count: Int) {
        unsafe self.regions = unsafe regions
        unsafe self.count = count
    }

    /// Host address of `length` bytes at `address`, all inside one region that allows `access`;
    /// `nil` otherwise (HI-A7, HI-A8, HI-A10, VPN-M-09). A length of 0 still needs a good address.
    @inlinable
    @inline(__always)
    public func translate(
        _ address: UInt64,
        _ length: UInt64,
        _ access: MemoryAccess
    ) -> UnsafeMutableRawPointer? {
        var index = 0
        while index < (unsafe count) {
            guard let region = unsafe regions.map({ unsafe $0 + index }) else { return nil }
            let offset = address &- (unsafe region.pointee.start)
            let size = unsafe region.pointee.size
            if offset < size {
                guard length <= size &- offset,
                    (unsafe region.pointee.access.rawValue) & access.rawValue == access.rawValue
                else { return nil }
                return unsafe region.pointee.host + Int(truncatingIfNeeded: offset)
            }
            index &+= 1
        }
        return nil
    }

    /// The region that holds `address` and allows `access`, to be kept in locals for the addresses
    /// that follow; `nil` when there is none. Never inline: it would crowd the loops that call it
    /// once in a while.
    @_noLocks @inline(never)
    public func region(of address: UInt64, _ access: MemoryAccess) -> MemoryRegion? {
        var index = 0
        while index < (unsafe count) {
            guard let region = unsafe regions.map({ unsafe $0 + index }) else { return nil }
            if address &- (unsafe region.pointee.start) < (unsafe region.pointee.size) {
                let allowed = unsafe region.pointee.access.rawValue
                return allowed & access.rawValue == access.rawValue ? unsafe region.pointee : nil
            }
            index &+= 1
        }
        return nil
    }

    /// The longest run at `address`, at most `limit` bytes, inside one region that allows `access`:
    /// a buffer over adjacent regions is taken piece by piece (HI-A9).
    @inlinable
    public func run(
        _ address: UInt64,
        _ limit: UInt64,
        _ access: MemoryAccess
    ) -> UnsafeMutableRawBufferPointer? {
        var index = 0
        while index < (unsafe count) {
            guard let region = unsafe regions.map({ unsafe $0 + index }) else { return nil }
            let offset = address &- (unsafe region.pointee.start)
            let size = unsafe region.pointee.size
            if offset < size {
                guard (unsafe region.pointee.access.rawValue) & access.rawValue == access.rawValue
                else { return nil }
                let length = min(limit, size &- offset)
                return unsafe UnsafeMutableRawBufferPointer(
                    start: region.pointee.host + Int(truncatingIfNeeded: offset),
                    count: Int(truncatingIfNeeded: length)
                )
            }
            index &+= 1
        }
        return nil
    }
}

extension MemoryTable {
    /// Copies bytes out of the other party's memory, piece by piece; `nil` where any is missing.
    /// For control messages: allocates.
    public func read(_ address: UInt64, _ count: Int) -> [UInt8]? {
        var bytes: [UInt8] = []
        bytes.reserveCapacity(count)
        var at = address
        while bytes.count < count {
            let left = UInt64(count - bytes.count)
            guard let run = unsafe view.run(at, left, .read) else { return nil }
            unsafe bytes.append(contentsOf: run)
            at = at &+ UInt64(run.count)
        }
        return bytes
    }

    /// Copies bytes into the other party's memory, piece by piece; false, with nothing written,
    /// where any of it is missing. For control messages.
    public func write(_ bytes: some Collection<UInt8>, at address: UInt64) -> Bool {
        guard covers(address, UInt64(bytes.count), .write) else { return false }
        var at = address
        var rest = Array(bytes)[...]
        while !rest.isEmpty {
            guard let run = unsafe view.run(at, UInt64(rest.count), .write) else { return false }
            unsafe run.copyBytes(from: rest.prefix(run.count))
            rest = rest.dropFirst(run.count)
            at = at &+ UInt64(run.count)
        }
        return true
    }

    /// True when every byte of the range is in some region that allows `access`.
    public func covers(_ address: UInt64, _ length: UInt64, _ access: MemoryAccess) -> Bool {
        guard !address.addingReportingOverflow(max(1, length) - 1).overflow else { return false }
        var at = address
        var left = length
        while left > 0 {
            guard let run = unsafe view.run(at, left, access) else { return false }
            at = at &+ UInt64(run.count)
            left -= UInt64(run.count)
        }
        return true
    }
}
