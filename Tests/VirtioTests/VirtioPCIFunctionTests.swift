import GuestMemory
import HostSystem
import PCI
import Testing
import VirtioSpec
import Virtqueue

@testable import Virtio

@Suite struct VirtioPCIFunctionTests {
    private let rig: DriverRig

    init() throws {
        rig = try DriverRig()
    }

    private func setCommand(_ command: CommandRegister) throws {
        try rig.bus.writeConfiguration(
            ConfigurationHeader.command,
            .word,
            UInt32(command.rawValue)
        )
    }

    @Test func `the ids are those of a modern virtio function`() throws {
        let function = try VirtioPCIFunction(device: EchoDevice(type: .vhostPCINet))
        #expect(function.readConfiguration(ConfigurationHeader.vendor, .long) == 0x107f_1af4)
        #expect(function.readConfiguration(ConfigurationHeader.revision, .long) == 0x0200_0001)
        #expect(function.readConfiguration(ConfigurationHeader.subsystem, .word) >= 0x40)
        #expect(function.barSize(0) == 0x8000)
        #expect(function.barSize(2) == 0)
    }

    @Test func `VPN-D-08: there is no legacy interface`() throws {
        // Revision 1 or more and no I/O BAR: a transitional driver leaves the function alone.
        let revision = rig.function.readConfiguration(ConfigurationHeader.revision, .byte)
        #expect(revision >= 1)
        for bar in 0..<6 {
            let value = rig.function.readConfiguration(
                ConfigurationHeader.baseAddress(bar),
                .long
            )
            #expect(value & 1 == 0)
        }
        #expect(try rig.transport.deviceFeatures().contains(.version1))
    }

    @Test func `a device that the layout cannot hold is refused`() {
        #expect(throws: PCIError.self) {
            try VirtioPCIFunction(
                device: EchoDevice(queueLimits: [UInt16](repeating: 1, count: 1025))
            )
        }
        #expect(throws: PCIError.self) {
            try VirtioPCIFunction(
                device: EchoDevice(configuration: [UInt8](repeating: 1, count: 4097))
            )
        }
        #expect(throws: PCIError.self) {
            try VirtioPCIFunction(device: EchoDevice(type: DeviceType(64)))
        }
    }

    @Test func `1024 queues get a notify address each and 256 vectors`() throws {
        let device = EchoDevice(queueLimits: [UInt16](repeating: 4, count: 1024))
        let rig = try DriverRig(device)
        #expect(try rig.bus.interruptVectorCount == 256)
        #expect(try rig.transport.queueCount() == 1024)
        let ring = try EchoRing(rig.transport, queue: 0)
        _ = try DriverHandshake.run(rig.transport, wanted: []) { (_) throws(VirtioError) in
            var last = ring.configuration
            last.size = 4
            try rig.transport.enableQueue(1023, last, vector: nil)
        }
        try rig.transport.notifyQueue(1023)
        #expect(device.notifications == [1023])
    }

    @Test func `HI-H13: a reset stops the device before the status reads 0`() throws {
        let ring = try rig.start()
        ring.post([1])
        try rig.write(.deviceStatus, 0)
        #expect(rig.device.deactivations == 1)
        #expect(try rig.status() == 0)
        #expect(try rig.read(.queueEnable) == 0)
        #expect(ring.received(1) == [])
        try rig.write(.deviceStatus, 0)
        #expect(rig.device.deactivations == 1)
    }

    @Test func `HI-H13: a context is dead after the reset`() throws {
        _ = try rig.start()
        let context = try #require(rig.device.context)
        #expect(context.queue(0) != nil)
        try rig.write(.deviceStatus, 0)
        #expect(context.queue(0) == nil)
        #expect(context.memory === MemoryTable.empty)
        context.interruptConfiguration()
        context.fail(DeviceFault("ring/loop"))
        #expect(try rig.status() == 0)
        #expect(try rig.bus.readRegister(0, 0x1000, .byte) == 0)
    }

    @Test func `HI-H15: a device that cannot start asks for a reset and works after it`() throws {
        rig.device.failsToStart = true
        #expect { try rig.start() } throws: { "\($0)".hasPrefix("device/needs-reset") }
        #expect(try rig.status() == 0xcf)
        #expect(rig.function.fault == DeviceFault("ring/area", queue: 0))
        #expect(rig.function.incidents["ring/area"] == 1)
        rig.device.failsToStart = false
        let ring = try rig.start()
        #expect(try ring.echo([4]) == [4])
        #expect(rig.function.fault == nil)
    }

    @Test func `HI-A48: a failure is told once by the configuration interrupt`() throws {
        let ring = try rig.start()
        let event = try rig.transport.interrupt(0)
        try rig.transport.bindConfigurationVector(0)
        rig.device.context?.fail(DeviceFault("ring/loop", queue: 0))
        rig.device.context?.fail(DeviceFault("ring/unmapped", queue: 1, address: 7))
        #expect(event.drain() == 1)
        #expect(rig.function.fault?.id == "ring/loop")
        #expect { try rig.transport.requireHealthy() } throws: {
            "\($0)".hasPrefix("device/needs-reset")
        }
        #expect(try ring.echo([1]) == [])
        #expect(ring.interrupt.drain() == 0)
    }

    @Test func `HI-H23: with memory decoding off, registers read ones and take nothing`() throws {
        try rig.negotiate()
        try setCommand(.busMaster)
        for width in AccessWidth.allCases {
            let ones = UInt32.max >> UInt32(32 - 8 * width.rawValue)
            for offset in [0, 0x1000, 0x2000, 0x3000, 0x6000, 0x7000] as [UInt64] {
                #expect(try rig.bus.readRegister(0, offset, width) == ones)
            }
        }
        try rig.write(.deviceStatus, 0)
        try rig.write(.queueSelect, 1)
        try setCommand([.busMaster, .memorySpace])
        #expect(try rig.status() == 0xb)
        #expect(try rig.read(.queueSelect) == 0)
    }

    @Test func `HI-H23: with bus mastering off the device reaches no memory`() throws {
        let ring = try rig.start()
        try setCommand(.memorySpace)
        #expect(try ring.echo([6]) == [])
        #expect(rig.device.context?.memory === MemoryTable.empty)
        rig.device.context?.interruptQueue(0)
        #expect(ring.interrupt.drain() == 0)
        // The message was held back, not lost.
        try setCommand([.memorySpace, .busMaster])
        #expect(ring.interrupt.drain() == 1)
        rig.device.serve(0)
        #expect(ring.received(1) == [6])
    }

    @Test func `HI-H24: a function reset stops the device and forgets everything`() throws {
        let ring = try rig.start()
        let fresh = try VirtioPCIFunction(device: EchoDevice())
        ring.post([1])
        rig.function.reset()
        #expect(rig.device.deactivations == 1)
        #expect(rig.function.readConfiguration(ConfigurationHeader.command, .word) == 0)
        for offset in stride(from: 0, to: 256, by: 4) {
            #expect(
                rig.function.readConfiguration(offset, .long)
                    == fresh.readConfiguration(offset, .long)
            )
        }
        try setCommand([.memorySpace, .busMaster])
        #expect(try rig.status() == 0)
        #expect(try rig.bus.readRegister(0, 0x6000 + 16 + 12, .long) == 1)
        let again = try DriverRig(rig.device)
        #expect(try again.start().echo([2]) == [2])
    }

    @Test func `HI-H12: two functions do not notice each other's failure`() throws {
        let other = try DriverRig()
        let ring = try other.start()
        _ = try rig.start()
        rig.device.context?.fail(DeviceFault("ring/loop"))
        #expect(try ring.echo([9, 9]) == [9, 9])
        try other.transport.requireHealthy()
    }
}
