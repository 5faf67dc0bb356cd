import HostSystem
import PCI
import Testing
import VirtioSpec

@testable import Virtio

@Suite struct CommonRegistersTests {
    private let rig: DriverRig

    init() throws {
        rig = try DriverRig()
    }

    private static let queueRegisters: [CommonConfiguration] = [
        .queueSize, .queueVector, .queueEnable, .queueNotifyOffset, .queueDescriptorLow,
        .queueDescriptorHigh, .queueDriverLow, .queueDriverHigh, .queueDeviceLow,
        .queueDeviceHigh, .queueNotifyConfigurationData, .queueReset,
    ]

    private func writeAddresses() throws {
        try rig.write(.queueDescriptorLow, 0x1000)
        try rig.write(.queueDriverLow, 0x2000)
        try rig.write(.queueDeviceLow, 0x3000)
    }

    @Test(arguments: [2, 3, 1023, 0x7fff, 0xffff] as [UInt32])
    func `HI-H10: a queue that does not exist has no registers`(_ queue: UInt32) throws {
        try rig.negotiate()
        try rig.write(.queueSelect, queue)
        for register in Self.queueRegisters {
            try rig.write(register, 1)
            let expected: UInt32 = register == .queueVector ? 0xffff : 0
            #expect(try rig.read(register) == expected)
        }
        #expect(try rig.read(.queueSelect) == queue)
        try rig.write(.queueSelect, 0)
        #expect(try rig.read(.queueSize) == 16)
    }

    @Test func `HI-H10, AVQ-D-903: a queue that is not available has no registers`() throws {
        rig.device.queueLimits = [16, 0]
        try rig.negotiate()
        try rig.write(.queueSelect, 1)
        try writeAddresses()
        try rig.write(.queueEnable, 1)
        for register in Self.queueRegisters where register != .queueVector {
            #expect(try rig.read(register) == 0)
        }
    }

    @Test func `HI-H11: a vector past the table reads back as no vector`() throws {
        for register in [CommonConfiguration.configurationVector, .queueVector] {
            try rig.write(register, 2)
            #expect(try rig.read(register) == 2)
            for vector: UInt32 in [3, 256, 0x7fff, 0xfffe, 0xffff] {
                try rig.write(register, vector)
                #expect(try rig.read(register) == 0xffff)
            }
        }
    }

    @Test func `HI-H11: no vector means no interrupt`() throws {
        let ring = try rig.start()
        try rig.write(.queueSelect, 0)
        try rig.write(.queueVector, 77)
        #expect(try ring.echo([1]) == [1])
        #expect(ring.interrupt.drain() == 0)
    }

    @Test func `HI-H12: the status register is the status machine`() throws {
        try rig.write(.deviceStatus, 0xf)
        #expect(try rig.status() == 3)
        try rig.negotiate()
        try rig.write(.deviceStatus, 1)
        #expect(try rig.status() == 0xb)
        #expect(rig.function.incidents["init/features"] == 1)
        #expect(rig.function.incidents["ring/order"] == 1)
        #expect(rig.device.activations == 0)
    }

    @Test func `HI-H12: features that were not offered leave FEATURES_OK off`() throws {
        try rig.negotiate([.version1, .ringPacked])
        #expect(try rig.status() == 3)
        #expect(rig.function.incidents["init/features"] == 1)
    }

    @Test func `HI-H14: a queue cannot be set up before FEATURES_OK`() throws {
        try rig.write(.queueSize, 8)
        try writeAddresses()
        try rig.write(.queueEnable, 1)
        #expect(try rig.read(.queueSize) == 16)
        #expect(try rig.read(.queueDescriptorLow) == 0)
        #expect(try rig.read(.queueEnable) == 0)
        #expect(rig.function.incidents["ring/order"] == 5)
    }

    @Test func `HI-H14: a queue cannot be set up after DRIVER_OK`() throws {
        _ = try rig.start()
        try rig.write(.queueSelect, 1)
        try rig.write(.queueSize, 8)
        try writeAddresses()
        try rig.write(.queueEnable, 1)
        #expect(try rig.read(.queueSize) == 16)
        #expect(try rig.read(.queueEnable) == 0)
        #expect(rig.device.context?.queue(1) == nil)
        #expect(rig.function.incidents["ring/order"] == 5)
    }

    @Test func `HI-H14: an enabled queue is neither resized, moved nor disabled`() throws {
        try rig.negotiate()
        try writeAddresses()
        try rig.write(.queueEnable, 1)
        try rig.write(.queueSize, 8)
        try rig.write(.queueDescriptorLow, 0x9000)
        try rig.write(.queueDeviceHigh, 1)
        try rig.write(.queueEnable, 0)
        #expect(try rig.read(.queueSize) == 16)
        #expect(try rig.read(.queueDescriptorLow) == 0x1000)
        #expect(try rig.read(.queueDeviceHigh) == 0)
        #expect(try rig.read(.queueEnable) == 1)
    }

    @Test func `HI-H14: a queue without all its addresses is not enabled`() throws {
        try rig.negotiate()
        try rig.write(.queueEnable, 1)
        try rig.write(.queueDescriptorLow, 0x1000)
        try rig.write(.queueDeviceLow, 0x3000)
        try rig.write(.queueDriverHigh, 1)
        try rig.write(.queueEnable, 1)
        #expect(try rig.read(.queueEnable) == 0)
        try rig.write(.queueDriverLow, 0)
        for value: UInt32 in [0, 2, 0xffff] {
            try rig.write(.queueEnable, value)
            #expect(try rig.read(.queueEnable) == 0)
        }
        try rig.write(.queueEnable, 1)
        #expect(try rig.read(.queueEnable) == 1)
    }

    @Test(arguments: [0, 3, 17, 32, 0x8000, 0xffff] as [UInt32])
    func `HI-H14: a size that the queue cannot have is not taken`(_ size: UInt32) throws {
        try rig.negotiate()
        try rig.write(.queueSize, size)
        #expect(try rig.read(.queueSize) == 16)
        #expect(rig.function.incidents["ring/size"] == 1)
    }

    @Test func `HI-H14: features do not change after FEATURES_OK`() throws {
        try rig.negotiate()
        try rig.transport.setDriverFeatures([.version1, .accessPlatform])
        try rig.write(.driverFeatureSelect, 1)
        #expect(try rig.read(.driverFeature) == 1)
    }

    @Test func `HI-H16: without RING_RESET the reset register stays 0`() throws {
        let ring = try rig.start()
        for queue: UInt32 in [0, 1, 9] {
            try rig.write(.queueSelect, queue)
            try rig.write(.queueReset, 1)
            #expect(try rig.read(.queueReset) == 0)
        }
        #expect(try ring.echo([5]) == [5])
    }

    @Test(arguments: [2, 3, 0xffff_ffff] as [UInt32])
    func `HI-H17: feature words beyond those defined read 0`(_ select: UInt32) throws {
        try rig.write(.deviceFeatureSelect, select)
        try rig.write(.driverFeatureSelect, select)
        try rig.write(.driverFeature, .max)
        #expect(try rig.read(.deviceFeature) == 0)
        #expect(try rig.read(.driverFeature) == 0)
        #expect(try rig.read(.deviceFeatureSelect) == select)
    }

    @Test func `read-only registers keep their value`() throws {
        let fixed: [CommonConfiguration] = [
            .deviceFeature, .queueCount, .configurationGeneration, .queueNotifyOffset,
            .queueNotifyConfigurationData, .adminQueueIndex, .adminQueueCount,
        ]
        try rig.negotiate()
        for register in fixed {
            let before = try rig.read(register)
            try rig.write(register, ~before)
            #expect(try rig.read(register) == before)
        }
        #expect(try rig.read(.queueCount) == 2)
        #expect(try rig.read(.adminQueueCount) == 0)
    }
}
