import ArgumentParser
import HostSupport
import PCI
import Testing

@testable import vhost_pci

@Suite struct DeviceTargetTests {
    @Test func `addresses and the emulated device are targets`() throws {
        let address = try #require(PCIAddress("0000:03:00.0"))
        #expect(try DeviceTarget.parse("0000:03:00.0") == .pci(address))
        #expect(try DeviceTarget.parse("03:00.0") == .pci(address))
        #expect(try DeviceTarget.parse("emulated") == .emulated)
        #expect(try DeviceTarget.parse("vfio-user:/tmp/a") == .vfioUser(path: "/tmp/a"))
        #expect("\(try DeviceTarget.parse("vfio-user:a:b"))" == "vfio-user:a:b")
    }

    @Test(arguments: ["vfio-user:", "vfio-user:/" + String(repeating: "x", count: 107)])
    func `HI-J11: a socket without a path, or with one too long, is refused`(text: String) {
        #expect(throws: ValidationError.self) { try DeviceTarget.parse(text) }
    }

    @Test func `a server that is not there is named with what to do`() throws {
        let target = try DeviceTarget.parse("vfio-user:/tmp/vhost-pci-no-such-socket")
        #expect {
            try target.open(unsafeNoIOMMU: false)
        } throws: { error in
            let failure = CommandFailure(error)
            return failure.error.id == "vfu/socket" && failure.error.remedy != nil
        }
        #expect(throws: PCIError.self) { try target.address(for: "binding") }
    }

    @Test(arguments: [
        "", "3:0.0", "0000:03:00", "0000:03:00.8", "0000:03:20.0", "eth0", "vfio", "Emulated",
        "0000:03:00.0 ", "../../etc/passwd", "0000:03:00.0\u{0}", "00000000:03:00.00",
    ])
    func `HI-J11: what is no target is refused by name`(text: String) {
        #expect {
            try DeviceTarget.parse(text)
        } throws: { error in
            (error as? ValidationError)?.message.hasPrefix("pci/address: ") == true
        }
    }

    @Test(arguments: ["vfio-pci", "uio_pci_generic"])
    func `HI-J10: a driver given as the target is noticed`(text: String) {
        #expect {
            try DeviceTarget.parse(text)
        } throws: { error in
            (error as? ValidationError)?.message.hasPrefix("bind/driver: ") == true
        }
    }

    @Test(arguments: ["vhost-user:/tmp/a", "emulated:net"])
    func `targets of later versions are not supported`(text: String) {
        #expect {
            try DeviceTarget.parse(text)
        } throws: { error in
            (error as? ValidationError)?.message.hasPrefix("not supported: ") == true
        }
    }

    @Test(arguments: [
        ("eth7", "0000:03:00.0"), ("vdq", "0000:03:00.0"), ("3:0.0", "0000:03:00.0"),
        ("0:4:10.1", "0000:04:10.1"), ("0000:03:00.8", "0000:03:00.0"), ("04:10", "0000:04:10.1"),
    ])
    func `HI-J11: what was probably meant is offered`(typed: (String, String)) throws {
        let host = try FixtureTree()
        try host.function("0000:03:00.0", driver: "virtio-pci")
        try host.function("0000:04:10.1")
        try host.interface("eth7", of: "0000:03:00.0")
        try host.disk("vdq", of: "0000:03:00.0")
        #expect(DeviceTarget.nearest(to: typed.0, in: host.tree) == typed.1)
    }

    @Test(arguments: ["", "x", "eth8", "9:9.9", "../../eth7", "::::", "ffffffffffffffffffff:0.0"])
    func `HI-J11: what is near to nothing has no offer`(typed: String) throws {
        let host = try FixtureTree()
        try host.function("0000:03:00.0")
        #expect(DeviceTarget.nearest(to: typed, in: host.tree) == nil)
    }

    @Test func `HI-J11: opening an address where nothing is names the nearest`() throws {
        let host = try FixtureTree()
        try host.function("0000:03:01.0", driver: "vfio-pci")
        let target = try DeviceTarget.parse("0000:03:00.0")
        #expect {
            try target.open(unsafeNoIOMMU: false, in: host.tree)
        } throws: { error in
            "\(error)".hasPrefix("pci/address") && "\(error)".contains("0000:03:01.0")
        }
    }

    @Test func `a function on its kernel driver is not opened`() throws {
        let host = try FixtureTree()
        try host.function("0000:03:00.0", driver: "virtio-pci")
        let target = try DeviceTarget.parse("0000:03:00.0")
        #expect {
            try target.open(unsafeNoIOMMU: true, in: host.tree)
        } throws: { error in
            "\(error)".hasPrefix("vfio/driver") && "\(error)".contains("device bind")
        }
    }
}
