import HostSupport
import HostSystem
import Testing

@testable import vhost_pci

@Suite struct DeviceDumpTests {
    @Test func `the emulated device shows configuration space and structures`() throws {
        let dump = try DeviceDump(.emulated, in: .live, unsafeNoIOMMU: false)
        #expect(dump.configuration.count == 512 && dump.configuration.hasPrefix("f41a7e10"))
        #expect(
            dump.ranges.map(\.structure) == [
                "common configuration", "notification", "peer notification", "shared memory",
            ]
        )
        #expect(dump.ranges.first?.bytes.count == 128)
        #expect(dump.ranges.map(\.isCut) == [false, false, true, true])
        #expect(dump.reason == nil)
        #expect(dump.lines.contains { $0.contains("deviceStatus 0x00") })
    }

    @Test func `a function on its kernel driver shows configuration space and says why not more`()
        throws
    {
        let host = try FixtureTree()
        try host.function(
            "0000:03:00.0",
            driver: "virtio-pci",
            configuration: ConfigurationBytes.net().bytes
        )
        let target = try DeviceTarget.parse("0000:03:00.0")
        let dump = try DeviceDump(target, in: host.tree, unsafeNoIOMMU: false)
        #expect(dump.ranges.isEmpty && dump.reason?.contains("virtio-pci") == true)
        #expect(
            dump.lines.dropFirst().first == "00: f4 1a 41 10 00 00 10 00 01 00 00 02 00 00 00 00"
        )
    }

    @Test func `the empty end of extended space is left out for people, and kept for programs`()
        throws
    {
        let host = try FixtureTree()
        var space = ConfigurationBytes.net()
        space.extended(0x0b, at: 0x100, [UInt8](repeating: 1, count: 12))
        try host.function("0000:03:00.0", configuration: space.bytes)
        let target = try DeviceTarget.parse("0000:03:00.0")
        let dump = try DeviceDump(target, in: host.tree, unsafeNoIOMMU: false)
        #expect(dump.configuration.count == 2 * 4096)
        #expect(dump.lines.count == 1 + 17 + 1)
        #expect(dump.lines.suffix(2).first?.hasPrefix("100: 0b 00 01 00 01") == true)
        #expect(dump.lines.last == "zeros up to fff")
    }

    @Test func `HI-J11: an address where nothing is has no dump`() throws {
        let host = try FixtureTree()
        let target = try DeviceTarget.parse("0000:03:00.0")
        #expect(throws: (any Error).self) {
            try DeviceDump(target, in: host.tree, unsafeNoIOMMU: false)
        }
    }
}
