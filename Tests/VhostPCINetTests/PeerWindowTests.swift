import GuestMemory
import HostSystem
import Testing
import VhostUser
import VirtioSpec

@testable import VhostPCINet

@Suite struct PeerWindowTests {
    private static let page = 4096

    private func window(pages: Int = 64, offset: Int = 0) throws -> (PeerWindow, Mapping) {
        let mapping = try Mapping.anonymous(length: pages * Self.page)
        return (PeerWindow(slice: PeerWindowSlice(mapping: mapping, offset: offset)), mapping)
    }

    private func byte(_ mapping: Mapping, _ offset: UInt64) -> UInt8 {
        unsafe mapping.address.load(fromByteOffset: Int(offset), as: UInt8.self)
    }

    private func set(_ mapping: Mapping, _ offset: UInt64, _ value: UInt8) {
        unsafe mapping.address.storeBytes(of: value, toByteOffset: Int(offset), as: UInt8.self)
    }

    @Test func `VPN-D-13: a region's bytes are the peer's, in both directions`() throws {
        let (window, bar) = try window(offset: 4 * Self.page)
        let file = try MemoryFile(name: "peer", size: 4 * Self.page)
        let peer = try file.map()
        set(peer, 8191, 0x5a)
        try window.place([PeerMemory.region(of: file, at: 0x10000)])
        let offset = window.regions[0].barOffset
        #expect(offset == UInt64(4 * Self.page))
        #expect(byte(bar, offset + 8191) == 0x5a)
        set(bar, offset, 0xa5)
        #expect(byte(peer, 0) == 0xa5)
    }

    @Test func `VPN-D-12, VPN-D-13: two files are both shown, ascending by guest address`() throws {
        let (window, bar) = try window()
        let (low, high) = (
            try MemoryFile(name: "low", size: 2 * Self.page),
            try MemoryFile(name: "high", size: Self.page)
        )
        set(try low.map(), 0, 1)
        set(try high.map(), 0, 2)
        try window.place([
            PeerMemory.region(of: high, at: 0x100_0000), PeerMemory.region(of: low, at: 0),
        ])
        #expect(window.regions.map(\.guestAddress) == [0, 0x100_0000])
        #expect(window.regions.map { byte(bar, $0.barOffset) } == [1, 2])
        #expect(window.memory.read(0x100_0000, 1) == [2])
    }

    @Test func `a region that starts inside its file shows the right bytes`() throws {
        let (window, bar) = try window()
        let file = try MemoryFile(name: "peer", size: 4 * Self.page)
        set(try file.map(), UInt64(2 * Self.page), 9)
        try window.place([
            PeerMemory.region(of: file, at: 0, size: Self.page, fileOffset: UInt64(2 * Self.page))
        ])
        #expect(byte(bar, window.regions[0].barOffset) == 9)
    }

    @Test func `VPN-D-17: a cleared window reads zero, takes stores, and reaches the peer no more`()
        throws
    {
        let (window, bar) = try window()
        let file = try MemoryFile(name: "peer", size: Self.page)
        let peer = try file.map()
        set(peer, 0, 7)
        try window.place([PeerMemory.region(of: file, at: 0)])
        window.clear()
        #expect(byte(bar, 0) == 0)
        set(bar, 0, 3)
        #expect(byte(peer, 0) == 7)
        #expect(window.regions.isEmpty)
        #expect(window.memory.read(0, 1) == nil)
    }

    @Test func `a new table takes the place of the old`() throws {
        let (window, bar) = try window()
        let (first, second) = (
            try MemoryFile(name: "first", size: 8 * Self.page),
            try MemoryFile(name: "second", size: Self.page)
        )
        set(try first.map(), UInt64(4 * Self.page), 7)
        set(try second.map(), 0, 8)
        try window.place([PeerMemory.region(of: first, at: 0)])
        try window.place([PeerMemory.region(of: second, at: 0)])
        #expect(byte(bar, 0) == 8)
        #expect(byte(bar, UInt64(4 * Self.page)) == 0)
    }

    @Test func `VPN-D-26: a table that does not fit is refused and shows nothing`() throws {
        let (window, bar) = try window(pages: 2)
        let file = try MemoryFile(name: "peer", size: 3 * Self.page)
        set(try file.map(), 0, 7)
        let region = try PeerMemory.region(of: file, at: 0)
        #expect(throws: Refusal.self) { try window.place([region]) }
        #expect(window.regions.isEmpty)
        #expect(byte(bar, 0) == 0)
    }

    @Test func `VPN-D-26: when one file cannot be mapped none is shown`() throws {
        let (window, bar) = try window()
        let file = try MemoryFile(name: "peer", size: Self.page)
        set(try file.map(), 0, 7)
        let (pipe, _) = try UnixSocket.pair()
        let regions = [
            try PeerMemory.region(of: file, at: 0),
            try PeerMemory.region(of: pipe.descriptor, at: 0x10000, size: Self.page),
        ]
        #expect(throws: Refusal.self) { try window.place(regions) }
        #expect(byte(bar, 0) == 0)
        #expect(window.memory.read(0, 1) == nil)
    }

    @Test func `HI-I11: truncated memory turns into zeros, is seen, and the other region stays`()
        throws
    {
        let (window, bar) = try window()
        let foreign = try PeerMemory.unsealed(size: 8192)
        let sound = try MemoryFile(name: "sound", size: Self.page)
        set(try sound.map(), 0, 7)
        try window.place([
            PeerMemory.region(of: foreign, at: 0, size: 8192),
            PeerMemory.region(of: sound, at: 0x10000),
        ])
        set(bar, window.regions[0].barOffset, 1)
        #expect(window.loss == nil)
        try PeerMemory.truncate(foreign, to: 0)
        #expect(byte(bar, window.regions[0].barOffset + 4096) == 0)
        let loss = try #require(window.loss)
        #expect(loss.name.contains("foreign") && loss.first == 0 && loss.count == 8192)
        #expect(byte(bar, window.regions[1].barOffset) == 7)
        window.clear()
        #expect(window.loss == nil)
    }

    @Test func `HI-I11: a file that was cut is seen, though nobody here touches its pages`() throws
    {
        let (window, bar) = try window()
        let foreign = try PeerMemory.unsealed(size: 8192)
        try window.place([PeerMemory.region(of: foreign, at: 0x1000, size: 8192)])
        #expect(window.loss == nil)
        try PeerMemory.truncate(foreign, to: 8191)
        #expect(window.loss?.first == 0x1000)
        try PeerMemory.truncate(foreign, to: 8192)
        #expect(window.loss == nil)
        withExtendedLifetime(bar) {}
    }

    @Test func `HI-I13: a punched hole reads zeros and is no fault`() throws {
        let (window, bar) = try window()
        let foreign = try PeerMemory.unsealed(size: 8192)
        let region = try PeerMemory.region(of: foreign, at: 0, size: 8192)
        try window.place([region])
        set(bar, 4096, 5)
        // What a hole leaves behind: pages that the file no longer has, and may have again.
        try PeerMemory.truncate(foreign, to: 4096)
        try PeerMemory.truncate(foreign, to: 8192)
        #expect(byte(bar, 4096) == 0)
        #expect(window.loss == nil)
    }

    @Test func `HI-I14: a huge-page file without pages behind it is refused`() throws {
        let size = 1 << 36
        let mapping = try Mapping.anonymous(length: size + (4 << 20))
        let window = PeerWindow(slice: PeerWindowSlice(mapping: mapping))
        let raw = try MemoryFile(name: "huge", size: size, hugePageShift: 21)
        let region = try PeerMemory.region(of: raw, at: 0, pageSize: 2 << 20)
        do throws(Refusal) {
            try window.place([region])
            Issue.record("64 GiB of huge pages were found on this machine")
        } catch {
            #expect(error.id == "mem/no-pages")
        }
        #expect(byte(mapping, 0) == 0)
    }

    @Test func `a table that is shown already is not mapped again`() throws {
        let (window, bar) = try window()
        let file = try MemoryFile(name: "peer", size: Self.page)
        let region = try PeerMemory.region(of: file, at: 0)
        try window.place([region])
        let table = window.memory
        try window.place([region])
        #expect(window.memory === table)
        #expect(window.regions.count == 1)
        withExtendedLifetime(bar) {}
    }

    /// In a process of its own, where nobody else opens or maps anything.
    @Test func `HI-I3: a thousand tables leave no mapping and no descriptor behind`() async {
        await #expect(processExitsWith: .success) {
            let bar = try Mapping.anonymous(length: 64 * Self.page)
            let window = PeerWindow(slice: PeerWindowSlice(mapping: bar))
            func change() throws {
                let file = try MemoryFile(name: "peer", size: 4 * Self.page)
                try window.place([
                    PeerMemory.region(of: file, at: 0, size: Self.page),
                    PeerMemory.region(
                        of: file,
                        at: 0x10000,
                        size: Self.page,
                        fileOffset: UInt64(2 * Self.page)
                    ),
                ])
                unsafe bar.address.storeBytes(of: 1, as: UInt8.self)
                window.clear()
                unsafe bar.address.storeBytes(of: 2, as: UInt8.self)
            }
            for _ in 0..<100 { try change() }
            let before = (Census.descriptors, Census.mappings)
            for _ in 0..<1000 { try change() }
            precondition(Census.descriptors == before.0)
            precondition(Census.mappings - before.1 < 10)
        }
    }
}
