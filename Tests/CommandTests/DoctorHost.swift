import HostSupport
import HostSystem
import PCI
import Testing

@testable import vhost_pci

/// A made-up host on which every check is fine, and one function of it.
struct DoctorHost {
    static let address = "0000:03:00.0"
    static let device = FixtureTree.device(address)
    static let user = 4242

    let host: FixtureTree

    init(driver: String = "vfio-pci") throws {
        host = try FixtureTree()
        try firmwareAndUnits()
        try processAndLimits()
        try processorsAndMemory()
        try function(driver)
    }

    private func firmwareAndUnits() throws {
        try host.file("/sys/firmware/acpi/tables/DMAR", "x")
        try host.file("/sys/class/iommu/dmar0/intel-iommu/cap", "d2008c40660462\n")
        try host.file("/sys/class/iommu/dmar0/intel-iommu/domains_supported", "65536\n")
        try host.file("/sys/class/iommu/dmar0/intel-iommu/domains_used", "12\n")
        try host.file("/proc/cmdline", "root=/dev/sda1 intel_iommu=on iommu=pt\n")
        try host.file("/proc/interrupts", "  CPU0\n 24: 1 IR-PCI-MSI 5-edge eth0\n")
        try host.file("/proc/sys/kernel/osrelease", "6.1.0\n")
        try host.file("/lib/modules/6.1.0/modules.dep", "kernel/uio/uio_pci_generic.ko:\n")
        try host.file("/dev/vfio/vfio", "")
        try host.file("/dev/vfio/3", "")
        try host.file("/dev/iommu", "")
        let parameters = "/sys/module/vfio_iommu_type1/parameters"
        try host.file("\(parameters)/dma_entry_limit", "65535\n")
        try host.file("\(parameters)/allow_unsafe_interrupts", "N\n")
        try host.file("/sys/module/vfio/parameters/enable_unsafe_noiommu_mode", "N\n")
        try host.driver("vfio-pci")
    }

    private func processAndLimits() throws {
        try status()
        try limits()
        try host.file("/proc/self/cgroup", "0::/\n")
        try host.file("/sys/fs/cgroup/cpu.max", "max 100000\n")
        try host.file(
            "/proc/self/mountinfo",
            "23 27 0:22 / /sys rw,relatime - sysfs sysfs rw\n"
                + "30 25 0:27 / /dev/shm rw,nosuid - tmpfs tmpfs rw,size=8388608k\n"
        )
        try host.file("/proc/sys/vm/max_map_count", "65530\n")
        try host.file("/proc/sys/kernel/tainted", "0\n")
        try host.file("/proc/sys/kernel/numa_balancing", "0\n")
    }

    private func processorsAndMemory() throws {
        let cpus = "/sys/devices/system/cpu"
        try host.file("\(cpus)/online", "0-3\n")
        try host.file("\(cpus)/offline", "\n")
        try host.file("\(cpus)/isolated", "2-3\n")
        try host.file("\(cpus)/nohz_full", "(null)\n")
        try host.file("\(cpus)/smt/active", "0\n")
        let clock = "/sys/devices/system/clocksource/clocksource0/current_clocksource"
        try host.file(clock, "tsc\n")
        try host.file("/sys/kernel/mm/transparent_hugepage/enabled", "always [madvise] never\n")
        try host.file("/sys/devices/system/node/has_memory", "0-1\n")
        for node in 0...1 { try pages(node: node, total: 64, free: 64) }
    }

    private func function(_ driver: String) throws {
        try host.function(
            Self.address,
            driver: driver,
            group: 3,
            configuration: ConfigurationBytes.net().bytes
        )
        try host.file("\(Self.device)/numa_node", "0\n")
        try host.file("\(Self.device)/local_cpulist", "0-1\n")
        try host.file("\(Self.device)/reset_method", "flr bus\n")
        try host.file("\(Self.device)/power_state", "D0\n")
        let msi = "0x00000000fee00000 0x00000000feefffff msi\n"
        try host.file("/sys/kernel/iommu_groups/3/reserved_regions", msi)
    }

    // MARK: Changes

    /// Who asks: an administrator unless told otherwise.
    func status(
        user: Int = 0,
        rights: UInt64 = 0x1ff_ffff_ffff,
        groups: String = "",
        cpus: String = "0-3",
        seccomp: Int = 0
    ) throws {
        try host.file(
            "/proc/self/status",
            "Name:\tvhost-pci\nUid:\t\(user)\t\(user)\t\(user)\t\(user)\nGid:\t\(user)\t\(user)\n"
                + "Groups:\t\(groups) \nCapEff:\t\(String(rights, radix: 16))\n"
                + "Seccomp:\t\(seccomp)\nCpus_allowed_list:\t\(cpus)\n"
        )
    }

    func limits(
        locked: String = "unlimited unlimited",
        files: String = "20000 20000"
    ) throws {
        try host.file(
            "/proc/self/limits",
            "Limit   Soft Limit   Hard Limit   Units\n"
                + "Max open files   \(files)   files\nMax locked memory   \(locked)   bytes\n"
        )
    }

    func pages(node: Int, total: Int, free: Int) throws {
        let place = "/sys/devices/system/node/node\(node)/hugepages/hugepages-2048kB"
        try host.file("\(place)/nr_hugepages", "\(total)\n")
        try host.file("\(place)/free_hugepages", "\(free)\n")
    }

    // MARK: Questions

    func findings(ofFunction: Bool = true) throws -> [Finding] {
        let target = ofFunction ? PCIAddress(Self.address) : nil
        return try Doctor(host.tree, target: target).findings
    }

    /// The worst finding of a check.
    func finding(_ id: String, ofFunction: Bool = true) throws -> Finding {
        let all = try findings(ofFunction: ofFunction).filter { $0.id == id }
        let order: [Finding.Outcome] = [.fail, .warn, .unknown, .ok]
        let worst = order.lazy.compactMap { outcome in all.first { $0.outcome == outcome } }.first
        return try #require(worst, "no finding \(id)")
    }

    /// A check has an outcome, and says some words; whatever is not ok says what cures it.
    func expect(
        _ id: String,
        _ outcome: Finding.Outcome,
        _ words: String...,
        sourceLocation: SourceLocation = #_sourceLocation
    ) throws {
        let finding = try finding(id)
        #expect(finding.outcome == outcome, "\(finding)", sourceLocation: sourceLocation)
        let text = finding.found + " " + (finding.remedy ?? "")
        for word in words {
            #expect(text.contains(word), "\(finding)", sourceLocation: sourceLocation)
        }
        if outcome == .warn || outcome == .fail {
            #expect(finding.remedy?.isEmpty == false, sourceLocation: sourceLocation)
        }
        #expect(!finding.read.isEmpty, sourceLocation: sourceLocation)
    }
}
