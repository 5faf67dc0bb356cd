public import HostSystem

/// A front-end's memory after all checks, ascending by guest address.
///
/// Every check is made here and once: the kind and size of the file (HI-D10, HI-D11), ranges and
/// pages (HI-D12), overlap (HI-D13), counts (HI-D14, HI-D17). A table that would break a rule is
/// never made, so the old one stays in force (VU-B-08).
public struct RegionTable: Sendable {
    /// The regions, ascending by guest address.
    public private(set) var regions: [PeerRegion] = []

    /// No memory.
    public init() {}

    /// Checks a whole table and the descriptors that came with it.
    public init(
        _ payload: MemoryTablePayload,
        _ descriptors: [FileDescriptor]
    ) throws(Violation) {
        let count = Int(payload.count)
        guard (1...MemoryTablePayload.largestCount).contains(count) else {
            throw Violation(.memoryCount, "\(payload.count) regions; 1 … 8 are possible")
        }
        guard payload.padding == 0 else {
            throw Violation(.memoryCount, "padding is \(payload.padding)")
        }
        guard payload.regions.count == count else {
            throw Violation(
                .size,
                "\(count) regions are stated, \(payload.regions.count) are there"
            )
        }
        guard descriptors.count == count else {
            throw Violation(
                .memoryCount,
                "\(count) regions and \(descriptors.count) descriptors"
            )
        }
        for (region, descriptor) in zip(payload.regions, descriptors) {
            try insert(try RegionTable.check(region, descriptor))
        }
    }

    /// Adds one region, where `slots` allows (VU-B-09).
    public mutating func add(
        _ payload: SingleRegionPayload,
        _ descriptor: FileDescriptor,
        slots: Int
    ) throws(Violation) {
        guard payload.padding == 0 else {
            throw Violation(.memoryCount, "padding is \(payload.padding)")
        }
        guard regions.count < slots else {
            throw Violation(.memorySlots, "all \(slots) slots are taken")
        }
        try insert(try RegionTable.check(payload.region, descriptor))
    }

    /// Removes the region with the same guest address, user address and size (VU-B-10).
    public mutating func remove(_ payload: SingleRegionPayload) throws(Violation) {
        guard payload.padding == 0 else {
            throw Violation(.memoryCount, "padding is \(payload.padding)")
        }
        let wanted = payload.region
        let found = regions.firstIndex {
            $0.guestAddress == wanted.guestAddress && $0.userAddress == wanted.userAddress
                && $0.size == wanted.length
        }
        guard let found else {
            throw Violation(
                .memoryUnknown,
                "no region of \(wanted.length) bytes at guest address \(hex(wanted.guestAddress))"
            )
        }
        regions.remove(at: found)
    }

    /// The guest address of `length` bytes at a user address, all inside one region.
    public func guestAddress(of user: UInt64, length: UInt64) -> UInt64? {
        for region in regions where user >= region.userAddress {
            let offset = user - region.userAddress
            guard offset < region.size else { continue }
            guard length <= region.size - offset else { return nil }
            return region.guestAddress + offset
        }
        return nil
    }

    private mutating func insert(_ region: PeerRegion) throws(Violation) {
        for other in regions {
            guard
                !overlap(region.guestAddress, region.size, other.guestAddress, other.size),
                !overlap(region.userAddress, region.size, other.userAddress, other.size)
            else {
                throw Violation(
                    .memoryOverlap,
                    "\(region.size) bytes at guest address \(hex(region.guestAddress))"
                        + " and \(other.size) at \(hex(other.guestAddress))"
                )
            }
        }
        let at = regions.firstIndex { $0.guestAddress > region.guestAddress } ?? regions.endIndex
        regions.insert(region, at: at)
    }

    /// Neither range wraps, which was checked before.
    private func overlap(_ a: UInt64, _ sizeA: UInt64, _ b: UInt64, _ sizeB: UInt64) -> Bool {
        a < b ? b - a < sizeA : a - b < sizeB
    }

    private static func check(
        _ region: MemoryRegionPayload,
        _ descriptor: FileDescriptor
    ) throws(Violation) -> PeerRegion {
        // Before anything that a file system could answer: it might not.
        guard descriptor.isSharedMemory else {
            throw Violation(
                .descriptorKind,
                "not supported: memory that is no memfd and not on tmpfs or hugetlbfs"
            )
        }
        let status: FileStatus
        do {
            status = try descriptor.status()
        } catch {
            throw Violation(.descriptorKind, error.description)
        }
        guard status.isRegular, status.isReadWrite else {
            throw Violation(
                .descriptorKind,
                "memory must be a regular file that is open for reading and writing"
            )
        }
        let size = region.length
        guard size > 0, !wraps(region.guestAddress, size), !wraps(region.userAddress, size),
            !wraps(region.fileOffset, size)
        else {
            throw Violation(.memoryRange, "\(size) bytes, which is empty or wraps")
        }
        let page = max(1, UInt64(status.pageSize))
        let aligned = [region.guestAddress, size, region.fileOffset].allSatisfy { $0 % page == 0 }
        guard aligned else {
            throw Violation(
                .memoryRange,
                "\(size) bytes at guest address \(hex(region.guestAddress)), file offset"
                    + " \(hex(region.fileOffset)): not whole pages of \(page) bytes"
            )
        }
        guard region.fileOffset + size <= status.size else {
            throw Violation(
                .beyondEndOfFile,
                "\(size) bytes at offset \(hex(region.fileOffset)) of a file of \(status.size)"
            )
        }
        return PeerRegion(
            guestAddress: region.guestAddress,
            size: size,
            userAddress: region.userAddress,
            fileOffset: region.fileOffset,
            file: descriptor,
            identity: status.identity,
            pageSize: page,
            isSealed: status.isSealedAgainstShrinking
        )
    }

    /// The end itself may not wrap either, so that `start + size` can be computed anywhere.
    private static func wraps(_ start: UInt64, _ size: UInt64) -> Bool {
        start.addingReportingOverflow(size).overflow
    }
}

/// A number as people read addresses.
func hex(_ value: UInt64) -> String { "0x" + String(value, radix: 16) }
