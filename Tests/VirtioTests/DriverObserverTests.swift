import HostSystem
import PCI
import Testing
import VirtioSpec

@testable import Virtio

/// What a function tells a device whose threads work in the driver's memory.
@Suite struct DriverObserverTests {
    private let rig: DriverRig
    private let device: WindowedEchoDevice

    init() throws {
        device = try WindowedEchoDevice()
        rig = try DriverRig(device)
    }

    private func setCommand(_ command: CommandRegister) throws {
        try rig.bus.writeConfiguration(
            ConfigurationHeader.command,
            .word,
            UInt32(command.rawValue)
        )
    }

    @Test func `a change of the driver's memory is told while the device runs, and only then`()
        throws
    {
        _ = try rig.transport.makeArena(size: 4096)
        #expect(device.memories.isEmpty)
        _ = try rig.start()
        let before = device.memories.count
        _ = try rig.transport.makeArena(size: 4096)
        #expect(device.memories.count == before + 1)
        #expect(device.memories.last == true)
        try rig.transport.reset()
        _ = try rig.transport.makeArena(size: 4096)
        #expect(device.memories.count == before + 1)
    }

    @Test func `HI-H23: without bus mastering the device is told that nothing is reached`() throws {
        _ = try rig.start()
        let before = device.memories.count
        try setCommand([.memorySpace])
        #expect(device.memories.count == before + 1)
        #expect(device.memories.last == false)
        try setCommand([])
        #expect(device.memories.count == before + 1)
        try setCommand([.memorySpace, .busMaster])
        #expect(device.memories.count == before + 2)
        #expect(device.memories.last == true)
    }

    @Test func `HI-E13: a thread that stays in former memory shows, also after a reset`() throws {
        #expect(!rig.function.isFormerMemoryInUse)
        _ = try rig.start()
        device.isFormerMemoryInUse = true
        #expect(rig.function.isFormerMemoryInUse)
        try rig.transport.reset()
        #expect(rig.function.isFormerMemoryInUse)
        device.isFormerMemoryInUse = false
        #expect(!rig.function.isFormerMemoryInUse)
    }

    @Test func `a lost driver is told while the device runs, and only then`() throws {
        rig.function.clientGone()
        #expect(device.losses == 0)
        try setCommand([.memorySpace, .busMaster])
        _ = try rig.start()
        rig.function.clientGone()
        #expect(device.losses == 1)
        #expect(device.deactivations == 1)
        try setCommand([.memorySpace, .busMaster])
        try rig.transport.reset()
        #expect(device.deactivations == 1)
        rig.function.clientGone()
        #expect(device.losses == 1)
    }

    @Test func `VFU-S-60: nothing of a lost driver is used on what the next one shows`() throws {
        let rig = try DriverRig()
        let ring = try rig.start()
        #expect(try ring.echo([1, 2, 3]) == [1, 2, 3])
        rig.function.clientGone()
        #expect(rig.device.deactivations == 1)
        let command = try rig.bus.readConfiguration(ConfigurationHeader.command, .word)
        let isMaster = CommandRegister(rawValue: UInt16(truncatingIfNeeded: command))
            .contains(.busMaster)
        #expect(!isMaster)
        // Another driver looks before it resets: the registers are those of a machine switched on.
        try rig.bus.writeConfiguration(
            ConfigurationHeader.command,
            .word,
            UInt32(CommandRegister([.memorySpace, .busMaster]).rawValue)
        )
        #expect(try rig.status() == 0)
        ring.post([4, 5, 6])
        try rig.transport.notifyQueue(0)
        #expect(rig.device.echoed == 1)
        #expect(ring.received(3).isEmpty)
    }

    @Test func `VPN-D-28: a second window is BAR 4 and shared memory 1`() throws {
        let device = try WindowedEchoDevice()
        device.secondPeerWindow = try Mapping.anonymous(length: 1 << 17)
        let rig = try DriverRig(device)
        #expect(try rig.bus.barSize(4) == 1 << 17)
        #expect(rig.transport.sharedMemory[1]?.bar == 4)
        #expect(rig.transport.sharedMemory[1]?.length == 1 << 17)
        try rig.bus.writeRegister(4, 0x1fffc, .long, 0x4433_2211)
        let window = try rig.transport.mapPeerWindow(bar: 4, offset: 0, size: 1 << 17)
        let mapped = unsafe window.address.load(fromByteOffset: 0x1fffc, as: UInt32.self)
        #expect(mapped == 0x4433_2211)
        #expect(try rig.bus.readRegister(2, 0xfffc, .long) == 0)
        #expect(rig.function.windowFile(4) == nil)
    }
}
