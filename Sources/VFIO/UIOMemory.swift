internal import GuestMemory
internal import HostSystem
internal import PCI

/// Arenas at physical addresses, each of whole huge pages that follow each other in memory.
struct UIOMemory {
    static let hugePage = 1 << 21
    /// How often pages are taken anew until they follow each other.
    static let tries = 4
    private static let isPresent: UInt64 = 1 << 63
    private static let frameMask: UInt64 = (1 << 55) - 1
    private static let folder = "hugepages/hugepages-2048kB"

    private let pages: any PhysicalPages
    private let tree: HostTree
    private(set) var arenas: [DMAArena] = []

    init(_ pages: any PhysicalPages, tree: HostTree) {
        self.pages = pages
        self.tree = tree
    }

    /// Makes an arena of whole pages of 2 MiB.
    mutating func make(_ size: Int) throws(PCIError) -> DMAArena {
        guard size > 0, size <= 1 << 40 else { throw .noRoom("an arena of \(size) bytes") }
        let count = (size + Self.hugePage - 1) / Self.hugePage
        // Pages that did not fit are kept until the end, or the next try would bring them again.
        var rejected: [Mapping] = []
        for attempt in 0..<Self.tries {
            let file: MemoryFile
            let mapping: Mapping
            do throws(SystemError) {
                // A kernel gives out its last page first, so that they ascend if asked for backwards.
                (file, mapping) = try pages.take(count, isDescending: attempt % 2 == 0)
            } catch {
                if attempt > 0 { break }
                throw refusal(error, count)
            }
            if let start = try start(of: mapping, count) {
                let arena = DMAArena(file: file, mapping: mapping, deviceAddress: start)
                arenas.append(arena)
                return arena
            }
            rejected.append(mapping)
        }
        throw .refused(
            HostRefusal(
                "huge/scattered",
                "\(count) huge pages of 2 MiB that follow each other are needed, and those at hand do"
                    + " not",
                remedy: "use shorter rings, or reserve huge pages at boot: hugepages=\(4 * count)"
            )
        )
    }

    /// Takes an arena out; its pages go with its last user.
    mutating func release(_ arena: DMAArena) {
        arenas.removeAll { $0 === arena }
    }

    // The address of the first page; nil when the others do not follow it.
    private func start(of mapping: Mapping, _ count: Int) throws(PCIError) -> UInt64? {
        var start: UInt64?
        for index in 0..<count {
            let address = try address(of: mapping, index * Self.hugePage)
            guard let first = start else {
                start = address
                continue
            }
            guard address == first &+ UInt64(index * Self.hugePage) else { return nil }
        }
        return start
    }

    private func address(of mapping: Mapping, _ position: Int) throws(PCIError) -> UInt64 {
        let entry: UInt64
        do throws(SystemError) {
            entry = try pages.entry(of: mapping, at: position)
        } catch {
            throw Self.hidden("/proc/self/pagemap: \(error.errno)")
        }
        guard entry & Self.isPresent != 0, entry & Self.frameMask != 0 else {
            throw Self.hidden("/proc/self/pagemap does not tell where memory lies")
        }
        let address = (entry & Self.frameMask) << 12
        guard address % UInt64(Self.hugePage) == 0 else {
            throw Self.hidden("/proc/self/pagemap places a huge page at \(address)")
        }
        return address
    }

    private static func hidden(_ detail: String) -> PCIError {
        .refused(
            HostRefusal(
                "dma/physical-address",
                detail + ", and UIO has no other way to give memory to a device",
                remedy: "run this as root (CAP_SYS_ADMIN), or use VFIO"
            )
        )
    }

    // HI-J14: the kernel says no more than "no memory"; its counters say why.
    private func refusal(_ error: SystemError, _ count: Int) -> PCIError {
        let total = number("/sys/kernel/mm/\(Self.folder)/nr_hugepages")
        let free = number("/sys/kernel/mm/\(Self.folder)/free_hugepages")
        let need = "\(count) huge pages of 2 MiB are needed"
        let cure =
            "reserve some: echo \(max(64, total.addingReportingOverflow(count).partialValue)) >"
            + " /sys/kernel/mm/\(Self.folder)/nr_hugepages"
        if total == 0 {
            let others = tree.entriesIfAny("/sys/kernel/mm/hugepages").filter {
                number("/sys/kernel/mm/hugepages/\($0)/nr_hugepages") > 0
            }
            guard others.isEmpty else {
                return refused(
                    "huge/size",
                    "\(need), and this host has only \(others.joined(separator: ", "))",
                    cure
                )
            }
            return refused("huge/none", "\(need), and this host has none (\(error.errno))", cure)
        }
        if free < count {
            let left = tree.entriesIfAny("/dev/hugepages")
            let files =
                left.isEmpty ? "" : "; files in /dev/hugepages: \(left.joined(separator: ", "))"
            return refused(
                "huge/used",
                "\(need), and of \(total) only \(free) are free\(perNode)\(files)",
                left.isEmpty ? cure : "remove the files of programs that have ended, or " + cure
            )
        }
        return refused(
            "huge/limit",
            "\(need) and \(free) are free\(perNode), and yet this process gets none"
                + " (\(error.errno))",
            "raise hugetlb.2MB.max of its control group, or let it use other NUMA nodes"
        )
    }

    private var perNode: String {
        let nodes = tree.entriesIfAny("/sys/devices/system/node").filter {
            $0.hasPrefix("node") && $0.dropFirst(4).allSatisfy(\.isNumber)
        }
        let parts = nodes.map { node in
            let place = "/sys/devices/system/node/\(node)/\(Self.folder)"
            return "\(node): \(number("\(place)/free_hugepages"))"
                + " of \(number("\(place)/nr_hugepages"))"
        }
        return parts.isEmpty ? "" : " (\(parts.joined(separator: ", ")))"
    }

    private func number(_ path: String) -> Int { tree.textIfAny(path).flatMap { Int($0) } ?? 0 }

    private func refused(_ id: String, _ detail: String, _ remedy: String) -> PCIError {
        .refused(HostRefusal(id, detail, remedy: remedy))
    }
}
