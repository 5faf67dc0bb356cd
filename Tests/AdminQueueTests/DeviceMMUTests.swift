import GuestMemory
import HostSystem
import Testing
import VirtioSpec

@testable import AdminQueue

@Suite struct DeviceMMUTests {
    private func mapping(
        _ first: UInt64,
        _ last: UInt64,
        to target: UInt64 = 0x10_0000,
        _ flags: MMUFlags = [.read, .write]
    ) -> MappingRecord {
        MappingRecord(first: first, last: last, target: target, flags: flags)
    }

    private func memory(at start: UInt64, size: UInt64) throws -> (MemoryTable, Mapping) {
        let pages = try Mapping.anonymous(length: Int(size))
        let region = try #require(
            unsafe MemoryRegion(start: start, size: size, host: pages.address)
        )
        return (try MemoryTable([region], owners: [pages]), pages)
    }

    @Test func `AVQ-D-320: before the first mapping nothing is reachable`() throws {
        let (memory, _) = try memory(at: 0, size: 0x10_0000)
        let table = DeviceMMU(maximumMappings: 4).table(over: memory)
        #expect(table.all.isEmpty)
        #expect(table.read(0x1000, 1) == nil)
    }

    @Test func `AVQ-D-320: a mapped address leads to its target, with the mapping's rights`() throws
    {
        let (memory, _) = try memory(at: 0x10_0000, size: 0x10000)
        #expect(memory.write([1, 2, 3], at: 0x10_2ffe))
        var mmu = DeviceMMU(maximumMappings: 4)
        try mmu.map(mapping(0x7000, 0x8fff, to: 0x10_2000, .read))
        let table = mmu.table(over: memory)
        #expect(table.read(0x7ffe, 3) == [1, 2, 3])
        #expect(!table.write([9], at: 0x7ffe))
        #expect(table.read(0x9000, 1) == nil)
        #expect(table.read(0x10_2ffe, 1) == nil)
    }

    @Test func `AVQ-D-320: memory that the management device cannot reach stays out of reach`()
        throws
    {
        let (memory, _) = try memory(at: 0x10_0000, size: 0x2000)
        var mmu = DeviceMMU(maximumMappings: 4)
        try mmu.map(mapping(0x1000, 0x4fff, to: 0x10_0000))
        let table = mmu.table(over: memory)
        #expect(table.read(0x2fff, 1) != nil)
        #expect(table.read(0x3000, 1) == nil)
        #expect(mmu.table(over: .empty).all.isEmpty)
    }

    @Test func `two mappings of one block are one run, as behind an IOMMU`() throws {
        let (memory, _) = try memory(at: 0x10_0000, size: 0x4000)
        var mmu = DeviceMMU(maximumMappings: 4)
        try mmu.map(mapping(0x2000, 0x2fff, to: 0x10_1000))
        try mmu.map(mapping(0x1000, 0x1fff, to: 0x10_0000))
        #expect(mmu.table(over: memory).all.count == 1)
        try mmu.map(mapping(0x3000, 0x3fff, to: 0x10_3000))
        #expect(mmu.table(over: memory).all.count == 2)
    }

    @Test(
        arguments: [
            (0x2000, 0x1fff, 0), (0x1001, 0x1fff, 0), (0x1000, 0x1ffe, 0), (0x1000, 0x1fff, 1),
            (0x1000, 0x2fff, ~0xfff), (0, 0xfff, 0), (1 << 48, (1 << 48) + 0xfff, 0),
            (0x1000, ~0, 0),
        ] as [(UInt64, UInt64, UInt64)]
    )
    func `AVQ-D-321, HI-F69: an inverted, misaligned, wrapping or outlying range is refused`(
        _ first: UInt64,
        _ last: UInt64,
        _ target: UInt64
    ) {
        var mmu = DeviceMMU(maximumMappings: 4)
        let before = mmu
        #expect(throws: AdminError(.badAddress)) {
            try mmu.map(mapping(first, last, to: target))
        }
        #expect(mmu == before)
    }

    @Test(
        arguments: [
            (0x3000, 0x4fff), (0x2000, 0x3fff), (0x4000, 0x5fff), (0x3000, 0x3fff),
            (0x2000, 0x5fff),
        ] as [(UInt64, UInt64)]
    )
    func `AVQ-D-321, HI-F69: any overlap is refused`(_ first: UInt64, _ last: UInt64) throws {
        var mmu = DeviceMMU(maximumMappings: 4)
        try mmu.map(mapping(0x3000, 0x4fff))
        let before = mmu
        #expect(throws: AdminError(.rangeOverlap)) { try mmu.map(mapping(first, last)) }
        #expect(mmu == before)
    }

    @Test(arguments: [0, 4, 5, 8, 0x8000_0001] as [UInt32])
    func `AVQ-D-321: flags that are empty or not served are refused`(_ flags: UInt32) {
        var mmu = DeviceMMU(maximumMappings: 4)
        #expect(throws: AdminError(.invalidField)) {
            try mmu.map(mapping(0x1000, 0x1fff, MMUFlags(rawValue: flags)))
        }
    }

    @Test func `AVQ-D-321: a full table is refused with code 28`() throws {
        var mmu = DeviceMMU(maximumMappings: 1)
        try mmu.map(mapping(0x1000, 0x1fff))
        let before = mmu
        #expect(throws: AdminError(.noResource)) { try mmu.map(mapping(0x2000, 0x2fff)) }
        #expect(AdminError(.noResource).qualifier.code == 28)
        #expect(mmu == before)
    }

    @Test func `AVQ-D-322: unmapping removes what lies wholly inside and tells the bytes`() throws {
        var mmu = DeviceMMU(maximumMappings: 4)
        try mmu.map(mapping(0x1000, 0x1fff))
        try mmu.map(mapping(0x3000, 0x5fff))
        try mmu.map(mapping(0x8000, 0x8fff))
        #expect(try mmu.unmap(first: 0, last: 0x7fff) == 0x4000)
        #expect(mmu.mappings == [mapping(0x8000, 0x8fff)])
    }

    @Test(
        arguments: [(0x1000, 0x3fff), (0x4000, 0x8fff), (0x4000, 0x4000), (0x1000, 0x5ffe)]
            as [(UInt64, UInt64)]
    )
    func `AVQ-D-322, HI-F69: a range that would cut a mapping removes nothing`(
        _ first: UInt64,
        _ last: UInt64
    ) throws {
        var mmu = DeviceMMU(maximumMappings: 4)
        try mmu.map(mapping(0x1000, 0x1fff))
        try mmu.map(mapping(0x3000, 0x5fff))
        try mmu.map(mapping(0x8000, 0x8fff))
        let before = mmu
        #expect(throws: AdminError(.rangeOverlap)) { _ = try mmu.unmap(first: first, last: last) }
        #expect(mmu == before)
    }

    @Test func `AVQ-D-322, HI-F69: unmapping nothing succeeds with 0 bytes`() throws {
        var mmu = DeviceMMU(maximumMappings: 4)
        try mmu.map(mapping(0x1000, 0x1fff))
        let before = mmu
        #expect(try mmu.unmap(first: 0x2000, last: ~0) == 0)
        #expect(mmu == before)
        #expect(throws: AdminError(.badAddress)) { _ = try mmu.unmap(first: 2, last: 1) }
        #expect(mmu.unmapAll() == 0x1000)
        #expect(mmu.unmapAll() == 0)
    }

    @Test func `a query finds the covering mapping or says NO_MAPPING`() throws {
        var mmu = DeviceMMU(maximumMappings: 4)
        try mmu.map(mapping(0x1000, 0x2fff))
        #expect(try mmu.mapping(of: 0x2fff) == mapping(0x1000, 0x2fff))
        #expect(throws: AdminError(.noMapping)) { try mmu.mapping(of: 0x3000) }
        #expect(throws: AdminError(.noMapping)) { try mmu.mapping(of: 0xfff) }
    }

    @Test func `AVQ-D-323: the first fault is kept, and a reset forgets it but no mapping`() throws
    {
        var mmu = DeviceMMU(maximumMappings: 4)
        try mmu.map(mapping(0x1000, 0x1fff, .read))
        mmu.recordFault(address: 0x1008, access: .write, queue: 3)
        mmu.recordFault(address: 0x9000, access: .read, queue: 4)
        #expect(
            mmu.fault
                == FaultRecord(
                    reason: .permission,
                    flags: [.write, .addressValid],
                    address: 0x1008,
                    queue: 3
                )
        )
        mmu.clearFault()
        #expect(mmu.fault == .none)
        #expect(mmu.mappings.count == 1)
        mmu.recordFault(address: 0x9000, access: .read, queue: nil)
        #expect(mmu.fault.reason == .unmapped)
        #expect(mmu.fault.queue == 0xffff)
    }

    @Test func `random maps and unmaps agree with a page-by-page model`() throws {
        var random = SystemRandomNumberGenerator()
        var mmu = DeviceMMU(maximumMappings: 32)
        var model: [UInt64: UInt64] = [:]
        for step in 0..<2000 {
            let first = UInt64.random(in: 1...40, using: &random) * 4096
            let pages = UInt64.random(in: 1...6, using: &random)
            let range = stride(from: first, to: first + pages * 4096, by: 4096)
            let last = first + pages * 4096 - 1
            if Bool.random(using: &random) {
                let target = UInt64(step) * 0x10_0000
                if (try? mmu.map(mapping(first, last, to: target))) != nil {
                    for page in range {
                        #expect(model.updateValue(target + page - first, forKey: page) == nil)
                    }
                }
            } else if let bytes = try? mmu.unmap(first: first, last: last) {
                let gone = range.filter { model.removeValue(forKey: $0) != nil }
                #expect(bytes == UInt64(gone.count) * 4096)
            }
            let page = UInt64.random(in: 1...46, using: &random) * 4096
            let found = try? mmu.mapping(of: page)
            #expect(found.map { $0.target + page - $0.first } == model[page])
        }
    }
}
