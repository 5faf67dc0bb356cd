import HostSupport
import HostSystem
import Testing

@testable import vhost_pci

@Suite struct DoctorMachineTests {
    // MARK: Limits

    @Test func `HI-J15: too little memory may be locked`() throws {
        let doctor = try DoctorHost()
        try doctor.status(user: DoctorHost.user, rights: 0)
        try doctor.limits(locked: "8388608 8388608")
        try doctor.expect("limit/memlock", .fail, "8 MiB", "64 MiB", "LimitMEMLOCK=infinity")
        try doctor.limits(locked: "8388608 unlimited")
        try doctor.expect("limit/memlock", .warn, "ulimit -l unlimited")
        try doctor.limits(locked: "67108864 67108864")
        try doctor.expect("limit/memlock", .ok)
    }

    @Test func `HI-J15: the right to lock memory counts, and not knowing it is no right`() throws {
        let doctor = try DoctorHost()
        try doctor.limits(locked: "8388608 8388608")
        try doctor.status(rights: 1 << 14)
        try doctor.expect("limit/memlock", .ok, "CAP_IPC_LOCK")
        doctor.host.remove("/proc/self/status")
        try doctor.expect("limit/memlock", .unknown)
    }

    @Test(arguments: ["", "8388608", "many few", "-1 -1", "99999999999999999999999 1"])
    func `HI-J15: a limit that is no limit is unknown`(text: String) throws {
        let doctor = try DoctorHost()
        try doctor.limits(locked: text, files: text)
        try doctor.expect("limit/memlock", .unknown)
        try doctor.expect("limit/nofile", .unknown)
    }

    @Test func `few files and few mappings are told`() throws {
        let doctor = try DoctorHost()
        try doctor.limits(files: "256 4096")
        try doctor.expect("limit/nofile", .warn, "256")
        try doctor.host.file("/proc/sys/vm/max_map_count", "100\n")
        try doctor.expect("limit/maps", .warn, "100")
        try doctor.host.file("/proc/sys/vm/max_map_count", "\n")
        try doctor.expect("limit/maps", .unknown)
    }

    // MARK: Huge pages

    @Test func `HI-J14: no huge pages, none free and none here are told apart`() throws {
        let doctor = try DoctorHost()
        try doctor.pages(node: 0, total: 0, free: 0)
        try doctor.expect("huge/none", .warn, "node0", "0 of 0 of 2048kB", "nr_hugepages")
        try doctor.pages(node: 0, total: 64, free: 0)
        try doctor.expect("huge/used", .warn, "0 of 64", "a dead program")
        doctor.host.remove("/sys/devices/system/node/node0/hugepages")
        try doctor.expect("huge/none", .unknown, "node0")
    }

    @Test func `HI-J14: the function's own node is what counts`() throws {
        let doctor = try DoctorHost()
        try doctor.pages(node: 1, total: 0, free: 0)
        try doctor.expect("huge/none", .ok, "node0")
        #expect(try doctor.finding("huge/none", ofFunction: false).outcome == .warn)
    }

    @Test func `HI-J14: counts that are absurd are shown and do no harm`() throws {
        let doctor = try DoctorHost()
        let place = "/sys/devices/system/node/node0/hugepages"
        for size in ["hugepages-2048kB", "hugepages-1048576kB"] {
            for name in ["nr_hugepages", "free_hugepages"] {
                try doctor.host.file("\(place)/\(size)/\(name)", "18446744073709551615\n")
            }
        }
        try doctor.expect("huge/none", .ok, "18446744073709551615")
    }

    // MARK: Memory moved about

    @Test func `pages that the kernel moves are a warning`() throws {
        let doctor = try DoctorHost()
        try doctor.host.file("/proc/sys/kernel/numa_balancing", "1\n")
        try doctor.expect("host/balancing", .warn, "sysctl kernel.numa_balancing=0")
        doctor.host.remove("/sys/kernel/mm/transparent_hugepage/enabled")
        try doctor.expect("host/thp", .ok, "no transparent")
    }

    @Test func `little or no shared memory is told`() throws {
        let doctor = try DoctorHost()
        let line = "30 25 0:27 / /dev/shm rw - tmpfs shm rw,size="
        try doctor.host.file("/proc/self/mountinfo", line + "65536k\n")
        try doctor.expect("host/shm", .warn, "64 MiB", "--shm-size")
        try doctor.host.file("/proc/self/mountinfo", line + "99999999999999999999k\n")
        try doctor.expect("host/shm", .ok)
        try doctor.host.file("/proc/self/mountinfo", "23 27 0:22 / /sys rw - sysfs sysfs rw\n")
        try doctor.expect("host/shm", .warn, "mount -t tmpfs")
        doctor.host.remove("/proc/self/mountinfo")
        try doctor.expect("host/shm", .unknown)
    }

    // MARK: CPUs

    @Test func `HI-J18: no CPU, one CPU and an unknown number are told`() throws {
        let doctor = try DoctorHost()
        try doctor.status(cpus: "8-9")
        try doctor.expect("cpu/cpuset", .fail, "0 of 4")
        try doctor.status(cpus: "3")
        try doctor.expect("cpu/cpuset", .warn, "1 of 4")
        try doctor.status(cpus: "0-")
        try doctor.expect("cpu/cpuset", .unknown)
        try doctor.status(cpus: "0-999999999999")
        try doctor.expect("cpu/cpuset", .unknown)
        try doctor.status()
        doctor.host.remove("/sys/devices/system/cpu/online")
        try doctor.expect("cpu/cpuset", .unknown)
    }

    @Test func `HI-J18: CPUs that are offline are named when they are ours`() throws {
        let doctor = try DoctorHost()
        try doctor.host.file("/sys/devices/system/cpu/offline", "2,8-15\n")
        try doctor.expect("cpu/offline", .warn, "offline: 2")
        try doctor.host.file("/sys/devices/system/cpu/offline", "8-15\n")
        try doctor.expect("cpu/offline", .ok)
        try doctor.host.file("/sys/devices/system/cpu/offline", "x\n")
        try doctor.expect("cpu/offline", .unknown)
    }

    @Test func `HI-J18: CPUs that share a core are paired`() throws {
        let doctor = try DoctorHost()
        let cpus = "/sys/devices/system/cpu"
        try doctor.host.file("\(cpus)/smt/active", "1\n")
        for cpu in 0...3 {
            let path = "\(cpus)/cpu\(cpu)/topology/thread_siblings_list"
            try doctor.host.file(path, cpu < 2 ? "0-1\n" : "2,3\n")
        }
        try doctor.expect("cpu/siblings", .warn, "0,1; 2,3")
    }

    @Test func `isolation is told, the odd forms of its lists too`() throws {
        let doctor = try DoctorHost()
        try doctor.expect("cpu/isolated", .ok, "isolated: 2,3; without a tick: none")
        try doctor.host.file("/sys/devices/system/cpu/nohz_full", "3\n")
        try doctor.expect("cpu/isolated", .ok, "without a tick: 3")
        try doctor.host.file("/sys/devices/system/cpu/isolated", "\n")
        try doctor.expect("cpu/isolated", .ok, "no CPU is isolated")
        doctor.host.remove("/sys/devices/system/cpu/isolated")
        try doctor.expect("cpu/isolated", .unknown)
    }

    @Test func `a slow clock and a slow governor are told`() throws {
        let doctor = try DoctorHost()
        let clock = "/sys/devices/system/clocksource/clocksource0/current_clocksource"
        try doctor.host.file(clock, "hpet\n")
        try doctor.expect("cpu/clock", .warn, "hpet")
        doctor.host.remove(clock)
        try doctor.expect("cpu/clock", .unknown)
        let governor = "/sys/devices/system/cpu/cpu2/cpufreq/scaling_governor"
        try doctor.host.file(governor, "powersave\n")
        try doctor.expect("cpu/governor", .warn, "CPUs 2")
        try doctor.host.file(governor, "performance\n")
        try doctor.expect("cpu/governor", .ok)
    }

    @Test func `a quota of CPU time is told, of both kinds of control groups`() throws {
        let doctor = try DoctorHost()
        try doctor.host.file("/proc/self/cgroup", "0::/jobs/a\n")
        try doctor.host.file("/sys/fs/cgroup/jobs/a/cpu.max", "50000 100000\n")
        try doctor.expect("cpu/quota", .warn, "50000 of each 100000")
        try doctor.host.file("/sys/fs/cgroup/jobs/a/cpu.max", "half\n")
        try doctor.expect("cpu/quota", .unknown)
        doctor.host.remove("/sys/fs/cgroup")
        try doctor.host.file("/proc/self/cgroup", "2:cpu,cpuacct:/b\n1:name=systemd:/\n")
        try doctor.expect("cpu/quota", .ok)
        try doctor.host.file("/sys/fs/cgroup/cpu/b/cpu.cfs_quota_us", "20000\n")
        try doctor.expect("cpu/quota", .warn, "20000 of each 100000")
        try doctor.host.file("/sys/fs/cgroup/cpu/b/cpu.cfs_quota_us", "-1\n")
        try doctor.expect("cpu/quota", .ok)
    }

    // MARK: Surroundings

    @Test func `HI-J29: lockdown, SELinux, AppArmor and seccomp are named`() throws {
        let doctor = try DoctorHost()
        let lockdown = "/sys/kernel/security/lockdown"
        try doctor.host.file(lockdown, "[none] integrity confidentiality\n")
        try doctor.expect("host/locked", .ok)
        try doctor.host.file(lockdown, "none [integrity] confidentiality\n")
        try doctor.expect("host/locked", .warn, "integrity")
        try doctor.status(seccomp: 2)
        try doctor.expect("host/confined", .warn, "seccomp")
        try doctor.host.file("/proc/self/attr/current", "docker-default (enforce)\n")
        try doctor.expect("host/confined", .warn, "AppArmor", "docker-default")
        try doctor.host.file("/sys/fs/selinux/enforce", "1")
        try doctor.expect("host/confined", .warn, "SELinux")
    }

    @Test func `HI-J29: a container that cannot write to sysfs is told`() throws {
        let doctor = try DoctorHost()
        try doctor.host.file("/.dockerenv", "")
        try doctor.expect("host/container", .ok, "a container")
        let mounts = "23 27 0:22 / /sys ro,nosuid - sysfs sysfs ro\n"
        try doctor.host.file("/proc/self/mountinfo", mounts)
        try doctor.expect("host/container", .fail, "as in a container")
        doctor.host.remove("/.dockerenv")
        try doctor.expect("host/container", .fail, "read-only: no driver")
    }

    @Test func `HI-J28: a user without rights is told what follows`() throws {
        let doctor = try DoctorHost()
        try doctor.status(user: DoctorHost.user, rights: 0)
        try doctor.expect("host/privilege", .warn, "4242")
        doctor.host.remove("/proc/self/status")
        try doctor.expect("host/privilege", .unknown)
        try doctor.expect("host/confined", .unknown)
    }

    @Test func `taint is told, and is no fault`() throws {
        let doctor = try DoctorHost()
        try doctor.host.file("/proc/sys/kernel/tainted", "512\n")
        try doctor.expect("host/taint", .ok, "512")
        doctor.host.remove("/proc/sys/kernel/tainted")
        try doctor.expect("host/taint", .unknown)
    }
}
