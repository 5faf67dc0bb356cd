import HostSupport
import HostSystem
import PCI
import Testing

@testable import vhost_pci

@Suite struct DeviceInspectionTests {
    private let address = "0000:03:00.0"

    private func report(_ host: FixtureTree) throws -> DeviceReport {
        try DeviceInspection(
            target: try DeviceTarget.parse(address),
            tree: host.tree,
            unsafeNoIOMMU: false
        ).report()
    }

    private func notes(_ host: FixtureTree) throws -> [String] {
        try report(host).notes.map(\.id)
    }

    private func net(_ space: ConfigurationBytes = .net()) throws -> FixtureTree {
        let host = try FixtureTree()
        try host.function(
            address,
            driver: "virtio-pci",
            group: 3,
            configuration: space.bytes
        )
        try host.file("\(FixtureTree.device(address))/reset_method", "flr\n")
        return host
    }

    @Test func `the emulated device shows its registers`() throws {
        let report = try DeviceInspection(
            target: .emulated,
            tree: .live,
            unsafeNoIOMMU: false
        ).report()
        #expect(report.virtio?.typeName == "management")
        #expect(report.virtio?.status == "RESET")
        #expect(report.virtio?.offered?.contains { $0.name == "VERSION_1" } == true)
        #expect(report.virtio?.queueCount == 3 && report.virtio?.queues?.count == 3)
        #expect(report.host == nil && report.messageVectors == 4)
        let structures = report.capabilities.compactMap { $0.fields["structure"] }
        #expect(structures.contains(.text("peer notification")))
        #expect(structures.contains(.text("shared memory")))
        #expect(report.capabilities.flatMap(\.problems) == [])
    }

    @Test func `a function on its kernel driver shows sysfs, and why not the rest`() throws {
        let host = try net()
        let device = "\(FixtureTree.device(address))/virtio0"
        try host.file("\(device)/features", "0000010000000000" + String(repeating: "0", count: 48))
        try host.file("\(device)/status", "0x0000000f\n")
        let report = try report(host)
        #expect(report.virtio?.negotiated?.map(\.name) == ["MAC"])
        #expect(report.virtio?.status?.contains("DRIVER_OK") == true)
        #expect(report.virtio?.offered == nil && report.virtio?.queues == nil)
        let note = try #require(report.notes.first { $0.id == "device/closed" })
        #expect(note.text.contains("virtio-pci holds the device"))
        #expect(note.remedy == "vhost-pci device bind \(address) --driver vfio-pci")
        #expect(report.notes.count == 1)
    }

    @Test func `a function bound for user space that cannot be opened says why`() throws {
        let host = try net()
        try host.bind(address, to: "vfio-pci")
        let report = try report(host)
        #expect(report.virtio?.offered == nil)
        #expect(report.notes.contains { $0.text.contains("not shown") })
    }

    @Test func `HI-J13: an override that an earlier run left is shown with the cure`() throws {
        let host = try net()
        try host.file("\(FixtureTree.device(address))/driver_override", "vfio-pci\n")
        let note = try #require(try report(host).notes.first { $0.id == "bind/override" })
        #expect(note.remedy == "vhost-pci device restore \(address)")
        try host.bind(address, to: "vfio-pci")
        #expect(try !notes(host).contains("bind/override"))
    }

    @Test func `HI-J30: no MSI-X, no reset and no structures are told before use`() throws {
        let host = try net(ConfigurationBytes(device: 0x1000))
        host.remove("\(FixtureTree.device(address))/reset_method")
        let report = try report(host)
        #expect(report.virtio?.isTransitional == true)
        let texts = report.notes.map(\.text).joined(separator: "\n")
        #expect(texts.contains("interface from before virtio 1.0"))
        #expect(texts.contains("no MSI-X"))
        #expect(texts.contains("no way to reset"))
    }

    @Test func `HI-J30: structures outside their BAR count as none`() throws {
        var space = ConfigurationBytes()
        space.virtio(1, at: 0x40, offset: 0x80000)
        space.virtio(2, at: 0x50, bar: 4, stated: 20, tail: [4, 0, 0, 0])
        let report = try report(try net(space))
        #expect(report.notes.filter { $0.text.contains("no usable") }.count == 2)
    }

    @Test func `HI-J6: a function in no group is told why, in each case`() throws {
        let host = try FixtureTree()
        try host.function(
            address,
            driver: "virtio-pci",
            configuration: ConfigurationBytes.net().bytes
        )
        func text() throws -> String {
            try #require(try report(host).notes.first { $0.id == "iommu/off" }).text
        }
        #expect(try text().contains("firmware describes no IOMMU"))
        try host.file("/proc/cpuinfo", "flags : fpu hypervisor lm\n")
        #expect(try text().contains("virtual machine"))
        try host.file("/sys/firmware/acpi/tables/DMAR", "x")
        #expect(try text().contains("the kernel does not use it"))
        try host.directory("/sys/class/iommu/dmar0")
        #expect(try text().contains("is in no group"))
    }

    @Test func `HI-J28: an unprivileged reader is told what is missing`() throws {
        let host = try net()
        let bytes = ConfigurationBytes.net().bytes
        try host.file("\(FixtureTree.device(address))/config", bytes: Array(bytes.prefix(64)))
        let report = try report(host)
        #expect(report.capabilities.isEmpty)
        #expect(report.notes.contains { $0.text.contains("run as root") })
        #expect(!report.notes.contains { $0.id == "pci/cap" })
    }

    @Test func `HI-A53: a function that is gone says so`() throws {
        let host = try net()
        try host.file(
            "\(FixtureTree.device(address))/config",
            bytes: [UInt8](repeating: 0xff, count: 256)
        )
        #expect(try notes(host).contains("pci/device-gone"))
    }

    @Test func `other members of the group stand in the text`() throws {
        let host = try net()
        try host.function("0000:03:00.1", driver: "e1000e", group: 3)
        let lines = DeviceText(report: try report(host)).lines
        #expect(
            lines.contains {
                $0.contains("also 0000:03:00.1, e1000e, keeps the group from user space")
            }
        )
    }

    @Test func `the text has every capability and note of the report`() throws {
        let report = try report(try net())
        let text = DeviceText(report: report).lines.joined(separator: "\n")
        for capability in report.capabilities {
            #expect(text.contains("[\(HexText.bare(capability.offset, digits: 2))]"))
        }
        for note in report.notes { #expect(text.contains(note.text)) }
    }
}
