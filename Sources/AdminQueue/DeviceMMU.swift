internal import GuestMemory
internal import VirtioSpec

/// The address translation of one virtual device: which of its addresses lead where in the management
/// device's DMA space. A value; no mapping is shared between virtual devices (AVQ-D-320).
///
///     var mmu = DeviceMMU(maximumMappings: 64)
///     try mmu.map(MappingRecord(first: 0x1000, last: 0x1fff, target: 0x8000, flags: .read))
///     let reachable = mmu.table(over: managementMemory)
struct DeviceMMU: Equatable, Sendable {
    /// What ranges and targets are aligned to.
    static let pageSize: UInt64 = 4096

    /// What MMU INFO says. Address 0 cannot be mapped, so it never names a queue area by accident.
    let information: MMUInformation

    /// The mappings, ascending, without overlap.
    private(set) var mappings: [MappingRecord] = []

    /// The first access that failed since the last reset of the virtual device.
    private(set) var fault = FaultRecord.none

    /// Grows with every change of the mappings.
    private(set) var version: UInt64 = 0

    /// Starts without any mapping.
    init(maximumMappings: UInt32) {
        information = MMUInformation(
            pageSizeMask: ~(DeviceMMU.pageSize - 1),
            first: DeviceMMU.pageSize,
            last: (1 << 48) - 1,
            maximumMappings: maximumMappings
        )
    }

    /// Adds a mapping; refuses a range that is inverted, misaligned or outside what can be mapped,
    /// flags that are empty or unknown, an overlap, and a full table (AVQ-D-321).
    mutating func map(_ record: MappingRecord) throws(AdminError) {
        try DeviceMMU.check(record, information)
        let isAllowed = record.flags.isSubset(of: [.read, .write]) && !record.flags.isEmpty
        guard isAllowed else { throw AdminError(.invalidField) }
        guard !mappings.contains(where: { $0.first <= record.last && record.first <= $0.last })
        else { throw AdminError(.rangeOverlap) }
        guard mappings.count < Int(information.maximumMappings) else {
            throw AdminError(.noResource)
        }
        let place = mappings.firstIndex { $0.first > record.first } ?? mappings.endIndex
        mappings.insert(record, at: place)
        version += 1
    }

    private static func check(
        _ record: MappingRecord,
        _ limits: MMUInformation
    ) throws(AdminError) {
        let inside = pageSize - 1
        let isGood =
            record.first <= record.last && record.first >= limits.first
            && record.last <= limits.last && record.first & inside == 0
            && record.last & inside == inside && record.target & inside == 0
            && !record.target.addingReportingOverflow(record.last - record.first).overflow
        guard isGood else { throw AdminError(.badAddress) }
    }

    /// Removes the mappings that lie wholly in the range; returns their bytes. A range that would
    /// cut a mapping removes nothing (AVQ-D-322).
    mutating func unmap(first: UInt64, last: UInt64) throws(AdminError) -> UInt64 {
        guard first <= last else { throw AdminError(.badAddress) }
        var removed: UInt64 = 0
        var kept: [MappingRecord] = []
        for mapping in mappings {
            if mapping.last < first || mapping.first > last {
                kept.append(mapping)
            } else {
                guard first <= mapping.first, mapping.last <= last else {
                    throw AdminError(.rangeOverlap)
                }
                removed += mapping.last - mapping.first + 1
            }
        }
        guard removed > 0 else { return 0 }
        mappings = kept
        version += 1
        return removed
    }

    /// Removes all mappings; returns their bytes.
    mutating func unmapAll() -> UInt64 {
        let bytes = mappings.reduce(0) { $0 + ($1.last - $1.first + 1) }
        guard bytes > 0 else { return 0 }
        mappings = []
        version += 1
        return bytes
    }

    /// The mapping that covers an address.
    func mapping(of address: UInt64) throws(AdminError) -> MappingRecord {
        guard let found = mappings.first(where: { $0.first <= address && address <= $0.last })
        else { throw AdminError(.noMapping) }
        return found
    }

    /// Keeps a failed access, if it is the first since the last reset (AVQ-D-323).
    mutating func recordFault(address: UInt64, access: MemoryAccess, queue: Int?) {
        guard fault.reason == .none else { return }
        let tried = MMUFlags(rawValue: access.rawValue)
        let allowed = (try? mapping(of: address))?.flags
        let isForbidden = allowed.map { !tried.isSubset(of: $0) } ?? false
        fault = FaultRecord(
            reason: isForbidden ? .permission : .unmapped,
            flags: tried.union(.addressValid),
            address: address,
            queue: queue.flatMap { UInt16(exactly: $0) } ?? 0xffff
        )
    }

    /// Forgets the fault, keeps the mappings: a reset of the virtual device (AVQ-D-323).
    mutating func clearFault() {
        fault = .none
    }

    /// What the virtual device can reach while the management device can reach `memory`.
    func table(over memory: MemoryTable) -> MemoryTable {
        let windows = mappings.compactMap { mapping in
            AddressWindow(
                first: mapping.first,
                last: mapping.last,
                target: mapping.target,
                access: MemoryAccess(
                    rawValue: mapping.flags.intersection([.read, .write]).rawValue
                )
            )
        }
        guard let table = try? memory.seen(through: windows) else {
            preconditionFailure("mappings never overlap")
        }
        return table
    }
}
