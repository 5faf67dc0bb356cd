import HostSystem
import PCI
import Testing
import VhostUser

@testable import VhostPCINet

@Suite struct WindowLayoutTests {
    private static let room = WindowLayout.Room.made(headroom: 1, limit: 1 << 40)
    private let files: [FileDescriptor]

    init() throws {
        files = try (0..<3).map { _ in try MemoryFile(name: "peer", size: 1 << 20).descriptor }
    }

    private func region(
        _ file: Int = 0,
        at guestAddress: UInt64,
        size: Int = 4096,
        offset: UInt64 = 0,
        page: UInt64 = 4096
    ) throws -> PeerRegion {
        try PeerMemory.region(
            of: files[file],
            at: guestAddress,
            size: size,
            fileOffset: offset,
            pageSize: page
        )
    }

    private func refusal(_ body: () throws -> Void) -> Refusal? {
        do {
            try body()
            return nil
        } catch {
            return error as? Refusal
        }
    }

    @Test func `VPN-D-27: a window is the next power of two that holds the file's used part`()
        throws
    {
        let layout = try WindowLayout(
            of: [
                region(at: 0, size: 3 << 30),
                region(at: 4 << 30, size: 2 << 30, offset: 3 << 30),
            ],
            in: Self.room
        )
        #expect(layout.windows.map(\.bar) == [2])
        #expect(layout.windows.map(\.size) == [8 << 30])
        #expect(layout.windows[0].areas == [0..<5 << 30])
        #expect(layout.file(2)?.offset == 0)
        #expect(try layout.file(2)?.identity == files[0].status().identity)
        #expect(layout.file(4) == nil)
        #expect(layout.file(0) == nil)
    }

    @Test func `VPN-D-27: holes of the file are no areas, and two views of one part are one`()
        throws
    {
        let layout = try WindowLayout(
            of: [
                region(at: 0x10000, size: 8192, offset: 0x8000),
                region(at: 0x20000, size: 8192, offset: 0x1000),
                region(at: 0x30000, size: 8192, offset: 0x2000),
            ],
            in: Self.room
        )
        #expect(layout.windows[0].areas == [0x1000..<0x4000, 0x8000..<0xa000])
        #expect(layout.windows[0].size == 0x10000)
    }

    @Test func `VPN-D-27: areas are whole pages of a file of huge pages`() throws {
        let huge: UInt64 = 2 << 20
        let layout = try WindowLayout(
            of: [region(at: 0, size: 8192, offset: huge + 4096, page: huge)],
            in: Self.room
        )
        #expect(layout.windows[0].areas == [huge..<2 * huge])
        #expect(layout.windows[0].size == 2 * huge)
        #expect(layout.windows[0].pageSize == huge)
    }

    @Test func `VPN-D-27: headroom leaves place for memory that comes later`() throws {
        let layout = try WindowLayout(
            of: [region(at: 0, size: 3 << 30)],
            in: .made(headroom: 2, limit: 1 << 40)
        )
        #expect(layout.windows[0].size == 8 << 30)
        try layout.require([region(at: 0, size: 3 << 30), region(at: 1 << 40, offset: 7 << 30)])
    }

    @Test func `VPN-D-28: two files have a BAR each, in the order of the peer's addresses`() throws
    {
        let layout = try WindowLayout(
            of: [
                region(1, at: 0x10_0000, size: 8192),
                region(0, at: 0),
                region(1, at: 0x20_0000, offset: 0x4000),
            ],
            in: Self.room
        )
        #expect(layout.windows.map(\.bar) == [2, 4])
        #expect(layout.windows.map(\.size) == [4096, 0x8000])
        #expect(try layout.index(of: files[1].status().identity) == 1)
        #expect(try layout.file(4)?.identity == files[1].status().identity)
    }

    @Test func `VPN-D-28: more files than BARs are refused by name`() throws {
        let three = try (0..<3).map { try region($0, at: UInt64($0) << 20) }
        #expect(refusal { _ = try WindowLayout(of: three, in: Self.room) }?.id == "mem/files")
        let two = Array(three.prefix(2))
        #expect(refusal { _ = try WindowLayout(of: two, in: .given([1 << 20])) }?.id == "mem/files")
        #expect(refusal { _ = try WindowLayout(of: [], in: Self.room) }?.id == "mem/count")
    }

    @Test func `VPN-D-26: what is too large is refused, and the size that is needed is said`()
        throws
    {
        let large = [try region(at: 0, size: 8192, offset: 1 << 30)]
        let needed = "\((1 << 30) + 8192)"
        for room in [
            WindowLayout.Room.given([1 << 30]), .made(headroom: 1, limit: 1 << 30),
        ] {
            let refusal = try #require(refusal { _ = try WindowLayout(of: large, in: room) })
            #expect(refusal.id == "mem/window")
            #expect(refusal.detail.contains(needed))
        }
        #expect(
            refusal { _ = try WindowLayout(of: large, in: .made(headroom: .max, limit: .max)) }?.id
                == "mem/window"
        )
    }

    @Test func `VPN-D-26: a region that wraps in its file is refused`() throws {
        let bad = [try region(at: 0, size: 8192, offset: .max - 4095)]
        #expect(refusal { _ = try WindowLayout(of: bad, in: Self.room) }?.id == "mem/range")
        let good = try WindowLayout(of: [region(at: 0)], in: Self.room)
        #expect(refusal { try good.require(bad) }?.id == "mem/window")
        #expect(!good.suits(bad))
    }

    @Test func `VPN-D-29: the same files come and go, others are refused by name`() throws {
        let layout = try WindowLayout(
            of: [region(at: 0, size: 8192), region(1, at: 0x10000, size: 8192)],
            in: Self.room
        )
        try layout.require([region(at: 0x4000, offset: 4096)])
        try layout.require([region(1, at: 0)])
        #expect(refusal { try layout.require([region(2, at: 0)]) }?.id == "mem/file")
        #expect(
            refusal { try layout.require([region(at: 0), region(2, at: 0x4000)]) }?.id == "mem/file"
        )
        #expect(refusal { try layout.require([region(at: 0, offset: 8192)]) }?.id == "mem/window")
    }

    @Test func `VPN-D-29: a layout suits a table whose every byte can be mapped`() throws {
        let layout = try WindowLayout(of: [region(at: 0, size: 12288)], in: Self.room)
        #expect(layout.windows[0].size == 16384)
        #expect(layout.suits([try region(at: 0, size: 8192), try region(at: 0x8000)]))
        #expect(!layout.suits([try region(at: 0, offset: 12288)]))
        #expect(!layout.suits([try region(1, at: 0)]))
        #expect(!layout.suits([try region(at: 0), try region(1, at: 0x4000)]))
        let both = try WindowLayout(
            of: [region(at: 0), region(1, at: 0x4000)],
            in: Self.room
        )
        #expect(!both.suits([try region(at: 0)]))
    }
}
