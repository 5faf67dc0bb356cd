import HostSystem
import PCI
import Testing
import VirtioSpec

@testable import Virtio

@Suite struct VirtioPCIRegistersTests {
    private let rig: DriverRig

    init() throws {
        rig = try DriverRig()
    }

    private func read(_ offset: UInt64, _ width: AccessWidth = .long) throws -> UInt32 {
        try rig.bus.readRegister(0, offset, width)
    }

    private func write(
        _ offset: UInt64,
        _ value: UInt32,
        _ width: AccessWidth = .long
    ) throws {
        try rig.bus.writeRegister(0, offset, width, value)
    }

    @Test func `HI-H2: an access over two registers reads and writes both`() throws {
        try rig.negotiate()
        // queue_size and queue_msix_vector in one.
        try write(24, 0x0001_0008)
        #expect(try rig.read(.queueSize) == 8)
        #expect(try rig.read(.queueVector) == 1)
        #expect(try read(24) == 0x0001_0008)
        // num_queues, device_status, config_generation in one.
        #expect(try read(18) == 0x000b_0002)
    }

    @Test func `HI-H2: an access to part of a register keeps the rest`() throws {
        try write(0, 0x0403_0201)
        try write(1, 0xbbaa, .word)
        #expect(try rig.read(.deviceFeatureSelect) == 0x04bb_aa01)
        try write(22, 1, .byte)
        try write(23, 0, .byte)
        #expect(try rig.read(.queueSelect) == 1)
        #expect(try read(3, .long) & 0xff == 4)
    }

    @Test func `HI-H2: an access over the end of a structure reads zeros behind it`() throws {
        #expect(try read(62) == 0)
        #expect(try read(0x0ffe) == 0)
        try write(0x1ffe, 0xffff_ffff)
        try write(0x2006, 0xffff_ffff)
        #expect(rig.device.configuration == [1, 2, 3, 4, 5, 6, 0xff, 0xff])
    }

    @Test(arguments: [0x40, 0x800, 0x0fff, 0x1001, 0x2008, 0x3008, 0x4000, 0x5ffc] as [UInt64])
    func `HI-H1: between structures there is nothing`(_ offset: UInt64) throws {
        for width in AccessWidth.allCases {
            try write(offset, .max, width)
            #expect(try read(offset, .byte) == 0)
        }
    }

    @Test func `HI-H19: only a whole store of the queue's number to its address notifies`() throws {
        let ring = try rig.start()
        ring.post([7])
        let wrong: [(UInt64, UInt32, AccessWidth)] = [
            (0x3000, 0, .byte), (0x3001, 0, .word), (0x3002, 0, .word), (0x3000, 1, .word),
            (0x3000, 0xffff, .word), (0x3002, 0, .long), (0x3003, 0, .byte), (0x3004, 0, .word),
            (0x3004, 1, .word), (0x3006, 0, .long),
        ]
        for (offset, value, width) in wrong { try write(offset, value, width) }
        #expect(rig.device.notifications.isEmpty)
        #expect(rig.function.incidents["notify/index"] == UInt64(wrong.count))
        try write(0x3000, 0, .word)
        #expect(rig.device.notifications == [0])
        #expect(ring.received(1) == [7])
    }

    @Test func `HI-H19: notification data is a hint that nobody needs`() throws {
        let ring = try rig.start()
        ring.post([8])
        try write(0x3000, 0xdead_0000, .long)
        #expect(ring.received(1) == [8])
    }

    @Test func `HI-H19: a notification before DRIVER_OK or after a failure does nothing`() throws {
        let ring = try EchoRing(rig.transport, queue: 0)
        try rig.negotiate()
        try ring.enable()
        ring.post([1])
        try write(0x3000, 0, .word)
        #expect(rig.device.notifications.isEmpty)
        try rig.write(.deviceStatus, 0xf)
        rig.device.context?.fail(DeviceFault("ring/loop", queue: 0))
        try write(0x3000, 0, .word)
        #expect(rig.device.notifications.isEmpty)
    }

    @Test func `HI-H20: one reader gets the interrupt bits, writes do nothing`() throws {
        let rig = self.rig
        try rig.negotiate()
        try rig.write(.deviceStatus, 0xf)
        rig.device.context?.interruptQueue(0)
        rig.device.context?.interruptConfiguration()
        try write(0x1000, 0, .byte)
        #expect(try rig.bus.readConfiguration(ConfigurationHeader.status, .word) & 8 == 8)
        #expect(try read(0x1000, .byte) == 3)
        #expect(try read(0x1000, .byte) == 0)
        #expect(try rig.bus.readConfiguration(ConfigurationHeader.status, .word) & 8 == 0)
    }

    @Test func `HI-H20: with MSI-X the queue bit stays clear`() throws {
        let ring = try rig.start()
        #expect(try ring.echo([1]) == [1])
        #expect(try read(0x1000, .long) == 0)
        rig.device.context?.interruptConfiguration()
        #expect(try read(0x1000, .long) == 2)
    }

    @Test func `HI-H21: an interrupt on a masked vector comes when it is unmasked`() throws {
        let ring = try rig.start()
        try write(0x6000 + 16 + 12, 1)
        #expect(try ring.echo([1]) == [1])
        #expect(ring.interrupt.drain() == 0)
        #expect(try read(0x7000, .long) == 0b10)
        try write(0x7000, 0)
        #expect(try read(0x7000, .byte) == 0b10)
        try write(0x6000 + 16 + 12, 0, .byte)
        #expect(ring.interrupt.drain() == 1)
        #expect(try read(0x7000, .long) == 0)
    }

    @Test func `HI-H21: table accesses of every width at every place are safe`() throws {
        let ring = try rig.start()
        for offset in UInt64(0x6000)..<0x6080 {
            for width in AccessWidth.allCases {
                try write(offset, 0xa5a5_a5a4, width)
                _ = try read(offset, width)
            }
        }
        for offset in [0x6fff, 0x7ffc] as [UInt64] {
            try write(offset, .max, .byte)
            #expect(try read(offset, .byte) == 0)
        }
        #expect(try ring.echo([3]) == [3])
    }

    @Test func `HI-H22: configuration past its end reads 0, read-only bytes stay`() throws {
        #expect(try read(0x2004) == 0x0807_0605)
        #expect(try read(0x2006) == 0x0000_0807)
        #expect(try read(0x2008) == 0)
        try write(0x2000, 0xffff_ffff)
        try write(0x2002, 0xffff_ffff)
        #expect(rig.device.configuration == [1, 2, 3, 4, 5, 6, 7, 8])
        #expect(rig.function.incidents["region/range"] == 2)
        try write(0x2004, 0x0a, .byte)
        #expect(rig.device.configuration[4] == 0x0a)
    }

    @Test func `HI-H22: a change between two reads shows in the generation`() throws {
        let before = try rig.read(.configurationGeneration)
        #expect(try read(0x2000) == 0x0403_0201)
        rig.device.configuration[7] = 0
        #expect(try read(0x2004) == 0x0007_0605)
        rig.device.configuration[7] = 8
        #expect(try rig.read(.configurationGeneration) != before)
        let settled = try rig.read(.configurationGeneration)
        #expect(try rig.read(.configurationGeneration) == settled)
    }

    @Test func `HI-H22: a configuration that shrinks or grows is safe`() throws {
        rig.device.configuration = [9]
        #expect(try read(0x2000) == 9)
        rig.device.configuration = [UInt8](repeating: 7, count: 32)
        #expect(try read(0x2004) == 0x0707_0707)
        #expect(try read(0x2008) == 0)
    }
}
