import HostSupport
import HostSystem
import PCI
import Testing

@testable import vhost_pci

@Suite struct DoctorFunctionTests {
    private let device = DoctorHost.device

    // MARK: Who has it

    @Test func `HI-J4: each member of a group that is not viable is told`() throws {
        let doctor = try DoctorHost()
        try doctor.host.function("0000:03:00.1", driver: "e1000e", group: 3)
        try doctor.host.function("0000:02:00.0", classCode: 0x060400, driver: "x", group: 3)
        try doctor.host.function("0000:03:00.2", group: 3)
        try doctor.expect(
            "vfio/group",
            .fail,
            "0000:03:00.1 (e1000e); ",
            "0000:02:00.0 (x), a bridge",
            "0000:03:00.2 (no driver)",
            "in the way: 0000:03:00.1",
            "device bind 0000:03:00.1"
        )
    }

    @Test func `HI-J6: a function in no group is told why`() throws {
        let doctor = try DoctorHost()
        doctor.host.remove("\(device)/iommu_group")
        try doctor.expect("vfio/group", .fail, "this function is in no group")
        doctor.host.remove("/sys/class/iommu/dmar0")
        try doctor.expect("vfio/group", .fail, "intel_iommu=on")
    }

    @Test func `addresses that firmware uses through the device are told`() throws {
        let doctor = try DoctorHost()
        let path = "/sys/kernel/iommu_groups/3/reserved_regions"
        let msi = "0x00000000fee00000 0x00000000feefffff msi\n"
        try doctor.host.file(path, "0x0000000000100000 0x00000000001fffff direct\n" + msi)
        try doctor.expect("iommu/reserved", .fail, "0x0000000000100000", "RMRR")
        try doctor.host.file(path, "0x000000000 0x0000fff direct-relaxable\nnonsense\n" + msi)
        try doctor.expect("iommu/reserved", .ok, "direct-relaxable")
        doctor.host.remove(path)
        try doctor.expect("iommu/reserved", .unknown)
    }

    @Test func `HI-J3: the process that has the function open is named`() throws {
        let doctor = try DoctorHost()
        try doctor.host.link("/proc/77/fd/5", to: "/dev/vfio/3")
        try doctor.host.file("/proc/77/comm", "dpdk-testpmd\n")
        try doctor.expect("vfio/busy", .warn, "77 (dpdk-testpmd)")
    }

    @Test func `HI-J28: who else has it open is unknown without privilege`() throws {
        let doctor = try DoctorHost()
        try doctor.status(user: DoctorHost.user, rights: 0)
        try doctor.expect("vfio/busy", .unknown, "run as root")
    }

    @Test func `HI-J7: UIO under an IOMMU that translates cannot work`() throws {
        let doctor = try DoctorHost(driver: "uio_pci_generic")
        try doctor.expect("iommu/translated", .fail, "DMA-FQ", "vfio-pci")
        try doctor.host.file("/sys/kernel/iommu_groups/3/type", "identity\n")
        try doctor.expect("iommu/translated", .ok)
        doctor.host.remove("/sys/kernel/iommu_groups/3/type")
        try doctor.expect("iommu/translated", .unknown)
    }

    @Test func `HI-J13: an override that the driver does not follow is told`() throws {
        let doctor = try DoctorHost(driver: "virtio-pci")
        try doctor.host.file("\(device)/driver_override", "vfio-pci\n")
        try doctor.expect("bind/override", .warn, "told to have vfio-pci", "device restore")
        try doctor.host.bind(DoctorHost.address, to: "vfio-pci")
        try doctor.expect("bind/override", .ok, "as told")
    }

    @Test func `HI-J1: uses that would stop a bind are told before`() throws {
        let doctor = try DoctorHost(driver: "virtio-pci")
        try doctor.host.interface("eth7", of: DoctorHost.address)
        try doctor.expect("bind/in-use", .ok)
        let line = "eth7\t00000000\t0102A8C0\t0003\t0\t0\t100\t00000000\t0\t0\t0\n"
        try doctor.host.file("/proc/net/route", "Iface\tDestination\n" + line)
        try doctor.expect("bind/in-use", .warn, "eth7 has the default route")
    }

    @Test func `HI-J2: a mounted disk is told`() throws {
        let doctor = try DoctorHost(driver: "virtio-pci")
        try doctor.host.disk("vdq", of: DoctorHost.address)
        try doctor.host.file("/proc/self/mountinfo", "30 1 254:0 / /data rw - ext4 /dev/x rw\n")
        try doctor.expect("bind/in-use", .warn, "vdq is mounted at /data")
    }

    @Test func `HI-J5: virtual functions that are on are told`() throws {
        let doctor = try DoctorHost()
        try doctor.host.file("\(device)/sriov_totalvfs", "4\n")
        try doctor.expect("pci/sriov", .ok, "0 of 4")
        try doctor.host.function("0000:03:00.2", driver: "virtio-pci")
        try doctor.host.link("\(device)/virtfn0", to: "../0000:03:00.2")
        try doctor.expect("pci/sriov", .warn, "1 of 4", "sriov_numvfs")
        try doctor.host.link("\(device)/physfn", to: "../0000:02:00.0")
        try doctor.expect("pci/sriov", .ok, "a virtual function of 0000:02:00.0")
    }

    // MARK: What state it is in

    @Test func `a function that sleeps is told`() throws {
        let doctor = try DoctorHost()
        try doctor.host.file("\(device)/power_state", "D3hot\n")
        try doctor.expect("pci/power", .ok, "D3hot", "until it is opened")
        try doctor.host.bind(DoctorHost.address, to: "virtio-pci")
        try doctor.expect("pci/power", .warn, "D3hot")
        doctor.host.remove("\(device)/power_state")
        try doctor.expect("pci/power", .unknown)
    }

    @Test func `HI-J30: no reset, no MSI-X and few vectors are told`() throws {
        let doctor = try DoctorHost()
        doctor.host.remove("\(device)/reset_method")
        try doctor.expect("pci/reset", .warn, "status register")
        let few = ConfigurationBytes.net(vectors: 2)
        try doctor.host.file("\(device)/config", bytes: few.bytes)
        try doctor.expect("pci/interrupts", .warn, "2 vectors")
        var none = ConfigurationBytes()
        none.virtio(1, at: 0x40, length: 0x38)
        try doctor.host.file("\(device)/config", bytes: none.bytes)
        try doctor.expect("pci/interrupts", .warn, "no MSI-X")
    }

    @Test func `HI-J30: a function without a common structure cannot be driven`() throws {
        let doctor = try DoctorHost()
        let bytes = ConfigurationBytes(device: 0x1000).bytes
        try doctor.host.file("\(device)/config", bytes: bytes)
        try doctor.expect("pci/cap", .fail, "before virtio 1.0")
    }

    @Test func `HI-H6: a structure outside its BAR is told`() throws {
        let doctor = try DoctorHost()
        var space = ConfigurationBytes()
        space.virtio(1, at: 0x40, offset: 0x80000)
        try doctor.host.file("\(device)/config", bytes: space.bytes)
        try doctor.expect("pci/cap", .fail, "breaks the specification")
    }

    @Test func `a function that answers with ones is gone or asleep`() throws {
        let doctor = try DoctorHost()
        let ones = [UInt8](repeating: 0xff, count: 256)
        try doctor.host.file("\(device)/config", bytes: ones)
        try doctor.expect("pci/cap", .fail, "rescan")
    }

    @Test func `HI-J28: configuration space that may not be read is unknown`() throws {
        let doctor = try DoctorHost()
        let header = Array(ConfigurationBytes.net().bytes.prefix(64))
        try doctor.host.file("\(device)/config", bytes: header)
        try doctor.expect("pci/cap", .unknown, "64 bytes", "run as root")
    }

    @Test func `BARs without an address and BARs without a page are told`() throws {
        let doctor = try DoctorHost()
        let end = String(repeating: "0x0 0x0 0x0\n", count: 6)
        try doctor.host.file("\(device)/resource", "0x0 0xfff 0x40200\n" + end)
        try doctor.expect("pci/bar", .fail, "BAR 0", "pci=realloc")
        try doctor.host.file("\(device)/resource", "0x4000000100 0x40000001ff 0x40200\n" + end)
        try doctor.expect("pci/bar", .warn, "BAR 0")
        try doctor.host.file("\(device)/resource", "nonsense\n")
        try doctor.expect("pci/bar", .ok, "none")
        doctor.host.remove("\(device)/resource")
        try doctor.expect("pci/bar", .unknown)
    }

    @Test func `a slow link and errors on the bus are told`() throws {
        let doctor = try DoctorHost()
        for (name, text) in [
            ("current_link_speed", "8.0 GT/s PCIe"), ("max_link_speed", "16.0 GT/s PCIe"),
            ("current_link_width", "4"), ("max_link_width", "8"),
        ] { try doctor.host.file("\(device)/\(name)", text + "\n") }
        try doctor.expect("pci/link", .warn, "8.0 GT/s PCIe x4", "16.0 GT/s PCIe x8")
        try doctor.host.file("\(device)/current_link_speed", "16.0 GT/s PCIe\n")
        try doctor.host.file("\(device)/current_link_width", "8\n")
        try doctor.expect("pci/link", .ok)
        try doctor.host.file("\(device)/aer_dev_fatal", "DLP 0\nTOTAL_ERR_FATAL 0\n")
        try doctor.expect("pci/errors", .ok)
        try doctor.host.file("\(device)/aer_dev_correctable", "RxErr 3\nTOTAL_ERR_COR 3\n")
        try doctor.expect("pci/errors", .warn, "3 correctable")
    }

    // MARK: What it is near to

    @Test func `HI-J17: a function far from memory or from our CPUs is told`() throws {
        let doctor = try DoctorHost()
        try doctor.status(cpus: "2-3")
        try doctor.expect("numa/remote", .warn, "node 0", "may not use")
        try doctor.host.file("/sys/devices/system/node/has_memory", "1\n")
        try doctor.expect("numa/remote", .warn, "no memory")
    }

    @Test func `HI-J17: a function on an unknown node matters where there are several`() throws {
        let doctor = try DoctorHost()
        try doctor.host.file("\(device)/numa_node", "-1\n")
        try doctor.expect("numa/remote", .warn, "does not say")
        try doctor.host.file("/sys/devices/system/node/has_memory", "0\n")
        try doctor.expect("numa/remote", .ok, "one node")
        doctor.host.remove("/sys/devices/system/node/has_memory")
        try doctor.expect("numa/remote", .unknown)
    }

    @Test func `HI-J17: a function whose near CPUs are not told is unknown`() throws {
        let doctor = try DoctorHost()
        try doctor.host.file("\(device)/local_cpulist", "\n")
        try doctor.expect("numa/remote", .unknown)
        try doctor.host.file("\(device)/local_cpulist", "3-1\n")
        try doctor.expect("numa/remote", .unknown)
    }
}
