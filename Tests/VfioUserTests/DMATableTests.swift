import CSystemShims
import Glibc
import GuestMemory
import HostSystem
import Testing
import VfioUser

@Suite struct DMATableTests {
    private let page: UInt64 = 4096

    @Test func `VFU-S-10, HI-E8: ranges that cannot be are refused`() throws {
        let rig = try SessionRig()
        func refusal(_ request: DMAMap) throws -> SessionRig.Refused? {
            try rig.refusal(.dmaMap, request.encoded)
        }
        var good = DMAMap(flags: [.readable, .writable], address: 0x1000, length: 0x1000)
        good.argumentSize = 31
        #expect(try refusal(good) == .init(.memoryRange))
        let unknown = DMAMap(flags: .init(rawValue: 0x10), address: 0, length: page)
        #expect(try refusal(unknown) == .init(.memoryRange))
        #expect(try rig.map(nil, at: 0, length: 0) == .init(.memoryRange))
        #expect(try rig.map(nil, at: .max, length: 2) == .init(.memoryRange))
        #expect(try rig.map(nil, at: 2, length: .max) == .init(.memoryRange))
        #expect(
            try rig.map(nil, at: 0, length: page, offset: .max) == .init(.memoryRange)
        )
        #expect(try rig.map(nil, at: 0, length: 8 << 40 + 1) == .init(.memoryRange, 28))
        #expect(rig.function.memoryChanges == 0)
        #expect(try rig.map(nil, at: .max, length: 1) == nil)
        #expect(try rig.map(nil, at: 0, length: 8 << 40) == nil)
    }

    @Test func `VFU-S-11: with a file memory is mapped, without one it is not`() throws {
        let rig = try SessionRig()
        let file = try MemoryFile(name: "m", size: 0x4000)
        #expect(try rig.map(file, at: 0x10000, length: 0x2000, offset: 0x1000) == nil)
        #expect(try rig.map(nil, at: 0x20000, length: 0x2000) == nil)
        let mapped: DMAMap.Flags = [.readable, .writable, .mappable]
        #expect(try rig.map(file, at: 0x30000, length: 0x1000, flags: mapped) == nil)
        let memory = try file.map()
        unsafe memory.address.storeBytes(of: 0x5a, toByteOffset: 0x1234, as: UInt8.self)
        #expect(rig.memory.read(0x10234, 1) == [0x5a])
        #expect(rig.memory.write([7], at: 0x30001))
        #expect(unsafe memory.address.load(fromByteOffset: 1, as: UInt8.self) == 7)
        #expect(rig.memory.read(0x20000, 1) == nil)
        for flags: DMAMap.Flags in [[.readable, .mappable], [.readable, .fileAccess]] {
            #expect(
                try rig.map(nil, at: 0x40000, length: page, flags: flags) == .init(.memoryRange)
            )
        }
    }

    @Test func `VFU-S-12, HI-E9: a range over another is refused, and the older one stays`() throws
    {
        let rig = try SessionRig()
        let file = try MemoryFile(name: "m", size: 0x4000)
        #expect(try rig.map(file, at: 0x10000, length: 0x2000) == nil)
        for (address, length) in [
            (0x10000, 0x2000), (0x11000, 0x1000), (0xf000, 0x1001), (0x11fff, 0x1000),
            (0x0, 0x100000), (0x10800, 1),
        ] as [(UInt64, UInt64)] {
            #expect(try rig.map(nil, at: address, length: length) == .init(.memoryOverlap, 17))
        }
        let other = try MemoryFile(name: "n", size: 0x4000)
        #expect(try rig.map(other, at: 0x10000, length: 0x2000) == .init(.memoryOverlap, 17))
        #expect(
            try rig.map(file, at: 0x10000, length: 0x2000, flags: .readable)
                == .init(.memoryOverlap, 17)
        )
        #expect(
            try rig.map(file, at: 0x10000, length: 0x2000, offset: 0x1000)
                == .init(.memoryOverlap, 17)
        )
        #expect(rig.memory.covers(0x10000, 0x2000, .readWrite))
        #expect(try rig.map(nil, at: 0x12000, length: 1) == nil)
        #expect(try rig.map(nil, at: 0xffff, length: 1) == nil)
    }

    @Test func `HI-E10: one range more than slots is refused`() throws {
        let limits = ServerLimits(memory: DMATable.Limits(ranges: 3))
        let rig = try SessionRig(limits: limits)
        for index in 0..<3 as Range<UInt64> {
            #expect(try rig.map(nil, at: index << 20, length: page) == nil)
        }
        #expect(try rig.map(nil, at: 9 << 20, length: page) == .init(.memorySlots))
        #expect(try rig.unmap(0, page) == nil)
        #expect(try rig.map(nil, at: 9 << 20, length: page) == nil)
    }

    @Test func `HI-E10: 65,535 ranges have room, and finding one among them is quick`() throws {
        var table = DMATable()
        for index in 0..<65535 as Range<UInt64> {
            _ = try table.map(DMAMap(flags: .readable, address: index << 13, length: page), [])
        }
        #expect(throws: Refusal.self) {
            try table.map(DMAMap(flags: .readable, address: 1 << 50, length: page), [])
        }
        #expect(table.count == 65535)
        #expect(table.pieces(5 << 13, page, .read)?.count == 1)
        #expect(table.pieces(5 << 13, page + 1, .read) == nil)
    }

    @Test func `HI-E10: files of one client do not use up what all share`() throws {
        let rig = try SessionRig()
        var refused: SessionRig.Refused?
        for index in 0..<300 as Range<UInt64> where refused == nil {
            let file = try MemoryFile(name: "m\(index)", size: 4096)
            refused = try rig.map(file, at: index << 20, length: page)
            #expect(refused == nil || index == 48)
        }
        #expect(refused == .init(.descriptorKind))
        // Files that are read and written stay open.
        let file = try MemoryFile(name: "open", size: 4096)
        let flags: DMAMap.Flags = [.readable, .fileAccess]
        for index in 0..<64 as Range<UInt64> {
            #expect(try rig.map(file, at: 1 << 40 + index << 20, length: page, flags: flags) == nil)
        }
        #expect(try rig.map(file, at: 0, length: 0) == .init(.memoryRange))
        #expect(
            try rig.map(file, at: 1 << 50, length: page, flags: flags) == .init(.memorySlots)
        )
        #expect(try rig.unmap(1 << 40, page) == nil)
        #expect(try rig.map(file, at: 1 << 50, length: page, flags: flags) == nil)
    }

    @Test func `VFU-S-13: ranges without file are accepted, and change no memory`() throws {
        let rig = try SessionRig()
        #expect(try rig.map(nil, at: 0xfffc_0000, length: 0x40000, flags: .readable) == nil)
        #expect(try rig.map(nil, at: 0x80_0000_0000, length: 0x800_0000) == nil)
        #expect(rig.function.memoryChanges == 0)
        #expect(try rig.unmap(0x80_0000_0000, 0x800_0000) == nil)
        #expect(rig.function.memoryChanges == 0)
    }

    @Test func `VFU-S-14: nothing is written that may only be read, and the other way round`()
        throws
    {
        let rig = try SessionRig()
        let file = try MemoryFile(name: "m", size: 0x4000)
        #expect(try rig.map(file, at: 0, length: page, flags: .readable) == nil)
        #expect(try rig.map(file, at: page, length: page, flags: .writable) == nil)
        #expect(try rig.map(file, at: 2 * page, length: page, flags: []) == nil)
        #expect(!rig.memory.write([1], at: 0) && rig.memory.read(0, 1) == [0])
        #expect(rig.memory.write([1], at: page) && rig.memory.read(page, 1) == nil)
        #expect(rig.memory.read(2 * page, 1) == nil && !rig.memory.write([1], at: 2 * page))
    }

    @Test func `VFU-S-15: a range that was mapped is taken away, and the answer repeats it`() throws
    {
        let rig = try SessionRig()
        let file = try MemoryFile(name: "m", size: 0x4000)
        #expect(try rig.map(file, at: 0x10000, length: 0x4000) == nil)
        let request = DMAUnmap(address: 0x10000, length: 0x4000).encoded
        #expect(try rig.answer(.dmaUnmap, request) == request)
        #expect(rig.memory.read(0x10000, 1) == nil)
        #expect(rig.function.memoryChanges == 2)
    }

    @Test func `VFU-S-15: address space is taken away by powers of two, mapped or not`() throws {
        let rig = try SessionRig()
        let file = try MemoryFile(name: "m", size: 0x4000)
        for shift in 12..<63 as Range<UInt64> {
            #expect(try rig.unmap(1 << shift, 1 << shift) == nil)
        }
        #expect(try rig.unmap(0, .max) == nil)
        #expect(try rig.unmap(1 << 63, 1 << 63) == nil)
        #expect(rig.function.memoryChanges == 0)
        for index in 0..<4 as Range<UInt64> {
            #expect(try rig.map(file, at: index << 20, length: page, offset: index * page) == nil)
        }
        #expect(try rig.unmap(0, 1 << 21) == nil)
        #expect(rig.memory.all.count == 2)
    }

    @Test func `VFU-S-15, HI-E12: what cuts a range takes nothing away`() throws {
        let rig = try SessionRig()
        let file = try MemoryFile(name: "m", size: 0x4000)
        #expect(try rig.map(file, at: 0x10000, length: 0x2000) == nil)
        #expect(try rig.map(file, at: 0x12000, length: 0x2000, offset: 0x2000) == nil)
        for (address, length) in [
            (0x10000, 0x1000), (0x11000, 0x1000), (0x11000, 0x3000), (0xf000, 0x2000),
            (0x10000, 0x3000), (0x10001, 0x3fff), (0x10800, 1),
        ] as [(UInt64, UInt64)] {
            #expect(try rig.unmap(address, length) == .init(.memoryRange, 2))
        }
        #expect(try rig.unmap(0x10000, 0) == .init(.memoryRange))
        #expect(try rig.unmap(.max, 2) == .init(.memoryRange))
        func refusal(_ request: DMAUnmap) throws -> SessionRig.Refused? {
            try rig.refusal(.dmaUnmap, request.encoded)
        }
        #expect(
            try refusal(DMAUnmap(argumentSize: 23, address: 0x10000, length: 0x2000))
                == .init(.memoryRange)
        )
        for flags in [1, 3, 4, 1 << 31] as [UInt32] {
            let request = DMAUnmap(flags: .init(rawValue: flags), address: 0, length: 0)
            #expect(try refusal(request) == .init(.memoryRange))
        }
        #expect(
            try refusal(DMAUnmap(flags: .all, address: 0, length: 1)) == .init(.memoryRange)
        )
        #expect(
            try refusal(DMAUnmap(flags: .all, address: 1, length: 0)) == .init(.memoryRange)
        )
        #expect(rig.memory.covers(0x10000, 0x4000, .readWrite))
        #expect(try refusal(DMAUnmap(flags: .all, address: 0, length: 0)) == nil)
        #expect(rig.memory.all.isEmpty)
    }

    @Test func `VFU-S-16, HI-E13: the device lets go before the reply leaves`() throws {
        let rig = try SessionRig()
        let file = try MemoryFile(name: "m", size: 0x4000)
        #expect(try rig.map(file, at: 0x10000, length: 0x4000) == nil)
        var used: MemoryTable? = rig.memory
        var seen = true
        rig.function.onMemoryChange = { [unowned rig] in
            // A device that works on the old table stops in here; the new one lacks the range.
            used = nil
            seen = rig.memory.covers(0x10000, 1, .read)
        }
        #expect(try rig.unmap(0x10000, 0x4000) == nil)
        #expect(used == nil && !seen)
    }

    @Test func `VFU-S-16, HI-E13: a device that does not let go ends the connection, unanswered`()
        throws
    {
        let rig = try SessionRig()
        let file = try MemoryFile(name: "m", size: 0x4000)
        #expect(try rig.map(file, at: 0x10000, length: 0x2000) == nil)
        rig.function.isFormerMemoryInUse = true
        // What is added takes nothing away.
        #expect(try rig.map(file, at: 0x20000, length: 0x2000, offset: 0x2000) == nil)
        let step = rig.send(.dmaUnmap, DMAUnmap(address: 0x10000, length: 0x2000).encoded)
        #expect(step.reply == nil && step.closes)
        #expect(step.refused?.id == .memoryInUse)
        #expect(rig.memory.read(0x10000, 1) == nil)
    }

    @Test func `VFU-S-17: adjacent ranges are one, a hole is the end`() throws {
        let rig = try SessionRig()
        let file = try MemoryFile(name: "m", size: 0x8000)
        let other = try MemoryFile(name: "n", size: 0x4000)
        #expect(try rig.map(file, at: 0x10000, length: 0x1000, offset: 0x3000) == nil)
        #expect(try rig.map(file, at: 0x11000, length: 0x1000, offset: 0x4000) == nil)
        #expect(try rig.map(other, at: 0x12000, length: 0x1000) == nil)
        #expect(try rig.map(other, at: 0x14000, length: 0x1000) == nil)
        #expect(rig.memory.all.count == 3)
        #expect(rig.memory.write([UInt8](repeating: 3, count: 0x3000), at: 0x10000))
        #expect(rig.memory.read(0x10fff, 0x2000) == [UInt8](repeating: 3, count: 0x2000))
        #expect(!rig.memory.write([UInt8](repeating: 9, count: 0x3001), at: 0x10000))
        #expect(rig.memory.read(0x10000, 1) == [3])
        #expect(rig.memory.read(0x12fff, 2) == nil)
    }

    @Test func `VFU-S-18, HI-E11: a file that is too short or no memory is refused`() throws {
        let rig = try SessionRig()
        let file = try MemoryFile(name: "m", size: 0x4000)
        #expect(try rig.map(file, at: 0, length: 0x4001) == .init(.beyondEndOfFile))
        #expect(
            try rig.map(file, at: 0, length: 0x1000, offset: 0x3001) == .init(.beyondEndOfFile)
        )
        let request = DMAMap(flags: [.readable, .writable], address: 0, length: page).encoded
        let event = try EventFD().descriptor
        #expect(try rig.refusal(.dmaMap, request, [event]) == .init(.descriptorKind))
        let null = try FileDescriptor.open("/dev/null", writable: true)
        #expect(try rig.refusal(.dmaMap, request, [null]) == .init(.descriptorKind))
        let folder = try FileDescriptor.open("/tmp", writable: false)
        #expect(try rig.refusal(.dmaMap, request, [folder]) == .init(.descriptorKind))
        let path = unsafe "/proc/self/fd/\(file.descriptor.rawValue)".withCString {
            unsafe open($0, 0o1000_0000)  // O_PATH, which does not import
        }
        let bare = FileDescriptor(owning: path)
        #expect(try rig.refusal(.dmaMap, request, [bare]) == .init(.descriptorKind))
        #expect(
            try rig.refusal(.dmaMap, request, [file.descriptor, file.descriptor])
                == .init(.descriptors)
        )
        #expect(rig.function.memoryChanges == 0 && rig.memory.all.isEmpty)
        #expect(try rig.map(file, at: 0, length: 0x4000) == nil)
    }

    @Test func `VFU-S-18: a file that is open for reading is memory to be read`() throws {
        let rig = try SessionRig()
        let file = try MemoryFile(name: "m", size: 0x4000)
        let readable = try FileDescriptor.open(
            "/proc/self/fd/\(file.descriptor.rawValue)",
            writable: false
        )
        let both = DMAMap(flags: [.readable, .writable], address: 0, length: page).encoded
        #expect(try rig.refusal(.dmaMap, both, [readable]) == .init(.descriptorKind))
        let one = DMAMap(flags: .readable, address: 0, length: page).encoded
        #expect(try rig.refusal(.dmaMap, one, [readable]) == nil)
        #expect(rig.memory.read(0, 2) == [0, 0])
        // The same file with more rights is another mapping.
        #expect(try rig.map(file, at: 0x10000, length: page) == nil)
        #expect(rig.memory.write([1, 2], at: 0x10000) && rig.memory.read(0, 2) == [1, 2])
    }

    @Test func `VFU-S-18: a file that is cut later reads as zeros and ends nobody`() throws {
        let rig = try SessionRig()
        let raw = unsafe shim_memfd_create("cut", 0)
        try #require(raw >= 0)
        let descriptor = FileDescriptor(owning: raw)
        #expect(ftruncate(raw, 0x4000) == 0)
        let request = DMAMap(flags: [.readable, .writable], address: 0, length: 0x4000).encoded
        #expect(try rig.refusal(.dmaMap, request, [descriptor]) == nil)
        #expect(rig.memory.write([1], at: 0x3000))
        #expect(ftruncate(raw, 0) == 0)
        #expect(rig.memory.read(0x3000, 1) == [0])
    }

    @Test func `VFU-S-15: memory that comes back in pieces is not mapped again`() throws {
        let rig = try SessionRig()
        let file = try MemoryFile(name: "m", size: 0x8000)
        #expect(try rig.map(file, at: 0x10000, length: 0x8000) == nil)
        let first = unsafe rig.memory.view.translate(0x10000, 1, .read)
        #expect(try rig.unmap(0x10000, 0x8000) == nil)
        #expect(rig.session.hasUnusedFiles)
        #expect(try rig.map(file, at: 0x10000, length: 0x2000) == nil)
        #expect(
            try rig.map(file, at: 0x12000, length: 0x1000, offset: 0x2000, flags: .readable) == nil
        )
        #expect(unsafe rig.memory.view.translate(0x10000, 1, .read) == first)
        #expect(try rig.unmap(0, 1 << 30) == nil)
        rig.session.dropUnusedFiles()
        #expect(!rig.session.hasUnusedFiles)
    }

    @Test func `VFU-H-09: a file's descriptor is not kept once its pages are mapped`() throws {
        let rig = try SessionRig()
        var file: MemoryFile? = try MemoryFile(name: "m", size: 0x4000)
        let held = Held(descriptor: try #require(file).descriptor)
        #expect(try rig.map(file, at: 0, length: 0x4000) == nil)
        file = nil
        #expect(held.descriptor == nil)
        #expect(rig.memory.covers(0, 0x4000, .readWrite))
    }
}
