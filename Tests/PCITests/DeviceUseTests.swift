import HostSupport
import HostSystem
import PCI
import Testing

@Suite struct DeviceUseTests {
    private let address = "0000:03:00.0"

    private func machine() throws -> FixtureTree {
        let host = try FixtureTree()
        try host.function(address, driver: "virtio-pci", group: 3)
        for driver in ["vfio-pci", "uio_pci_generic"] { try host.driver(driver) }
        return host
    }

    /// How a bind is refused, `nil` when it is not.
    private func refusal(_ host: FixtureTree, force: Bool = false) throws -> HostRefusal? {
        let address = try #require(PCIAddress(address))
        let binding = DriverBinding(host.tree, writer: FakeKernel(host))
        do {
            _ = try binding.bindPlan(address, to: "vfio-pci", force: force)
            return nil
        } catch {
            guard case .refused(let refusal) = error else { throw error }
            return refusal
        }
    }

    private func expectInUse(_ host: FixtureTree, _ words: String...) throws {
        let refusal = try #require(try refusal(host))
        #expect(refusal.id == "bind/in-use")
        for word in words { #expect(refusal.detail.contains(word), "\(refusal.detail)") }
        #expect(try self.refusal(host, force: true) == nil)
    }

    @Test func `an interface and a disk that nobody uses are free`() throws {
        let host = try machine()
        try host.interface("eth7", of: address)
        try host.disk("vdq", of: address, partitions: ["vdq1"])
        try host.file("/proc/net/route", "Iface Destination\neth0\t00000000\t0\t0\t0\t0\t0\t0\n")
        try host.file("/proc/net/if_inet6", "fe80 02 40 20 80 eth7\n0001 03 40 00 80 eth77\n")
        let local = "fe800000000000000000000000000000 40 0 00 0 100 1 0 1 eth7\n"
        try host.file("/proc/net/ipv6_route", local + local.replacing("fe8", with: "ff0"))
        try host.file("/proc/self/mountinfo", "1 0 8:1 / / rw - ext4 /dev/sda1 rw\n")
        try host.file("/proc/swaps", "Filename Type\n/dev/vdq12 partition\n")
        #expect(try refusal(host) == nil)
    }

    @Test func `HI-J1: a default route holds an interface`() throws {
        let host = try machine()
        try host.interface("eth7", of: address)
        let line = "eth7\t00000000\t0102A8C0\t0003\t0\t0\t100\t00000000\t0\t0\t0\n"
        try host.file("/proc/net/route", "Iface\tDestination\n" + line)
        try expectInUse(host, "eth7", "the default route")
    }

    @Test func `HI-J1: any route holds an interface, IPv6 too`() throws {
        let host = try machine()
        try host.interface("eth7", of: address)
        try host.file(
            "/proc/net/route",
            "Iface\nName\neth7\t0002A8C0\t0\t0001\t0\t0\t100\t00FFFFFF\t0\t0\t0\n"
        )
        try expectInUse(host, "eth7 has a route")
        try host.file("/proc/net/route", "")
        let zeros = String(repeating: "0", count: 32)
        try host.file("/proc/net/ipv6_route", "\(zeros) 00 \(zeros) 00 1 400 1 0 3 eth7\n")
        try expectInUse(host, "the default route (IPv6)")
    }

    @Test func `HI-J1: a global IPv6 address holds an interface`() throws {
        let host = try machine()
        try host.interface("eth7", of: address)
        try host.file("/proc/net/if_inet6", "20010db8000000000000000000000001 02 40 00 80 eth7\n")
        try expectInUse(host, "eth7 has the address 2001")
    }

    @Test(arguments: [("bonding", "bond"), ("bridge", "bridge"), ("", "master interface")])
    func `HI-J1: a member of a bond, bridge or team is held`(kind: (String, String)) throws {
        let host = try machine()
        try host.interface("eth7", of: address)
        try host.link("/sys/class/net/eth7/master", to: "../../../../../virtual/net/up0")
        try host.directory("/sys/class/net/up0/\(kind.0)")
        try expectInUse(host, "eth7 belongs to the \(kind.1) up0")
    }

    @Test func `HI-J1: an interface under a VLAN is held`() throws {
        let host = try machine()
        try host.interface("eth7", of: address)
        try host.link("/sys/class/net/eth7/upper_eth7.5", to: "../eth7.5")
        try expectInUse(host, "eth7 carries eth7.5")
    }

    @Test func `HI-J1: an interface in another network namespace is held`() throws {
        let host = try machine()
        let virtio = "\(FixtureTree.device(address))/virtio0"
        try host.directory(virtio)
        #expect(try refusal(host) == nil)
        try host.link("\(virtio)/driver", to: "../../../../bus/virtio/drivers/virtio_net")
        try expectInUse(host, "virtio_net has its interface in another network namespace")
        try host.interface("eth7", of: address)
        #expect(try refusal(host) == nil)
        for (driver, isFree) in [("e1000e", false), ("igb_uio", true), ("pci-stub", true)] {
            let other = try FixtureTree()
            try other.driver("vfio-pci")
            try other.function(address, vendor: 0x8086, device: 1, driver: driver, group: 3)
            #expect(try (refusal(other) == nil) == isFree, "\(driver)")
        }
    }

    @Test func `HI-J2: a mounted partition holds its disk, by number and by name`() throws {
        let host = try machine()
        try host.disk("vdq", of: address, partitions: ["vdq1"])
        try host.file("/proc/self/mountinfo", "30 1 254:1 / /data rw - ext4 /dev/other rw\n")
        try expectInUse(host, "vdq1 is mounted at /data")
        try host.file("/proc/self/mountinfo", "30 1 0:44 / /pool rw a:1 - btrfs /dev/vdq1 rw\n")
        try expectInUse(host, "vdq1 is mounted at /pool")
    }

    @Test func `HI-J2: swap holds its disk`() throws {
        let host = try machine()
        try host.disk("vdq", of: address)
        try host.file("/proc/swaps", "Filename\tType\n/dev/vdq  partition 1 0 -2\n")
        try expectInUse(host, "vdq is swap space")
    }

    @Test func `HI-J2: LVM and RAID hold their disks`() throws {
        let host = try machine()
        try host.disk("vdq", of: address, partitions: ["vdq1"])
        try host.directory("/sys/class/block/vdq1/holders/dm-0")
        try host.file("/sys/class/block/dm-0/dm/name", "vg-root\n")
        try expectInUse(host, "vdq1 is part of vg-root (LVM")
        host.remove("/sys/class/block/vdq1/holders/dm-0")
        try host.directory("/sys/class/block/vdq/holders/md127")
        try expectInUse(host, "vdq is part of md127 (RAID)")
    }

    @Test func `HI-J2: what the kernel has not claimed is not held, a mounted disk is`() throws {
        let host = try machine()
        try host.file("/dev/vdq", "")
        #expect(!host.tree.isClaimed(disk: "/dev/vdq"))
        #expect(!host.tree.isClaimed(disk: "/dev/vdz"))
        // Containers keep disks from being opened at all.
        if let disk = LiveDisk.mounted { #expect(HostTree.live.isClaimed(disk: disk)) }
    }

    @Test func `HI-J2: a disk with many mounts is told in few words`() throws {
        let host = try machine()
        try host.disk("vdq", of: address)
        let lines = (0..<50).map { "30 1 254:0 / /data\($0) rw - ext4 /dev/x rw\n" }
        try host.file("/proc/self/mountinfo", lines.joined())
        try expectInUse(host, "/data7", "vdq has 42 more uses")
        #expect(try refusal(host)?.detail.contains("/data8") == false)
    }

    @Test func `HI-J5: virtual functions on drivers hold their physical function`() throws {
        let host = try machine()
        try host.function("0000:03:00.2", driver: "virtio-pci")
        try host.function("0000:03:00.3")
        for (index, function) in ["0000:03:00.2", "0000:03:00.3"].enumerated() {
            let link = "\(FixtureTree.device(address))/virtfn\(index)"
            try host.link(link, to: "../\(function)")
        }
        let refusal = try #require(try refusal(host))
        #expect(refusal.id == "vfio/group" && refusal.detail.contains("0000:03:00.2"))
        #expect(!refusal.detail.contains("0000:03:00.3"))
        #expect(refusal.remedy.contains("sriov_numvfs"))
    }

    @Test func `a bridge with functions behind it is held`() throws {
        let host = try machine()
        try host.directory("\(FixtureTree.device(address))/0000:04:00.0")
        try expectInUse(host, "the bridge to 0000:04:00.0")
    }

    @Test func `a process that drives the function holds it, and force does not help`() throws {
        let host = try machine()
        try host.bind(address, to: "vfio-pci")
        try host.link("/proc/77/fd/5", to: "/dev/vfio/3")
        try host.file("/proc/77/comm", "dpdk-testpmd\n")
        let binding = DriverBinding(host.tree, writer: FakeKernel(host))
        let address = try #require(PCIAddress(address))
        for force in [false, true] {
            #expect {
                _ = try binding.unbindPlan(address, force: force)
            } throws: { error in
                "\(error)".hasPrefix("vfio/busy") && "\(error)".contains("77 (dpdk-testpmd)")
            }
        }
    }

    @Test func `the disks of a controller with several paths are found`() throws {
        let host = try machine()
        try host.directory("\(FixtureTree.device(address))/nvme/nvme0/nvme0c0n1")
        try host.link(
            "/sys/class/block/nvme0n1",
            to: "../../devices/virtual/nvme-subsystem/nvme0n1"
        )
        try host.file("/sys/devices/virtual/nvme-subsystem/nvme0n1/dev", "259:0\n")
        try host.file("/proc/self/mountinfo", "30 1 259:0 / /srv rw - xfs /dev/nvme0n1 rw\n")
        try expectInUse(host, "nvme0n1 is mounted at /srv")
    }

    @Test func `HI-J30: reset needs a method, and nobody at work`() throws {
        let host = try machine()
        let address = try #require(PCIAddress(address))
        let reset = FunctionReset(host.tree, writer: FakeKernel(host))
        #expect {
            _ = try reset.plan(address)
        } throws: { "\($0)".hasPrefix("pci/reset") }
        try host.file("\(FixtureTree.device("\(address)"))/reset", "")
        #expect {
            _ = try reset.plan(address)
        } throws: { "\($0)".hasPrefix("reset/in-use") && "\($0)".contains("virtio-pci") }
        #expect(try reset.plan(address, force: true).text == "1")
        try host.bind("\(address)", to: "vfio-pci")
        #expect(throws: Never.self) { try reset.carryOut(try reset.plan(address)) }
    }
}

/// A mounted disk of this machine that may be opened, if there is one.
private enum LiveDisk {
    static let mounted: String? = {
        let lines = (HostTree.live.textIfAny("/proc/self/mountinfo") ?? "").split(separator: "\n")
        let sources = lines.compactMap { line in
            line.split(separator: " ").first { $0.hasPrefix("/dev/") && !$0.contains("loop") }
        }
        return sources.map(String.init).first { path in
            guard let name = path.split(separator: "/").last, path.split(separator: "/").count == 2,
                HostTree.live.exists("/sys/class/block/\(name)")
            else { return false }
            return (try? HostTree.live.bytes(path, limit: 1)) != nil
        }
    }()
}
