import HostSupport
import HostSystem
import Testing

@testable import vhost_pci

@Suite struct DeviceListTests {
    @Test func `functions and their uses are listed`() throws {
        let host = try FixtureTree()
        try host.function("0000:03:00.0", driver: "virtio-pci", group: 4)
        try host.interface("eth7", of: "0000:03:00.0")
        try host.function("0000:00:00.0", vendor: 0x8086, device: 0x29c0)
        let list = try DeviceList(in: host.tree, onlyVirtio: false)
        #expect(list.devices.map(\.address) == ["0000:00:00.0", "0000:03:00.0"])
        #expect(list.devices.map(\.virtioType) == [nil, "virtio-net"])
        #expect(list.devices.last?.uses == ["eth7"] && list.devices.last?.group == 4)
        #expect(list.reason == nil && list.lines.count == 3)
        #expect(try DeviceList(in: host.tree, onlyVirtio: true).devices.count == 1)
    }

    @Test func `an empty list says why`() throws {
        let bare = try FixtureTree(hasBus: false)
        let none = try DeviceList(in: bare.tree, onlyVirtio: false)
        #expect(none.reason?.contains("no PCI bus") == true)
        let quiet = try FixtureTree()
        let empty = try DeviceList(in: quiet.tree, onlyVirtio: true)
        #expect(empty.reason?.contains("is empty") == true)
        let host = try FixtureTree()
        try host.function("0000:00:00.0", vendor: 0x8086, device: 0x29c0)
        let other = try DeviceList(in: host.tree, onlyVirtio: true)
        #expect(other.lines == ["none of the 1 PCI functions is a virtio function"])
    }

    @Test func `HI-J13: an override that waits stands in the list`() throws {
        let host = try FixtureTree()
        try host.function("0000:03:00.0", driver: "virtio-pci")
        try host.file("\(FixtureTree.device("0000:03:00.0"))/driver_override", "vfio-pci\n")
        let list = try DeviceList(in: host.tree, onlyVirtio: false)
        #expect(list.lines.last?.contains("virtio-pci (wants vfio-pci)") == true)
    }
}
