import Testing

@testable import VhostPCINet

@Suite struct WindowPlacementTests {
    private let gigabyte: UInt64 = 1 << 30
    private let huge: UInt64 = 2 << 20

    private func region(
        _ guestAddress: UInt64,
        _ size: UInt64,
        fileOffset: UInt64 = 0,
        pageSize: UInt64 = 4096
    ) -> WindowPlacement.Region {
        .init(
            guestAddress: guestAddress,
            size: size,
            fileOffset: fileOffset,
            pageSize: pageSize
        )
    }

    private func place(
        _ regions: [WindowPlacement.Region],
        base: UInt64 = 0x7f00_0000_0000,
        offset: UInt64 = 0,
        size: UInt64 = 16 << 30
    ) throws(Refusal) -> [WindowPlacement.Extent] {
        try WindowPlacement.packed(regions, base: base, offset: offset, size: size).extents
    }

    @Test func `regions are packed in the order of their guest addresses`() throws {
        let extents = try place([
            region(4 * gigabyte, 2 * gigabyte, fileOffset: 2 * gigabyte), region(0, 2 * gigabyte),
        ])
        #expect(extents.map(\.region) == [1, 0])
        #expect(extents.map(\.barOffset) == [0, 2 * gigabyte])
        #expect(extents.map(\.fileOffset) == [0, 2 * gigabyte])
    }

    @Test func `a slice of a window starts at its own offset`() throws {
        let extents = try place([region(0, 4096), region(8192, 4096)], offset: 0x10_0000)
        #expect(extents.map(\.barOffset) == [0x10_0000, 0x10_1000])
    }

    @Test func `huge pages are aligned in the address space, not in the BAR`() throws {
        let base: UInt64 = 0x7f00_0000_3000
        let extents = try place(
            [region(0, 4096), region(gigabyte, huge, fileOffset: huge, pageSize: huge)],
            base: base
        )
        #expect((base + extents[1].position) % huge == 0)
        #expect(extents[1].length == huge)
        #expect(extents[1].position >= 4096)
    }

    @Test func `a region inside a huge page is mapped with the page around it`() throws {
        let extents = try place(
            [region(0, 8192, fileOffset: huge + 4096, pageSize: huge)],
            base: 0
        )
        #expect(extents[0].fileOffset == huge)
        #expect(extents[0].length == huge)
        #expect(extents[0].barOffset == extents[0].position + 4096)
    }

    @Test func `VPN-D-26: what does not fit to the byte is refused`() throws {
        #expect(try place([region(0, 8192)], size: 8192).count == 1)
        #expect(id { try place([region(0, 8192)], size: 8191) } == "mem/window")
        #expect(
            id { try place([region(0, 4096), region(8192, 8192)], size: 8192) } == "mem/window"
        )
        #expect(id { try place([region(0, UInt64.max - 4095)]) } == "mem/window")
    }

    @Test func `VPN-D-12: sizes and addresses that are no multiple of 4096 are refused`() {
        #expect(id { try place([region(1, 4096)]) } == "mem/range")
        #expect(id { try place([region(0, 4095)]) } == "mem/range")
        #expect(id { try place([region(0, 4096, fileOffset: 512)]) } == "mem/range")
    }

    @Test func `VPN-D-12: empty, wrapping and overlapping regions are refused`() {
        #expect(id { try place([region(0, 0)]) } == "mem/range")
        #expect(id { try place([region(UInt64.max - 4095, 8192)]) } == "mem/range")
        #expect(id { try place([region(0, 4096, fileOffset: UInt64.max - 4095)]) } == "mem/range")
        #expect(id { try place([region(0, 8192), region(4096, 8192)]) } == "mem/overlap")
    }

    @Test func `VPN-D-27: under rule F a region lies where it lies in its file`() throws {
        let extents = try WindowPlacement.byFile(
            [
                region(4 * gigabyte, gigabyte, fileOffset: 3 * gigabyte), region(0, gigabyte),
                region(2 * gigabyte, 8192, fileOffset: huge + 4096, pageSize: huge),
            ],
            windows: [0x1000..<0x1000 + 4 * gigabyte]
        ).extents
        #expect(extents.map(\.region) == [1, 2, 0])
        #expect(extents.map(\.barOffset) == [0x1000, huge + 0x2000, 3 * gigabyte + 0x1000])
        #expect(extents.map(\.position) == [0x1000, huge + 0x1000, 3 * gigabyte + 0x1000])
        #expect(extents.map(\.fileOffset) == [0, huge, 3 * gigabyte])
        #expect(extents.map(\.length) == [gigabyte, huge, gigabyte])
    }

    @Test func `VPN-D-26, VPN-D-12: rule F refuses what does not fit or makes no table`() {
        func id(_ regions: WindowPlacement.Region...) -> String? {
            self.id { try WindowPlacement.byFile(regions, windows: [0..<8192]).extents }
        }
        #expect(id(region(0, 8192)) == nil)
        #expect(id(region(0, 4096, fileOffset: 8192)) == "mem/window")
        #expect(id(region(0, 12288)) == "mem/window")
        #expect(id(region(0, 4096, pageSize: huge)) == "mem/window")
        #expect(id(region(0, 4096, fileOffset: UInt64.max - 8191)) == "mem/window")
        #expect(id(region(0, 4096, fileOffset: UInt64.max - 4095)) == "mem/range")
        #expect(id(region(0, 8192), region(4096, 4096)) == "mem/overlap")
        #expect(id() == "mem/count")
    }

    @Test func `no region, or more than a table holds, is refused`() {
        #expect(id { try place([]) } == "mem/count")
        let many = (0..<33 as Range<UInt64>).map { region($0 * 4096, 4096) }
        #expect(id { try place(many) } == "mem/count")
    }

    @Test(arguments: [0, 1, 3, UInt64.max])
    func `a page size that is none is taken for 4096`(pageSize: UInt64) throws {
        #expect(try place([region(0, 4096, pageSize: pageSize)])[0].length == 4096)
    }

    @Test func `VPN-D-12: random tables are disjoint, aligned and inside the window, or refused`() {
        var placed = 0
        for _ in 0..<2000 {
            let offset = UInt64.random(in: 0..<16) * 4096
            let regions = (0..<UInt64.random(in: 1...8)).map { index in
                region(
                    index * gigabyte,
                    UInt64.random(in: 1...1024) * 4096,
                    fileOffset: UInt64.random(in: 0...1024) * 4096,
                    pageSize: Bool.random() ? huge : 4096
                )
            }
            guard let extents = try? place(regions, base: 4096, offset: offset, size: 1 << 24)
            else { continue }
            placed += 1
            var end = offset
            for extent in extents {
                #expect(extent.position >= end)
                #expect(extent.barOffset % 4096 == 0)
                #expect(extent.barOffset >= extent.position)
                let size = regions[extent.region].size
                #expect(extent.barOffset + size <= extent.position + extent.length)
                end = extent.position + extent.length
            }
            #expect(end <= offset + (1 << 24))
        }
        #expect(placed > 0)
    }

    private func id(_ body: () throws -> [WindowPlacement.Extent]) -> String? {
        do {
            _ = try body()
            return nil
        } catch {
            return (error as? Refusal)?.id
        }
    }
}
