import Glibc
import HostSystem
import Testing

@testable import VhostUser

@Suite struct RegionTableTests {
    private func refusal(
        _ regions: [MemoryRegionPayload],
        _ descriptors: [FileDescriptor]
    ) -> ViolationID? {
        refusal(MemoryTablePayload(regions), descriptors)
    }

    private func refusal(
        _ table: MemoryTablePayload,
        _ descriptors: [FileDescriptor]
    ) -> ViolationID? {
        do {
            _ = try RegionTable(table, descriptors)
            return nil
        } catch {
            return error.id
        }
    }

    private func open(_ path: String, _ flags: Int32) throws -> FileDescriptor {
        let raw = unsafe Glibc.open(path, flags)
        try #require(raw >= 0)
        return FileDescriptor(owning: raw)
    }

    @Test func `HI-D11: a region may end where its file ends, not behind it`() throws {
        let memory = try TestMemory(size: 0x4000)
        let file = [memory.file.descriptor]
        #expect(refusal([memory.region], file) == nil)
        var longer = memory.region
        longer.length += 0x1000
        #expect(refusal([longer], file) == .beyondEndOfFile)
        var later = memory.region
        later.fileOffset = 0x1000
        #expect(refusal([later], file) == .beyondEndOfFile)
        var behind = memory.region
        behind.fileOffset = 1 << 40
        #expect(refusal([behind], file) == .beyondEndOfFile)
    }

    @Test func `HI-D12: empty and wrapping regions are refused`() throws {
        let memory = try TestMemory(size: 0x4000)
        let file = [memory.file.descriptor]
        let top = UInt64.max - 0xfff
        var cases: [MemoryRegionPayload] = Array(repeating: memory.region, count: 6)
        cases[0].length = 0
        cases[1].guestAddress = top
        cases[2].userAddress = top
        cases[3].fileOffset = top
        cases[4].length = top
        cases[4].fileOffset = 0x2000
        cases[5].length = UInt64.max
        for region in cases { #expect(refusal([region], file) == .memoryRange) }
    }

    @Test func `HI-D12: regions that are not whole pages are refused`() throws {
        let memory = try TestMemory(size: 0x4000)
        var cases: [MemoryRegionPayload] = Array(repeating: memory.region, count: 3)
        cases[0].length = 0x3fff
        cases[1].guestAddress = 0x800
        cases[2].fileOffset = 0x10
        cases[2].length = 0x1000
        for region in cases {
            #expect(refusal([region], [memory.file.descriptor]) == .memoryRange)
        }
    }

    @Test func `HI-D13: overlap in guest or in user addresses is refused`() throws {
        let memory = try TestMemory(size: 0x4000)
        let files = [memory.file.descriptor, try memory.file.descriptor.duplicate()]
        var inGuest = memory.region
        inGuest.userAddress += 1 << 30
        inGuest.guestAddress += 0x3000
        #expect(refusal([memory.region, inGuest], files) == .memoryOverlap)
        var inUser = memory.region
        inUser.guestAddress += 1 << 30
        inUser.userAddress -= 0x3000
        #expect(refusal([inUser, memory.region], files) == .memoryOverlap)
        #expect(refusal([memory.region, memory.region], files) == .memoryOverlap)
        var adjacent = memory.region
        adjacent.guestAddress += 0x4000
        adjacent.userAddress += 0x4000
        #expect(refusal([adjacent, memory.region], files) == nil)
    }

    @Test func `HI-D14: counts of 0, above 8, or unlike the descriptors are refused`() throws {
        let memory = try TestMemory(size: 0x1000)
        #expect(refusal([], []) == .memoryCount)
        let nine: [MemoryRegionPayload] = (0..<9).map { index in
            var region = memory.region
            region.guestAddress = UInt64(index) << 20
            region.userAddress = UInt64(index) << 20
            return region
        }
        let files = try nine.map { _ in try memory.file.descriptor.duplicate() }
        #expect(refusal(nine, files) == .memoryCount)
        #expect(refusal(Array(nine.prefix(8)), Array(files.prefix(8))) == nil)
        #expect(refusal(Array(nine.prefix(8)), Array(files.prefix(7))) == .memoryCount)
        #expect(refusal(Array(nine.prefix(7)), Array(files.prefix(8))) == .memoryCount)
        var many = MemoryTablePayload(Array(nine.prefix(1)))
        many.count = UInt32.max
        #expect(refusal(many, Array(files.prefix(1))) == .memoryCount)
    }

    @Test func `HI-D10: memory must be a regular file that can be mapped`() throws {
        let memory = try TestMemory(size: 0x1000)
        let (socket, _) = try UnixSocket.pair()
        let path = "/proc/self/fd/\(memory.file.descriptor.rawValue)"
        let wrong = try [
            open("/", O_RDONLY | O_DIRECTORY),
            open("/dev/zero", O_RDWR),
            open("/dev/null", O_RDWR),
            open(path, 0o10_000_000),  // O_PATH
            open(path, O_RDONLY),
            open(path, O_WRONLY),
            EventFD().descriptor,
            socket.descriptor,
            epollDescriptor(),
        ]
        for descriptor in wrong {
            #expect(refusal([memory.region], [descriptor]) == .descriptorKind)
        }
    }

    @Test func `HI-D10: memory that a file system keeps is refused unasked`() throws {
        // Regular, open for reading and writing, and not of the kernel's memory.
        let file = try open("/proc/self/oom_score_adj", O_RDWR)
        #expect(try file.status().isRegular && file.status().isReadWrite)
        let region = MemoryRegionPayload(
            guestAddress: 0,
            length: 0x1000,
            userAddress: 0,
            fileOffset: 0
        )
        #expect(refusal([region], [file]) == .descriptorKind)
    }

    @Test func `HI-I12: a file that can shrink is taken and told apart`() throws {
        let file = try unsealedFile(size: 0x1000)
        let region = MemoryRegionPayload(
            guestAddress: 0,
            length: 0x1000,
            userAddress: 0,
            fileOffset: 0
        )
        let table = try RegionTable(MemoryTablePayload([region]), [file])
        #expect(!table.regions[0].isSealed)
    }

    @Test func `user addresses become guest addresses inside one region only`() throws {
        let memory = try TestMemory(guestAddress: 0x10_0000, userAddress: 0x5000, size: 0x2000)
        let table = try RegionTable(memory.table, [memory.file.descriptor])
        #expect(table.guestAddress(of: 0x5000, length: 0x2000) == 0x10_0000)
        #expect(table.guestAddress(of: 0x6fff, length: 1) == 0x10_1fff)
        #expect(table.guestAddress(of: 0x6fff, length: 2) == nil)
        #expect(table.guestAddress(of: 0x7000, length: 1) == nil)
        #expect(table.guestAddress(of: 0x4fff, length: 1) == nil)
        #expect(table.guestAddress(of: 0x5000, length: UInt64.max) == nil)
        #expect(table.guestAddress(of: UInt64.max, length: 1) == nil)
    }
}
