import HostSystem
import PCI

// Memory that devices may reach.
extension Doctor {
    /// What a network device with two queue pairs takes, with room.
    static let plannedMemory: UInt64 = 64 << 20
    static let nodes = "/sys/devices/system/node"

    var memory: [Finding] {
        [lockedMemory, openFiles, maps] + hugePages + [transparentPages, balancing, sharedMemory]
    }

    private var lockedMemory: Finding {
        let id = "limit/memlock"
        let path = ProcessFacts.limitsPath
        guard let limit = process.limit("Max locked memory") else {
            return .unknown(id, "the limit cannot be read", read: path)
        }
        let need = DeviceText.size(Self.plannedMemory)
        if limit.soft == .max { return .ok(id, "memory may be locked without limit", read: path) }
        let have = "\(DeviceText.size(limit.soft)) may be locked, a device takes about \(need)"
        if limit.soft >= Self.plannedMemory { return .ok(id, have, read: path) }
        switch process.has(.lockMemory) {
        case true:
            return .ok(
                id,
                "the limit of \(DeviceText.size(limit.soft)) does not hold this process"
                    + " (CAP_IPC_LOCK)",
                read: path,
                ProcessFacts.statusPath
            )
        case nil: return .unknown(id, have, read: path, ProcessFacts.statusPath)
        default: break
        }
        if limit.hard >= Self.plannedMemory {
            return .warn(id, have, read: path, remedy: "ulimit -l unlimited")
        }
        return .fail(
            id,
            "\(have); the hard limit is \(DeviceText.size(limit.hard))",
            read: path,
            remedy: "LimitMEMLOCK=infinity in the systemd unit, or '* hard memlock unlimited' in"
                + " /etc/security/limits.conf"
        )
    }

    private var openFiles: Finding {
        let id = "limit/nofile"
        let path = ProcessFacts.limitsPath
        guard let limit = process.limit("Max open files") else {
            return .unknown(id, "the limit cannot be read", read: path)
        }
        let count = limit.soft == .max ? "any number of" : "\(limit.soft)"
        let found = "\(count) files may be open; a peer takes two for each queue, and its memory"
        guard limit.soft < 1024 else { return .ok(id, found, read: path) }
        return .warn(id, found, read: path, remedy: "ulimit -n 4096")
    }

    private var maps: Finding {
        let id = "limit/maps"
        let path = "/proc/sys/vm/max_map_count"
        guard let count = file(path).text.flatMap({ UInt64($0) }) else {
            return .unknown(id, "the limit cannot be read", read: path)
        }
        guard count < 4096 else { return .ok(id, "\(count) mappings a process", read: path) }
        return .warn(
            id,
            "only \(count) mappings a process",
            read: path,
            remedy: "sysctl vm.max_map_count=65530"
        )
    }

    // MARK: Huge pages

    /// The nodes that matter: the function's own, or all.
    private var hugePages: [Finding] {
        let id = "huge/none"
        guard case .names(let entries) = directory(Self.nodes) else {
            return [.unknown(id, "the machine's nodes cannot be read", read: Self.nodes)]
        }
        var nodes = entries.filter { name in
            name.hasPrefix("node") && name.dropFirst(4).allSatisfy(\.isNumber) && name.count > 4
        }
        if let node = record?.node, nodes.contains("node\(node)") { nodes = ["node\(node)"] }
        return nodes.map(hugePages)
    }

    private func hugePages(of node: String) -> Finding {
        let place = "\(Self.nodes)/\(node)/hugepages"
        guard case .names(let sizes) = directory(place), !sizes.isEmpty else {
            return .unknown("huge/none", "\(node): the kernel has no huge pages", read: place)
        }
        var texts: [String] = []
        var total: UInt64 = 0
        var free: UInt64 = 0
        for size in sizes {
            func count(_ name: String) -> UInt64 {
                file("\(place)/\(size)/\(name)").text.flatMap { UInt64($0) } ?? 0
            }
            let name = size.dropFirst("hugepages-".count)
            texts.append("\(count("free_hugepages")) of \(count("nr_hugepages")) of \(name) free")
            total += min(count("nr_hugepages"), 1 << 32)
            free += min(count("free_hugepages"), 1 << 32)
        }
        let found = "\(node): " + texts.joined(separator: ", ")
        let cure = "echo 64 > \(place)/hugepages-2048kB/nr_hugepages"
        if total == 0 {
            return .warn(
                "huge/none",
                "\(found): small pages cost speed, and UIO cannot do without",
                read: place,
                remedy: cure
            )
        }
        if free == 0 {
            return .warn(
                "huge/used",
                "\(found): all are taken, perhaps by files that a dead program left",
                read: place,
                remedy: "look for files in mounts of hugetlbfs, or \(cure)"
            )
        }
        return .ok("huge/none", found, read: place)
    }

    // MARK: How the kernel moves memory about

    private var transparentPages: Finding {
        let id = "host/thp"
        let path = "/sys/kernel/mm/transparent_hugepage/enabled"
        switch file(path) {
        case .text(let text):
            let choice = text.split(separator: " ").first { $0.hasPrefix("[") } ?? "?"
            return .ok(id, "transparent huge pages: \(choice)", read: path)
        case .absent: return .ok(id, "no transparent huge pages", read: path)
        case .closed(let why): return .unknown(id, why, read: path)
        }
    }

    private var balancing: Finding {
        let id = "host/balancing"
        let path = "/proc/sys/kernel/numa_balancing"
        switch file(path) {
        case .text("0"), .absent: return .ok(id, "the kernel moves no pages by itself", read: path)
        case .text:
            return .warn(
                id,
                "the kernel moves pages between nodes, and stops polling threads for it",
                read: path,
                remedy: "sysctl kernel.numa_balancing=0"
            )
        case .closed(let why): return .unknown(id, why, read: path)
        }
    }

    /// Front-ends often share their memory from there.
    private var sharedMemory: Finding {
        let id = "host/shm"
        let path = "/proc/self/mountinfo"
        guard let text = file(path).text else {
            return .unknown(id, "the mounts cannot be read", read: path)
        }
        let line = text.split(separator: "\n").map { $0.split(separator: " ") }
            .last { $0.count > 4 && $0[4] == "/dev/shm" }
        guard let options = line?.last else {
            return .warn(
                id,
                "nothing is mounted at /dev/shm: front-ends cannot share memory from there",
                read: path,
                remedy: "mount -t tmpfs tmpfs /dev/shm"
            )
        }
        let value = options.split(separator: ",").first { $0.hasPrefix("size=") }?.dropFirst(5)
        guard let value, value.last == "k", let size = UInt64(value.dropLast()), size < 1 << 50
        else { return .ok(id, "/dev/shm is as large as half the memory", read: path) }
        let found = "/dev/shm has \(size >> 10) MiB"
        guard size <= 64 << 10 else { return .ok(id, found, read: path) }
        return .warn(
            id,
            "\(found): a guest's memory does not fit",
            read: path,
            remedy: "mount -o remount,size=8G /dev/shm (docker: --shm-size)"
        )
    }
}
