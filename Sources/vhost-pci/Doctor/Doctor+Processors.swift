import HostSystem

// CPUs for polling threads.
extension Doctor {
    static let cpus = "/sys/devices/system/cpu"

    /// CPUs that this process may use; `nil` when that is not told.
    var allowedCPUs: Set<Int>? {
        process["Cpus_allowed_list"].flatMap { NumberList($0)?.numbers }
    }

    var processors: [Finding] {
        [allowance, offline, isolation, siblings, clock, governor, quota]
    }

    private func list(_ name: String) -> Set<Int>? {
        file("\(Self.cpus)/\(name)").text.flatMap { NumberList($0)?.numbers }
    }

    private static func text(_ numbers: some Sequence<Int>) -> String {
        numbers.sorted().map(String.init).joined(separator: ",")
    }

    private var allowance: Finding {
        let id = "cpu/cpuset"
        let path = ProcessFacts.statusPath
        guard let allowed = allowedCPUs else {
            return .unknown(id, "the CPUs that this process may use cannot be read", read: path)
        }
        guard let online = list("online") else {
            return .unknown(id, "the CPUs online cannot be read", read: "\(Self.cpus)/online")
        }
        let usable = allowed.intersection(online)
        let found = "\(usable.count) of \(online.count) CPUs online may be used"
        if usable.isEmpty {
            return .fail(id, found, read: path, remedy: "widen the cpuset of this process")
        }
        if usable.count == 1 {
            return .warn(
                id,
                "\(found): a polling thread leaves nothing to all others",
                read: path,
                remedy: "vhost-pci run --idle sleep, or more CPUs"
            )
        }
        return .ok(id, found, read: path)
    }

    private var offline: Finding {
        let id = "cpu/offline"
        let path = "\(Self.cpus)/offline"
        guard let offline = list("offline") else {
            return .unknown(id, "the CPUs offline cannot be read", read: path)
        }
        let found = offline.subtracting(allowedCPUs.map { offline.subtracting($0) } ?? [])
        guard !found.isEmpty else { return .ok(id, "no CPU of ours is offline", read: path) }
        return .warn(
            id,
            "offline: \(Self.text(found))",
            read: path,
            remedy: "leave them out of --cores, or echo 1 > \(Self.cpus)/cpuN/online"
        )
    }

    private var isolation: Finding {
        let id = "cpu/isolated"
        let path = "\(Self.cpus)/isolated"
        guard let isolated = list("isolated") else {
            return .unknown(id, "the isolated CPUs cannot be read", read: path)
        }
        // It is absent, or says (null), where no CPU runs without a tick.
        let tickless = list("nohz_full") ?? []
        if isolated.isEmpty {
            return .ok(id, "no CPU is isolated: others may run beside a poller", read: path)
        }
        let found = "isolated: \(Self.text(isolated))"
        let without = tickless.isEmpty ? "none" : Self.text(tickless)
        return .ok(id, "\(found); without a tick: \(without)", read: path)
    }

    private var siblings: Finding {
        let id = "cpu/siblings"
        let path = "\(Self.cpus)/smt/active"
        switch file(path) {
        case .text("1"):
            let pairs = (allowedCPUs ?? []).sorted().compactMap { cpu -> String? in
                let text = file("\(Self.cpus)/cpu\(cpu)/topology/thread_siblings_list").text
                guard let text, let group = NumberList(text)?.numbers, group.count > 1,
                    group.min() == cpu
                else { return nil }
                return Self.text(group)
            }
            return .warn(
                id,
                "CPUs that share a core: \(pairs.prefix(8).joined(separator: "; "))",
                read: path,
                remedy: "give each polling thread a core of its own"
            )
        case .text, .absent: return .ok(id, "no two CPUs share a core", read: path)
        case .closed(let why): return .unknown(id, why, read: path)
        }
    }

    private var clock: Finding {
        let id = "cpu/clock"
        let path = "/sys/devices/system/clocksource/clocksource0/current_clocksource"
        switch file(path) {
        case .text(let name) where ["tsc", "arch_sys_counter"].contains(name):
            return .ok(id, "the clock is \(name)", read: path)
        case .text(let name):
            return .warn(
                id,
                "the clock is \(name): reading it is slow, and cycle counts may jump",
                read: path,
                remedy: "boot with tsc=reliable, on a machine whose counter is"
            )
        case .absent: return .unknown(id, "the kernel names no clock", read: path)
        case .closed(let why): return .unknown(id, why, read: path)
        }
    }

    private var governor: Finding {
        let id = "cpu/governor"
        let cpus = (allowedCPUs ?? [0]).sorted()
        func path(_ cpu: Int) -> String { "\(Self.cpus)/cpu\(cpu)/cpufreq/scaling_governor" }
        let slow = cpus.filter { file(path($0)).text == "powersave" }
        guard let first = slow.first else {
            let name = cpus.first.flatMap { file(path($0)).text }
            let found = name.map { "the governor is \($0)" } ?? "the machine does not say how fast"
            return .ok(id, found, read: path(cpus.first ?? 0))
        }
        return .warn(
            id,
            "slow to save power: CPUs \(Self.text(slow))",
            read: path(first),
            remedy: "echo performance > \(Self.cpus)/cpuN/cpufreq/scaling_governor"
        )
    }

    /// Both versions of control groups; a process sees its own group as the root of the tree where
    /// it has a namespace.
    private var quota: Finding {
        let id = "cpu/quota"
        let root = "/sys/fs/cgroup"
        let groups = (file("/proc/self/cgroup").text ?? "").split(separator: "\n").map {
            $0.split(separator: ":", maxSplits: 2, omittingEmptySubsequences: false)
        }
        /// The directory of the group in the hierarchy that has a controller.
        func group(_ controller: Substring) -> String {
            let line = groups.first { line in
                line.count == 3
                    && line[1].split(separator: ",", omittingEmptySubsequences: false)
                        .contains(controller)
            }
            return line.map { $0[2] == "/" ? "" : String($0[2]) } ?? ""
        }
        for path in ["\(root)\(group(""))/cpu.max", "\(root)/cpu.max"] {
            guard let text = file(path).text else { continue }
            let parts = text.split(separator: " ")
            if parts.first == "max" { return .ok(id, "no quota of CPU time", read: path) }
            guard parts.count == 2, let quota = Int(parts[0]), let period = Int(parts[1]) else {
                return .unknown(id, "'\(text)' is no quota", read: path)
            }
            return quotaFinding(quota, period, path)
        }
        for place in ["\(root)/cpu\(group("cpu"))", "\(root)/cpu"] {
            let path = "\(place)/cpu.cfs_quota_us"
            guard let quota = file(path).text.flatMap({ Int($0) }) else { continue }
            if quota < 0 { return .ok(id, "no quota of CPU time", read: path) }
            let period = file("\(place)/cpu.cfs_period_us").text.flatMap { Int($0) } ?? 100_000
            return quotaFinding(quota, period, path)
        }
        return .ok(id, "no quota of CPU time", read: root)
    }

    private func quotaFinding(_ quota: Int, _ period: Int, _ path: String) -> Finding {
        .warn(
            "cpu/quota",
            "\(quota) of each \(period) microseconds of CPU time: a poller that uses them up stands"
                + " still for the rest",
            read: path,
            remedy: "take the quota away for polling threads"
        )
    }
}
