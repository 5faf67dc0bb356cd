import GuestMemory
import HostSystem
import PCI
import Testing

@testable import VFIO

/// Arenas at physical addresses.
@Suite struct UIOMemoryTests {
    static let kernel = "sys/kernel/mm/hugepages/hugepages-2048kB"
    static let node = "sys/devices/system/node/node0/hugepages/hugepages-2048kB"
    let pages = FakePages()
    let tree: FixtureTree

    init() throws { tree = try FixtureTree() }

    func memory() -> UIOMemory { UIOMemory(pages, tree: HostTree(root: tree.root)) }

    func pool(total: Int, free: Int) {
        tree.file("\(Self.kernel)/nr_hugepages", "\(total)\n")
        tree.file("\(Self.kernel)/free_hugepages", "\(free)\n")
        tree.file("\(Self.node)/nr_hugepages", "\(total)\n")
        tree.file("\(Self.node)/free_hugepages", "\(free)\n")
    }

    func refusal(_ size: Int = 4096) -> String {
        failure {
            var memory = memory()
            _ = try memory.make(size)
        }
    }

    @Test func `an arena is whole pages at their physical address`() throws {
        var memory = memory()
        let small = try memory.make(100)
        #expect(small.mapping.length == 2 << 20)
        #expect(small.deviceAddress == 0x4000_0000)
        let large = try memory.make(5 << 20)
        #expect(large.mapping.length == 6 << 20)
        #expect(large.deviceAddress == 0x4020_0000)
        let buffer = try #require(large.allocate(4096, alignment: 4096))
        #expect(buffer.deviceAddress == 0x4020_0000)
        #expect(memory.arenas.count == 2)
        memory.release(small)
        #expect(memory.arenas.map(\.deviceAddress) == [0x4020_0000])
    }

    @Test func `pages that do not follow each other are taken anew`() throws {
        // The first two descend, the next two ascend.
        let addresses = [0x4020_0000, 0x4000_0000, 0x5000_0000, 0x5020_0000]
        pages.entry = { index in FakePages.present(addresses[index]) }
        var memory = memory()
        #expect(try memory.make(4 << 20).deviceAddress == 0x5000_0000)
        #expect(pages.taken == ["2 down", "2 up"])
    }

    @Test func `HI-J14: pages that never follow each other are named`() {
        pages.entry = { index in FakePages.present(0x4000_0000 + index << 22) }
        #expect(refusal(4 << 20).hasPrefix("huge/scattered: 2 huge pages of 2 MiB"))
        #expect(pages.taken.count == UIOMemory.tries)
        // Those at hand were used up in trying.
        pages.failures = [nil, .noMemory]
        #expect(refusal(4 << 20).hasPrefix("huge/scattered"))
    }

    @Test func `HI-J14: a host without huge pages says how to reserve some`() {
        pages.failures = [.noMemory]
        pool(total: 0, free: 0)
        let text = refusal()
        #expect(text.hasPrefix("huge/none: 1 huge pages of 2 MiB are needed"))
        #expect(text.contains("echo 64 > /sys/kernel/mm/hugepages/hugepages-2048kB/nr_hugepages"))
    }

    @Test func `HI-J14: pages of another size are told apart`() {
        pages.failures = [.noMemory]
        pool(total: 0, free: 0)
        tree.file("sys/kernel/mm/hugepages/hugepages-1048576kB/nr_hugepages", "4\n")
        let text = refusal()
        #expect(text.hasPrefix("huge/size"))
        #expect(text.contains("hugepages-1048576kB"))
    }

    @Test func `HI-J14: pages in use are counted by node, leftovers named`() {
        pages.failures = [.noMemory, .noMemory]
        pool(total: 4, free: 1)
        let text = refusal(4 << 20)
        #expect(text.hasPrefix("huge/used: 2 huge pages of 2 MiB are needed, and of 4 only 1"))
        #expect(text.contains("node0: 1 of 4"))
        #expect(!text.contains("files in"))
        tree.file("dev/hugepages/rtemap_0")
        let leftovers = refusal(4 << 20)
        #expect(leftovers.contains("files in /dev/hugepages: rtemap_0"))
        #expect(leftovers.contains("remove the files of programs that have ended"))
    }

    @Test func `HI-J14: free pages that this process does not get are a limit`() {
        pages.failures = [.noMemory]
        pool(total: 4, free: 4)
        #expect(refusal().hasPrefix("huge/limit"))
    }

    @Test func `HI-J28: physical addresses that are hidden are named, never guessed`() {
        let entries: [UInt64] = [
            0, 1 << 63, 0x40000, 1 << 63 | 0x40001, 1 << 55 | 1 << 63, .max,
        ]
        for entry in entries {
            pages.entry = { _ in entry }
            #expect(refusal().hasPrefix("dma/physical-address: /proc/self/pagemap"))
        }
        pages.entry = { (_) throws(SystemError) in throw SystemError("pagemap", .notPermitted) }
        #expect(refusal().contains("CAP_SYS_ADMIN"))
    }

    @Test func `sizes that cannot be are refused before anything is taken`() {
        for size in [0, -1, .min, .max, 1 << 41] {
            #expect(refusal(size).hasPrefix("limit/memory"))
        }
        #expect(pages.taken.isEmpty)
    }
}
