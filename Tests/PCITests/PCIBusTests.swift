import HostSupport
import HostSystem
import PCI
import Testing

@Suite struct PCIBusTests {
    private let address = "0000:03:00.0"

    private func record(_ host: FixtureTree) throws -> PCIBus.Record {
        try PCIBus.find(try #require(PCIAddress(address)), in: host.tree)
    }

    @Test func `an address without a function is no error`() throws {
        let address = try #require(PCIAddress("fffe:ff:1f.7"))
        #expect(try PCIBus.identify(address) == nil)
    }

    @Test func `the functions of this machine have ids`() throws {
        for record in try PCIBus.functions() {
            #expect(record.identity.vendor != 0 && record.identity.vendor != 0xffff)
            #expect(!record.name.isEmpty && !record.className.isEmpty)
            #expect(try PCIBus.identify(record.address) == record)
        }
    }

    @Test func `functions are listed in the order of their addresses`() throws {
        let host = try FixtureTree()
        for address in ["0001:00:00.0", "0000:03:00.1", "0000:03:00.0", "0000:00:1f.7"] {
            try host.function(address)
        }
        #expect(
            try PCIBus.functions(in: host.tree).map(\.address.description)
                == ["0000:00:1f.7", "0000:03:00.0", "0000:03:00.1", "0001:00:00.0"]
        )
    }

    @Test func `a host without a PCI bus has no functions`() throws {
        let host = try FixtureTree(hasBus: false)
        #expect(try PCIBus.functions(in: host.tree).isEmpty)
        let empty = try FixtureTree()
        #expect(try PCIBus.functions(in: empty.tree).isEmpty)
    }

    @Test func `what sysfs says is in the record`() throws {
        let host = try FixtureTree()
        try host.function(address, driver: "virtio-pci", group: 7)
        try host.function("0000:03:00.1", classCode: 0x060400, driver: "pcieport", group: 7)
        try host.interface("eth7", of: address)
        try host.disk("vdq", of: address)
        let place = FixtureTree.device(address)
        try host.file("\(place)/reset_method", "flr bus\n")
        try host.file("\(place)/numa_node", "1\n")
        try host.file("\(place)/power_state", "D0\n")
        try host.file("\(place)/current_link_speed", "8.0 GT/s PCIe\n")
        try host.file("\(place)/current_link_width", "4\n")
        try host.file("\(place)/max_link_speed", "16.0 GT/s PCIe\n")
        try host.file("\(place)/max_link_width", "8\n")
        try host.file("\(place)/virtio0/features", "1100000000" + String(repeating: "0", count: 54))
        try host.file("\(place)/virtio0/status", "0x0000000f\n")
        let record = try record(host)
        #expect(record.driver == "virtio-pci")
        #expect(record.group?.number == 7 && record.group?.type == "DMA-FQ")
        #expect(record.group?.members.map(\.driver) == ["virtio-pci", "pcieport"])
        #expect(record.group?.members.map(\.isInTheWay) == [true, false])
        #expect(record.resetMethods == ["flr", "bus"])
        #expect(record.node == 1)
        #expect(record.powerState == "D0")
        #expect(record.link?.isDegraded == true && record.link?.width == 4)
        #expect(record.interfaces == ["eth7"])
        #expect(record.disks == ["vdq"])
        #expect(record.virtioDevice?.negotiatedFeatures == 3)
        #expect(record.virtioDevice?.status == 15)
        #expect(record.resources.map(\.size) == [0x80000])
        #expect(record.resources.first?.is64Bit == true)
        #expect(record.isVirtio && !record.identity.isTransitionalVirtio)
        #expect(record.identity.classCode == 0x020000)
    }

    @Test func `HI-J13: an override left behind is in the record, none is not`() throws {
        let host = try FixtureTree()
        try host.function(address)
        #expect(try record(host).driverOverride == nil)
        try host.file("\(FixtureTree.device(address))/driver_override", "\n")
        #expect(try record(host).driverOverride == nil)
        try host.file("\(FixtureTree.device(address))/driver_override", "vfio-pci\n")
        #expect(try record(host).driverOverride == "vfio-pci")
    }

    @Test func `HI-J11: a function that is not there is refused with the nearest ones`() throws {
        let host = try FixtureTree()
        for address in ["0000:03:00.1", "0000:03:01.0", "0000:80:00.0", "0001:03:00.0"] {
            try host.function(address)
        }
        #expect {
            try record(host)
        } throws: { error in
            guard case PCIError.refused(let refusal)? = error as? PCIError else { return false }
            return refusal.id == "pci/address"
                && refusal.detail.contains("0000:03:00.1, 0000:03:01.0, 0000:80:00.0")
                && !refusal.detail.contains("0001:")
        }
    }

    @Test func `HI-J11: on a host without functions that is said`() throws {
        let host = try FixtureTree()
        #expect {
            try record(host)
        } throws: { error in
            "\(error)".hasPrefix("pci/address") && "\(error)".contains("lists none")
        }
    }

    @Test func `nonsense in sysfs is left out, not believed`() throws {
        let host = try FixtureTree()
        try host.function(address, resource: "x y z")
        let place = FixtureTree.device(address)
        for file in ["numa_node", "sriov_totalvfs", "current_link_width", "reset_method"] {
            try host.file("\(place)/\(file)", "\u{0}nonsense 99999999999999999999\n")
        }
        try host.link("\(place)/iommu_group", to: "not-a-number")
        try host.link("\(place)/physfn", to: "../elsewhere")
        try host.link("\(place)/virtfn0", to: "../nowhere")
        try host.directory("\(place)/virtio")
        let record = try record(host)
        #expect(record.node == nil && record.group == nil && record.link == nil)
        #expect(record.physicalFunction == nil && record.virtualFunctions.isEmpty)
        #expect(record.resources.isEmpty && record.maximumVirtualFunctions == nil)
        #expect(record.virtioDevice == nil)
    }

    @Test func `resource lines that end before they start, or are too many, are left out`() throws {
        let host = try FixtureTree()
        let bad = "0x0000000000002000 0x0000000000001000 0x0000000000000200"
        let all = "0x0000000000000000 0xffffffffffffffff 0x0000000000000200"
        try host.function(address, resource: [bad, all].joined(separator: "\n"))
        #expect(try record(host).resources.isEmpty)
        let port = "0x000000000000c000 0x000000000000c01f 0x0000000000040101"
        let many = Array(repeating: port, count: 12).joined(separator: "\n")
        try host.file("\(FixtureTree.device(address))/resource", many)
        #expect(try record(host).resources.map(\.number) == Array(0...6))
        #expect(try record(host).resources.first?.isPortIO == true)
    }

    @Test func `SR-IOV shows both ends`() throws {
        let host = try FixtureTree()
        try host.function(address)
        try host.function("0000:03:00.2")
        try host.file("\(FixtureTree.device(address))/sriov_totalvfs", "8\n")
        try host.link("\(FixtureTree.device(address))/virtfn0", to: "../0000:03:00.2")
        try host.link("\(FixtureTree.device("0000:03:00.2"))/physfn", to: "../\(address)")
        let record = try record(host)
        #expect(record.maximumVirtualFunctions == 8)
        #expect(record.virtualFunctions.map(\.description) == ["0000:03:00.2"])
        let other = try #require(PCIAddress("0000:03:00.2"))
        #expect(try PCIBus.find(other, in: host.tree).physicalFunction == record.address)
    }
}
