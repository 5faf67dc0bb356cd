import GuestMemory
import HostSystem
import Testing

@Suite struct MemoryTableTests {
    private static let page = 4096

    private func table(_ starts: [UInt64]) throws -> (MemoryTable, Mapping) {
        let mapping = try Mapping.anonymous(length: Self.page * starts.count)
        let regions = try starts.enumerated().map { index, start in
            let region = unsafe MemoryRegion(
                start: start,
                size: UInt64(Self.page),
                host: mapping.address + index * Self.page
            )
            return try #require(region)
        }
        return (try MemoryTable(regions, owners: [mapping]), mapping)
    }

    @Test func `HI-A10: the last byte of a region translates and the next does not`() throws {
        let (table, mapping) = try table([0x10000])
        let last = unsafe table.view.translate(0x10fff, 1, .read)
        #expect(unsafe last == mapping.address + 0xfff)
        #expect(unsafe table.view.translate(0x11000, 1, .read) == nil)
        #expect(unsafe table.view.translate(0x10fff, 2, .read) == nil)
        #expect(unsafe table.view.translate(0xffff, 1, .read) == nil)
    }

    @Test func `VPN-M-09: the first byte of a region translates`() throws {
        let (table, mapping) = try table([0x10000])
        #expect(unsafe table.view.translate(0x10000, 4096, .readWrite) == mapping.address)
    }

    @Test func `HI-A8: an address plus length that wraps does not translate`() throws {
        let (table, _) = try table([UInt64.max - 4095])
        #expect(unsafe table.view.translate(UInt64.max, 1, .read) != nil)
        #expect(unsafe table.view.translate(UInt64.max, 2, .read) == nil)
        #expect(unsafe table.view.translate(UInt64.max - 1, UInt64.max, .read) == nil)
    }

    @Test func `HI-A12: a length of zero still needs a good address`() throws {
        let (table, _) = try table([0x10000])
        #expect(unsafe table.view.translate(0x10000, 0, .read) != nil)
        #expect(unsafe table.view.translate(0x20000, 0, .read) == nil)
    }

    @Test func `HI-A9: a buffer over adjacent regions is read in pieces and never in one copy`()
        throws
    {
        let (table, mapping) = try table([0x10000, 0x11000])
        unsafe (mapping.address + 4095).storeBytes(of: 7, as: UInt8.self)
        unsafe (mapping.address + 4096).storeBytes(of: 9, as: UInt8.self)
        #expect(unsafe table.view.translate(0x10fff, 2, .read) == nil)
        #expect(table.read(0x10fff, 2) == [7, 9])
        #expect(table.write([1, 2], at: 0x10fff))
        #expect(table.read(0x10fff, 2) == [1, 2])
    }

    @Test func `HI-A9: a buffer that runs into a hole is refused and not written`() throws {
        let (table, _) = try table([0x10000, 0x20000])
        #expect(table.read(0x10fff, 2) == nil)
        #expect(!table.write([1, 2], at: 0x10fff))
        #expect(table.read(0x10fff, 1) == [0])
    }

    @Test func `HI-D13: regions that overlap are no table`() {
        #expect(throws: MemoryTable.Problem.self) {
            _ = try table([0x10000, 0x10fff])
        }
    }

    @Test func `HI-D12: a region that is empty or wraps is no region`() throws {
        let mapping = try Mapping.anonymous(length: Self.page)
        #expect(unsafe MemoryRegion(start: 0, size: 0, host: mapping.address) == nil)
        #expect(unsafe MemoryRegion(start: UInt64.max, size: 2, host: mapping.address) == nil)
        #expect(unsafe MemoryRegion(start: UInt64.max, size: 1, host: mapping.address) != nil)
    }

    @Test func `a region without the right does not translate for it`() throws {
        let mapping = try Mapping.anonymous(length: Self.page)
        let region = unsafe MemoryRegion(
            start: 0,
            size: 4096,
            host: mapping.address,
            access: .read
        )
        let table = try MemoryTable([try #require(region)], owners: [mapping])
        #expect(unsafe table.view.translate(0, 1, .read) != nil)
        #expect(unsafe table.view.translate(0, 1, .write) == nil)
        #expect(!table.write([1], at: 0))
    }

    @Test func `an arena hands out disjoint buffers and takes them back`() throws {
        let arena = try DMAArena(size: 4096, deviceAddress: 0x1000)
        let first = try #require(arena.allocate(64))
        let second = try #require(arena.allocate(4000, alignment: 64))
        #expect(first.deviceAddress == 0x1000)
        #expect(second.deviceAddress == 0x1040)
        #expect(arena.allocate(64) == nil)
        arena.release(first)
        arena.release(second)
        #expect(arena.allocate(4096) != nil)
    }
}
