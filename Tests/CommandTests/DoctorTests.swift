import HostSupport
import HostSystem
import PCI
import Testing

@testable import vhost_pci

@Suite struct DoctorTests {
    @Test func `a host that is ready has nothing but fine findings`() throws {
        let doctor = try DoctorHost()
        let findings = try doctor.findings()
        for finding in findings { #expect(finding.outcome == .ok, "\(finding)") }
        #expect(findings.count > 40)
        let report = DoctorReport(target: nil, findings: findings)
        #expect(report.counts.ok == findings.count && report.counts.fail == 0)
        #expect(report.lines.last == "\(findings.count) ok, 0 warnings, 0 failed, 0 unknown")
    }

    @Test func `HI-J11: a function that is not there is told with its neighbours`() throws {
        let doctor = try DoctorHost()
        let other = try #require(PCIAddress("0000:03:00.7"))
        #expect {
            _ = try Doctor(doctor.host.tree, target: other)
        } throws: { "\($0)".hasPrefix("pci/address") && "\($0)".contains(DoctorHost.address) }
    }

    @Test func `HI-J28: on a host of which nothing can be read nothing is called fine`() throws {
        let host = try FixtureTree(hasBus: false)
        let report = try Doctor(host.tree).report
        #expect(report.counts.unknown >= 12)
        let fine = report.findings.filter { $0.outcome == .ok }.map(\.id)
        // What is absent on a kernel that lacks it is no reason to worry.
        let mayBeAbsent: Set<String> = [
            "vfio/iommufd", "iommu/unsafe", "host/thp", "host/balancing", "host/locked", "host/kvm",
            "cpu/siblings", "cpu/governor", "cpu/quota", "bind/journal",
        ]
        #expect(Set(fine).isSubset(of: mayBeAbsent), "\(fine)")
    }

    @Test func `HI-J28: a directory that may not be listed is unknown`() throws {
        // Root lists what it likes; a file in its place cannot be listed by anybody.
        for (path, id) in [
            ("/sys/class/iommu", "iommu/off"), ("/sys/firmware/acpi/tables", "iommu/firmware"),
        ] {
            let doctor = try DoctorHost()
            doctor.host.remove(path)
            try doctor.host.link(path, to: path.split(separator: "/").last.map(String.init) ?? "")
            try doctor.expect(id, .unknown)
        }
    }

    @Test func `the text has a line for each finding and one for each remedy`() throws {
        let doctor = try DoctorHost()
        try doctor.limits(files: "256 256")
        let findings = try doctor.findings(ofFunction: false)
        let lines = DoctorReport(target: nil, findings: findings).lines
        #expect(lines.count == findings.count + 2)
        let index = try #require(lines.firstIndex { $0.contains("limit/nofile") })
        #expect(lines[index].hasPrefix("warn     limit/nofile"))
        #expect(lines[index].hasSuffix("(/proc/self/limits)"))
        #expect(lines[index + 1] == "         -> ulimit -n 4096")
    }

    // MARK: IOMMU

    @Test func `HI-J6: firmware without an IOMMU, and a guest without one, are told apart`() throws
    {
        let doctor = try DoctorHost()
        doctor.host.remove("/sys/class/iommu/dmar0")
        try doctor.expect("iommu/off", .fail, "intel_iommu=on")
        doctor.host.remove("/sys/firmware/acpi/tables/DMAR")
        try doctor.expect("iommu/firmware", .fail, "VT-d or AMD-Vi")
        try doctor.host.file("/proc/cpuinfo", "flags : fpu hypervisor\n")
        try doctor.expect("iommu/firmware", .fail, "virtual machine", "-device intel-iommu")
    }

    @Test(arguments: ["intel_iommu=off", "iommu=off", "amd_iommu=off", "intel_iommu=sm_on,off"])
    func `HI-J6: an argument that leaves the IOMMU off is named`(word: String) throws {
        let doctor = try DoctorHost()
        try doctor.host.file("/proc/cmdline", "quiet \(word) ro\n")
        try doctor.expect("iommu/mode", .fail, word)
    }

    @Test func `a machine without ACPI, but with an IOMMU, is fine`() throws {
        let doctor = try DoctorHost()
        doctor.host.remove("/sys/firmware/acpi")
        try doctor.expect("iommu/firmware", .unknown)
        try doctor.host.directory("/sys/firmware/acpi/tables")
        try doctor.expect("iommu/firmware", .ok)
        doctor.host.remove("/proc/cmdline")
        try doctor.expect("iommu/mode", .unknown)
    }

    @Test func `interrupts that are not remapped are told`() throws {
        let doctor = try DoctorHost()
        try doctor.host.file("/proc/interrupts", " 24: 1 PCI-MSI 5-edge eth0\n")
        try doctor.expect("iommu/remapping", .warn, "EPERM")
        let parameter = "/sys/module/vfio_iommu_type1/parameters/allow_unsafe_interrupts"
        try doctor.host.file(parameter, "Y\n")
        try doctor.expect("iommu/remapping", .warn, "any interrupt")
        doctor.host.remove(parameter)
        doctor.host.remove("/proc/interrupts")
        try doctor.expect("iommu/remapping", .unknown)
    }

    @Test func `widths and domains of a unit are told`() throws {
        let doctor = try DoctorHost()
        let place = "/sys/class/iommu/dmar0/intel-iommu"
        try doctor.expect("iommu/limits", .ok, "39 bits", "12 of 65536")
        try doctor.host.file("\(place)/domains_used", "65536\n")
        try doctor.expect("iommu/limits", .fail)
        doctor.host.remove("\(place)/domains_supported")
        try doctor.expect("iommu/limits", .ok, "39 bits")
        try doctor.host.file("\(place)/cap", "no number\n")
        try doctor.expect("iommu/limits", .unknown)
    }

    // MARK: VFIO and UIO

    @Test func `HI-J9: a driver that is not loaded is told with what loads it`() throws {
        let doctor = try DoctorHost(driver: "virtio-pci")
        doctor.host.remove("/sys/bus/pci/drivers/vfio-pci")
        try doctor.expect("vfio/module", .fail, "no module vfio-pci")
        let modules = "/lib/modules/6.1.0/modules.builtin"
        try doctor.host.file(modules, "kernel/drivers/vfio/pci/vfio-pci.ko\n")
        try doctor.expect("vfio/module", .warn, "modprobe vfio-pci")
        doctor.host.remove("/lib/modules")
        try doctor.expect("vfio/module", .unknown, "modprobe vfio-pci")
        try doctor.expect("uio/module", .unknown)
    }

    @Test func `HI-J9: vfio-pci without its container node is told`() throws {
        let doctor = try DoctorHost()
        doctor.host.remove("/dev/vfio/vfio")
        try doctor.expect("vfio/module", .fail, "/dev/vfio/vfio")
    }

    @Test func `HI-J7: the switch that goes without an IOMMU is a warning`() throws {
        let doctor = try DoctorHost()
        let path = "/sys/module/vfio/parameters/enable_unsafe_noiommu_mode"
        for value in ["Y", "1"] {
            try doctor.host.file(path, value + "\n")
            try doctor.expect("iommu/unsafe", .warn, "tainted")
        }
        doctor.host.remove(path)
        try doctor.expect("iommu/unsafe", .ok)
    }

    @Test func `HI-J8: a node that this user may not open is told with the rule that helps`() throws
    {
        let doctor = try DoctorHost()
        try doctor.host.mode("/dev/vfio/vfio", 0o666)
        try doctor.host.mode("/dev/vfio/3", 0o600)
        try doctor.status(user: DoctorHost.user, rights: 0)
        try doctor.expect("vfio/permission", .fail, "mode 600", "SUBSYSTEM==\"vfio\"")
        try doctor.host.mode("/dev/vfio/3", 0o666)
        try doctor.expect("vfio/permission", .ok)
        doctor.host.remove("/proc/self/status")
        try doctor.expect("vfio/permission", .unknown)
    }

    @Test func `HI-J8: a function on vfio-pci whose node is not passed in is told`() throws {
        let doctor = try DoctorHost()
        doctor.host.remove("/dev/vfio/3")
        try doctor.expect("vfio/permission", .fail, "/dev/vfio/3")
    }

    @Test func `HI-J16: a low limit of mappings is told`() throws {
        let doctor = try DoctorHost()
        let path = "/sys/module/vfio_iommu_type1/parameters/dma_entry_limit"
        try doctor.host.file(path, "16\n")
        try doctor.expect("limit/dma-entries", .warn, "echo 65535")
        try doctor.host.file(path, "many\n")
        try doctor.expect("limit/dma-entries", .unknown)
        doctor.host.remove(path)
        try doctor.expect("limit/dma-entries", .unknown, "not loaded")
    }

    @Test func `devices on UIO are a warning, and uio_pci_generic need not be there`() throws {
        let doctor = try DoctorHost()
        try doctor.host.file("/sys/class/uio/uio0/name", "uio_pci_generic\n")
        try doctor.expect("uio/unsafe", .warn, "uio0")
        doctor.host.remove("/lib/modules/6.1.0/modules.dep")
        try doctor.expect("uio/module", .unknown)
        try doctor.host.file("/lib/modules/6.1.0/modules.builtin", "kernel/drivers/a.ko\n")
        try doctor.expect("uio/module", .ok, "no module")
    }

    @Test func `HI-J12: a change that nobody restored is told`() throws {
        let doctor = try DoctorHost()
        // A draft of a record, which a crash left there.
        try doctor.host.file("\(BindingJournal.directory)/\(DoctorHost.address).new", "x")
        try doctor.expect("bind/journal", .ok, "no binding was changed")
        try doctor.host.file("\(BindingJournal.directory)/\(DoctorHost.address)", "x")
        try doctor.host.file("\(DoctorHost.device)/driver_override", "vfio-pci\n")
        try doctor.expect("bind/journal", .ok, DoctorHost.address)
        try doctor.host.file("\(DoctorHost.device)/driver_override", "(null)\n")
        try doctor.expect("bind/journal", .warn, "device restore \(DoctorHost.address)")
    }
}
