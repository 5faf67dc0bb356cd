import HostSystem
import PCI
import Testing
import VirtioSpec

@testable import Virtio

/// Resetting one queue while the device runs (VIRTIO_F_RING_RESET, virtio 1.3 §4.1.4.3.1).
@Suite struct QueueResetTests {
    private final class ResettableDevice: EchoDevice, QueueResettable {
        var resets: [Int] = []
        var restarts: [Int] = []

        func queueReset(_ queue: Int) {
            resets.append(queue)
            forget(queue)
        }

        func queueEnabled(_ queue: Int) { restarts.append(queue) }
    }

    private let device: ResettableDevice
    private let rig: DriverRig
    private let ring: EchoRing

    init() throws {
        device = ResettableDevice()
        device.offeredFeatures = .ringReset
        rig = try DriverRig(device)
        ring = try rig.start(wanted: .ringReset)
    }

    @Test func `HI-H16: a queue is reset under traffic and set up again`() throws {
        #expect(try ring.echo([1]) == [1])
        ring.post([2])
        try rig.transport.resetQueue(0)
        #expect(device.resets == [0])
        #expect(device.context?.queue(0) == nil)
        #expect(throws: VirtioError.self) { try rig.transport.notifyQueue(0) }
        try rig.bus.writeRegister(0, 0x3000, .word, 0)
        #expect(device.notifications == [0])
        let fresh = try EchoRing(rig.transport, queue: 0)
        try fresh.enable()
        #expect(device.restarts == [0])
        #expect(try fresh.echo([3]) == [3])
        #expect(fresh.interrupt.drain() == 2)
    }

    @Test func `HI-H16: a second reset and one of an absent queue do nothing`() throws {
        for queue: UInt32 in [0, 0, 1, 2, 0xffff] {
            try rig.write(.queueSelect, queue)
            try rig.write(.queueReset, 1)
            #expect(try rig.read(.queueReset) == 0)
        }
        #expect(device.resets == [0])
    }

    @Test(arguments: [0, 2, 0xffff] as [UInt32])
    func `HI-H16: only 1 resets`(_ value: UInt32) throws {
        try rig.write(.queueSelect, 0)
        try rig.write(.queueReset, value)
        #expect(device.resets.isEmpty)
        #expect(try ring.echo([4]) == [4])
    }

    @Test func `HI-H14: a queue that was reset starts with everything to be set up`() throws {
        try rig.transport.resetQueue(0)
        #expect(try rig.read(.queueSize) == 16)
        #expect(try rig.read(.queueVector) == 0xffff)
        #expect(try rig.read(.queueDescriptorLow) == 0)
        try rig.write(.queueEnable, 1)
        #expect(try rig.read(.queueEnable) == 0)
        // The other queue was never reset and stays closed.
        try rig.write(.queueSelect, 1)
        try rig.write(.queueSize, 8)
        #expect(try rig.read(.queueSize) == 16)
    }

    @Test func `HI-H16: without the feature nothing is reset`() throws {
        _ = try rig.start(wanted: [])
        #expect(throws: Never.self) { try rig.write(.queueReset, 1) }
        #expect(device.resets.isEmpty)
        #expect(throws: VirtioError.self) { try rig.transport.resetQueue(0) }
    }
}
