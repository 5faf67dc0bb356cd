import GuestMemory
import HostSystem
import Testing

@Suite struct MemoryTableWindowsTests {
    private func table(_ runs: [(UInt64, Int, MemoryAccess)]) throws -> MemoryTable {
        var regions: [MemoryRegion] = []
        var owners: [Mapping] = []
        for (start, pages, access) in runs {
            let mapping = try Mapping.anonymous(length: pages * 4096)
            let region = unsafe MemoryRegion(
                start: start,
                size: UInt64(pages) * 4096,
                host: mapping.address,
                access: access
            )
            regions.append(try #require(region))
            owners.append(mapping)
        }
        return try MemoryTable(regions, owners: owners)
    }

    private func window(
        _ first: UInt64,
        _ last: UInt64,
        _ target: UInt64,
        _ access: MemoryAccess = .readWrite
    ) throws -> AddressWindow {
        try #require(AddressWindow(first: first, last: last, target: target, access: access))
    }

    @Test func `a window over two regions and a hole shows both and not the hole`() throws {
        let below = try table([(0x1000, 1, .readWrite), (0x3000, 1, .readWrite)])
        #expect(below.write([7], at: 0x1fff))
        #expect(below.write([8], at: 0x3000))
        let above = try below.seen(through: [window(0x10_0000, 0x10_3fff, 0)])
        #expect(above.all.map(\.start) == [0x10_1000, 0x10_3000])
        #expect(above.read(0x10_1fff, 1) == [7])
        #expect(above.read(0x10_2000, 1) == nil)
        #expect(above.read(0x10_3000, 1) == [8])
    }

    @Test func `HI-F69: two windows at the end of all addresses are an overlap, no trap`() throws {
        let below = try table([(0, 1, .readWrite)])
        let top = try window(.max - 0xfff, .max, 0)
        #expect(try below.seen(through: [top]).all.map(\.start) == [.max - 0xfff])
        #expect(throws: MemoryTable.Problem.overlap(first: top.first, second: top.first)) {
            _ = try below.seen(through: [top, top])
        }
    }

    @Test func `rights are the smaller of window and region`() throws {
        let below = try table([(0, 1, .read), (0x1000, 1, .readWrite)])
        let above = try below.seen(through: [
            window(0x8000, 0x8fff, 0), window(0xa000, 0xafff, 0x1000, .write),
        ])
        #expect(above.covers(0x8000, 4096, .read))
        #expect(!above.covers(0x8000, 1, .write))
        #expect(above.covers(0xa000, 4096, .write))
        #expect(!above.covers(0xa000, 1, .read))
    }

    @Test func `HI-A8: windows and regions at the end of the address space do not wrap`() throws {
        let below = try table([(UInt64.max - 0xfff, 1, .readWrite)])
        let above = try below.seen(through: [window(0, .max, 0)])
        #expect(above.covers(.max, 1, .read))
        #expect(!above.covers(.max, 2, .read))
        #expect(AddressWindow(first: 0, last: .max, target: 1, access: .read) == nil)
        #expect(AddressWindow(first: 1, last: 0, target: 0, access: .read) == nil)
    }

    @Test func `overlapping windows are refused`() throws {
        let below = try table([(0, 2, .readWrite)])
        let windows = [try window(0x1000, 0x1fff, 0), try window(0x1800, 0x27ff, 0)]
        #expect(throws: MemoryTable.Problem.self) { try below.seen(through: windows) }
    }

    @Test func `the translated table keeps the memory below alive`() throws {
        var below: MemoryTable? = try table([(0, 1, .readWrite)])
        _ = below?.write([42], at: 5)
        let above = try #require(try below?.seen(through: [window(0x1000, 0x1fff, 0)]))
        below = nil
        #expect(above.read(0x1005, 1) == [42])
    }
}
