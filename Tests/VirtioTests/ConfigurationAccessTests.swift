import PCI
import Testing
import VirtioSpec

@testable import Virtio

/// The capability that reaches BARs through configuration space (virtio 1.3 §4.1.4.9).
@Suite struct ConfigurationAccessTests {
    private let rig: DriverRig
    private let at: Int

    init() throws {
        rig = try DriverRig(try WindowedEchoDevice())
        let bus = rig.bus
        let entries = try CapabilityList(bus).entries.filter { $0.identifier == 0x09 }
        let access = try entries.filter { try bus.readConfiguration($0.offset + 3, .byte) == 5 }
        try #require(access.count == 1)
        at = access[0].offset
    }

    private func aim(_ bar: UInt32, _ offset: UInt32, _ length: UInt32) throws {
        try rig.bus.writeConfiguration(at + VirtioCapability.accessBAR, .byte, bar)
        try rig.bus.writeConfiguration(at + VirtioCapability.accessOffset, .long, offset)
        try rig.bus.writeConfiguration(at + VirtioCapability.accessLength, .long, length)
    }

    private func read(_ width: AccessWidth = .long) throws -> UInt32 {
        try rig.bus.readConfiguration(at + VirtioCapability.accessBytes, width)
    }

    private func write(_ value: UInt32, _ width: AccessWidth = .long) throws {
        try rig.bus.writeConfiguration(at + VirtioCapability.accessBytes, width, value)
    }

    @Test func `a device can be driven before its BARs are placed`() throws {
        try rig.bus.writeConfiguration(ConfigurationHeader.command, .word, 0)
        try aim(0, 20, 1)
        for status: UInt32 in [0, 1, 3] { try write(status, .byte) }
        #expect(try read(.byte) == 3)
        try aim(0, 18, 2)
        #expect(try read() & 0xffff == 2)
    }

    @Test func `HI-H18: the length given bounds the access`() throws {
        try rig.negotiate()
        try aim(0, 22, 2)
        try write(0xffff_0001)
        #expect(try rig.read(.queueSelect) == 1)
        #expect(try rig.read(.queueSize) == 16)
        try aim(0, 20, 1)
        try write(0xffff_ff00)
        #expect(try rig.status() == 0)
    }

    @Test(
        arguments: [
            (6, 0, 4), (255, 0, 4), (1, 0, 4), (3, 0, 4), (5, 0, 4), (0, 0, 0), (0, 0, 3),
            (0, 0, 8),
            (0, 0, 0xffff_ffff), (0, 2, 4), (0, 1, 2), (0, 64, 4), (0, 0x1004, 1), (0, 0x6000, 4),
            (0, 0x7000, 4), (0, 0x8000, 4), (0, 0xffff_fffc, 4), (2, 0x10000, 4),
            (2, 0xffff_fffc, 4),
        ] as [(UInt32, UInt32, UInt32)]
    )
    func `HI-H18: a window aimed wrong reads and writes nothing`(
        _ bar: UInt32,
        _ offset: UInt32,
        _ length: UInt32
    ) throws {
        try aim(0, 0, 4)
        try write(0x5555_aaaa)
        #expect(try read() == 0x5555_aaaa)
        try aim(bar, offset, length)
        #expect(try read() == 0x5555_aaaa)
        try write(0x1111_2222)
        #expect(try read() == 0x5555_aaaa)
        #expect(try rig.read(.deviceFeatureSelect) == 0x5555_aaaa)
        #expect(rig.function.incidents["region/range"] == 1)
    }

    @Test func `HI-H18, HI-H20: reading interrupt status through it takes the bits`() throws {
        try rig.negotiate()
        try rig.write(.deviceStatus, 0xf)
        rig.device.context?.interruptConfiguration()
        try aim(0, 0x1000, 1)
        #expect(try read(.byte) == 2)
        #expect(try read(.byte) == 0)
    }

    @Test func `HI-H3: only the fields that aim can be written`() throws {
        let before = try rig.bus.readConfiguration(at, .long)
        for offset in [0, 1, 2, 3, 5, 6, 7] {
            try rig.bus.writeConfiguration(at + offset, .byte, 0xff)
        }
        #expect(try rig.bus.readConfiguration(at, .long) == before)
        #expect(try rig.bus.readConfiguration(at + 4, .long) == 0)
    }

    @Test func `the window of BAR 2 can be reached through it`() throws {
        try aim(2, 0xfffc, 4)
        try write(0x0403_0201)
        #expect(try read() == 0x0403_0201)
        #expect(try rig.bus.readRegister(2, 0xfffd, .word) == 0x0302)
    }
}
