import GuestMemory
import HostSystem
import PCI
import Testing

@testable import VFIO

/// Memory for a device: addresses that the IOMMU has, limits that the host sets.
@Suite struct VFIODMATests {
    let kernel: FakeKernel
    let tree: FixtureTree

    init() throws {
        kernel = try FakeKernel()
        tree = try FixtureTree()
    }

    func open() throws -> VFIODevice {
        try VFIODevice.open(FixtureTree.address, kernel: kernel, in: HostTree(root: tree.root))
    }

    @Test func `arenas lie in the IOMMU's ranges and are given back`() throws {
        let device = try open()
        let first = try device.makeArena(size: 5000)
        let second = try device.makeArena(size: 4096)
        #expect(first.deviceAddress == 1 << 32)
        #expect(first.mapping.length == 8192)
        #expect(second.deviceAddress >= first.deviceAddress + 8192 + 4096)
        #expect(kernel.mapped[first.deviceAddress] == 8192)
        try device.releaseArena(first)
        #expect(kernel.mapped[first.deviceAddress] == nil)
        #expect(try device.makeArena(size: 1).deviceAddress == first.deviceAddress)
        try device.releaseArena(first)
        for size in [0, -1, Int.max, Int.min, 1 << 40] {
            #expect(failure { _ = try device.makeArena(size: size) }.hasPrefix("limit/memory"))
        }
    }

    @Test func `ranges of every shape yield addresses inside them or none`() throws {
        for (ranges, expected) in [
            ([(0x20_0000, 0x3f_ffff)], nil),
            ([(0x20_0000, 0x60_0000)], 0x20_0000),
            ([(0, 0xffff_ffff)], 0x20_0000),
            ([(0x1_0000_1000, 0x1_0060_0000)], 0x1_0020_0000),
            ([(.max - 0xff_ffff, .max)], .max - 0xff_ffff),
            ([(5, 4)], nil),
            ([], nil),
        ] as [([(UInt64, UInt64)], UInt64?)] {
            kernel.iommu = Answer.iommu(ranges: ranges)
            let device = try open()
            #expect((try? device.makeArena(size: 4096))?.deviceAddress == expected)
        }
    }

    @Test func `an arena with an address of its own must suit the IOMMU`() throws {
        let device = try open()
        let good = try DMAArena(size: 8192, deviceAddress: 0x10_0000)
        try device.mapDMA(good)
        #expect(kernel.mapped == [0x10_0000: 8192])
        for address: UInt64 in [0xfedf_f000, 0xfee0_0000, 0x800, 1 << 39, .max - 0xfff] {
            let bad = try DMAArena(size: 8192, deviceAddress: address)
            #expect(failure { try device.mapDMA(bad) }.hasPrefix("dma/range"))
        }
        try device.unmapDMA(try DMAArena(size: 4096, deviceAddress: 0))
        #expect(!kernel.calls.contains("unmapDMA"))
        kernel.unmapsShort = true
        #expect(failure { try device.unmapDMA(good) }.hasPrefix("vfio/answer"))
    }

    @Test func `HI-J15: locked memory is checked before anything is mapped`() throws {
        kernel.locked = LockedMemory(limit: 65536, used: 4096, isExempt: false)
        let device = try open()
        _ = try device.makeArena(size: 61440)
        let text = failure { _ = try device.makeArena(size: 61441) }
        #expect(text.hasPrefix("limit/memlock: "))
        #expect(text.contains("may lock 65536 bytes"))
        #expect(text.contains("needs 69632"))
        #expect(text.contains("LimitMEMLOCK=infinity"))
        #expect(text.contains("limits.conf"))
        #expect(kernel.calls.count(where: { $0 == "mapDMA" }) == 1)
        kernel.locked = LockedMemory(limit: 0, used: .max, isExempt: true)
        _ = try device.makeArena(size: 1 << 20)
        kernel.locked = LockedMemory(limit: .max, used: .max, isExempt: false)
        #expect(failure { _ = try device.makeArena(size: 1) }.hasPrefix("limit/memlock"))
    }

    @Test func `HI-J15: a kernel without memory is told apart from a limit`() throws {
        let device = try open()
        kernel.errors = ["mapDMA": .noMemory]
        kernel.locked = LockedMemory(limit: 1 << 20, used: 0, isExempt: false)
        #expect(failure { _ = try device.makeArena(size: 1) }.hasPrefix("limit/memlock"))
        kernel.locked = LockedMemory(limit: 0, used: 0, isExempt: true)
        #expect(failure { _ = try device.makeArena(size: 1) }.hasPrefix("limit/memory"))
        kernel.errors = [:]
        #expect(try device.makeArena(size: 1).deviceAddress == 1 << 32)
    }

    @Test func `HI-J16: the number of mappings is named with its parameter`() throws {
        let device = try open()
        kernel.iommu = Answer.iommu(ranges: [(0, 1 << 40)], left: 0)
        let text = failure { _ = try device.makeArena(size: 1) }
        #expect(text.hasPrefix("limit/dma-entries: "))
        #expect(text.contains("dma_entry_limit="))
        #expect(!kernel.calls.contains("mapDMA"))
        kernel.iommu = Answer.iommu(ranges: [(0, 1 << 40)], left: 1)
        kernel.errors = ["mapDMA": .noSpace]
        #expect(failure { _ = try device.makeArena(size: 1) }.hasPrefix("limit/dma-entries"))
    }

    @Test func `memory that is another device's registers is refused with the reason`() throws {
        let device = try open()
        kernel.errors = ["mapDMA": .badAddress]
        let text = failure { _ = try device.makeArena(size: 1) }
        #expect(text.hasPrefix("dma/peer-to-peer: "))
        #expect(text.contains("registers"))
        kernel.errors = ["mapDMA": .exists]
        #expect(failure { _ = try device.makeArena(size: 1) }.hasPrefix("mapDMA"))
    }

    @Test func `HI-H28: what an IOMMU says of itself is checked`() throws {
        let good = Answer.iommu(ranges: [(0, 1 << 40)])
        for (offset, bytes) in [
            (16, Answer.words(8)), (16, Answer.words(.max)), (16, Answer.words(0x1001)),
            (28, Answer.words(24)), (28, Answer.words(4096)), (32, Answer.words(.max)),
            (8, Answer.long(0)), (8, Answer.long(1 << 40)),
        ] {
            var answer = good
            answer.replaceSubrange(offset..<offset + bytes.count, with: bytes)
            kernel.iommu = answer
            #expect(failure { _ = try open() }.hasPrefix("vfio/answer"), "\(offset) \(bytes)")
        }
        for count in 0..<16 {
            kernel.iommu = Array(good.prefix(count))
            #expect(failure { _ = try open() }.hasPrefix("vfio/answer"))
        }
        // No capabilities: what every IOMMU has.
        kernel.iommu = Answer.words(24, 1) + Answer.long(0x1000) + Answer.words(0, 0)
        #expect(try open().makeArena(size: 1).deviceAddress == 1 << 32)
    }

    @Test func `pages of an IOMMU that are larger than ours are kept to`() throws {
        kernel.iommu = Answer.iommu(ranges: [(0, 1 << 40)], pageSizes: 0x1_0000)
        #expect(try open().makeArena(size: 1).mapping.length == 0x1_0000)
    }
}
