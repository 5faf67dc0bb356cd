import GuestMemory
import HostSystem
import PCI
import Testing
import Virtio
import Virtqueue

@testable import VFIO

/// Registers, interrupts and memory of a function on uio_pci_generic.
@Suite struct UIODeviceTests {
    static let folder = UIOFixture.folder
    let fixture: UIOFixture

    init() throws { fixture = try UIOFixture() }

    @Test func `BARs are those of the resource file`() throws {
        let device = try fixture.open()
        #expect(try (0..<6).map(device.barSize) == [0x4000, 0x40, 0x20, 0, 0, 0])
        #expect(try device.barSize(6) == 0)
        #expect(try device.barSize(-1) == 0)
        #expect(try device.interruptVectorCount == 0)
        #expect(failure { try device.connectInterrupt(0, to: nil) }.hasPrefix("pci/vector"))
    }

    @Test func `HI-H28: lines that make no sense are absent BARs`() {
        for text in [
            "", "\n\n", "0x0 0x0", "0x1 0x0 0x200", "0x0 0x0 0x200", "0x1000 0x1fff 0x0",
            "0x0 0xffffffffffffffff 0x200", "1000 1fff 200", "0x1000 0x1fff 0x20000200",
            "0x1000 0x1fff 0x10000000000000200",
        ] {
            #expect(UIORegion.list(text) == [UIORegion](repeating: .absent, count: 6), "\(text)")
        }
    }

    @Test func `registers of every width reach the BAR`() throws {
        let device = try fixture.open()
        let file = "\(Self.folder)/resource0"
        try device.writeRegister(0, 0x10, .long, 0x0102_0304)
        try device.writeRegister(0, 0x14, .word, 0x0506)
        try device.writeRegister(0, 0x16, .byte, 0x07)
        #expect(try fixture.peek(file, 0x10, 7) == [4, 3, 2, 1, 6, 5, 7])
        #expect(try device.readRegister(0, 0x12, .word) == 0x0102)
        #expect(try device.readRegister(0, 0x16, .byte) == 7)
        #expect(try device.readRegister(0, 0x10, .long) == 0x0102_0304)
        try device.doorbell(0, 0x3ffe, value: 9).ring()
        #expect(try fixture.peek(file, 0x3ffe, 2) == [9, 0])
    }

    @Test func `a BAR smaller than a page is found inside its page`() throws {
        let device = try fixture.open()
        try device.writeRegister(1, 0x3c, .long, 0xaabb_ccdd)
        #expect(try fixture.peek("\(Self.folder)/resource1", 0x7c, 4) == [0xdd, 0xcc, 0xbb, 0xaa])
        #expect(failure { try device.writeRegister(1, 0x40, .byte, 0) }.hasPrefix("region/range"))
    }

    @Test func `ports go through the file and are never mapped`() throws {
        let device = try fixture.open()
        try device.writeRegister(2, 4, .word, 0x1234)
        #expect(try fixture.peek("\(Self.folder)/resource2", 4, 2) == [0x34, 0x12])
        #expect(try device.readRegister(2, 4, .byte) == 0x34)
        #expect(
            failure { _ = try device.mapWindow(2, offset: 0, size: 4) }.hasPrefix("not supported")
        )
        #expect(failure { _ = try device.doorbell(2, 0, value: 0) }.hasPrefix("not supported"))
    }

    @Test func `HI-H27: a window and the registers show the same`() throws {
        let device = try fixture.open()
        let window = try device.mapWindow(0, offset: 0x1004, size: 8)
        try device.writeRegister(0, 0x1004, .long, 0xdead_beef)
        #expect(unsafe SharedCell.loadRelaxed32(window.address) == 0xdead_beef)
        unsafe SharedCell.storeRegister16(window.address, 0x1234)
        #expect(try device.readRegister(0, 0x1004, .word) == 0x1234)
    }

    @Test func `HI-H2: accesses outside a BAR or across registers are refused`() throws {
        let device = try fixture.open()
        let places: [(Int, UInt64)] = [
            (0, 0x3ffd), (0, 0x4000), (0, .max), (0, 2), (0, 1), (3, 0), (4, 0), (9, 0), (-1, 0),
        ]
        for (bar, offset) in places {
            #expect(
                failure { _ = try device.readRegister(bar, offset, .long) }
                    .hasPrefix("region/range")
            )
            #expect(
                failure { try device.writeRegister(bar, offset, .long, 0) }
                    .hasPrefix("region/range")
            )
        }
        #expect(failure { _ = try device.doorbell(0, 1, value: 0) }.hasPrefix("region/range"))
        for (offset, size) in [(UInt64(0x3fff), UInt64(2)), (0, 0x4001), (.max, 2), (0, 0)] {
            #expect(
                failure { _ = try device.mapWindow(0, offset: offset, size: size) }
                    .hasPrefix("region/range")
            )
        }
    }

    @Test func `HI-H1: configuration space has an end`() throws {
        let device = try fixture.open()
        #expect(try device.readConfiguration(0, .long) == 0x1041_1af4)
        #expect(try device.readConfiguration(0xfe, .long) == 0xffff_ffff)
        #expect(try device.readConfiguration(-1, .byte) == 0xff)
        #expect(try device.readConfiguration(.max, .word) == 0xffff)
        try device.writeConfiguration(0x1000, .long, 0)
        try device.writeConfiguration(-4, .long, 0)
        #expect(try fixture.peek("\(Self.folder)/config", 0, 512).count == 256)
    }

    @Test func `bus mastering is off from opening on, and off again after`() throws {
        do {
            let device = try fixture.open()
            // It stood at 0x0407.
            #expect(try fixture.command == 0x0403)
            try device.writeConfiguration(ConfigurationHeader.command, .word, 0x0007)
        }
        #expect(try fixture.command == 0x0403)
    }

    @Test func `INTx is told, and comes again when it is let`() throws {
        let device = try fixture.open()
        let loop = try EventLoop()
        var told: [HostFunctionEvent] = []
        try device.watch(on: loop, line: true) { told.append($0) }
        #expect(try fixture.command & 0x400 == 0)
        let node = try FileDescriptor.open("\(fixture.tree.root)/dev/uio3", writable: true)
        _ = node.put([1, 0, 0, 0])
        // As the kernel's driver does.
        try fixture.poke("\(Self.folder)/config", 5, [0x04])
        try loop.turn(limitMilliseconds: 100)
        #expect(told == [.line])
        try device.setLineMasked(false)
        #expect(try fixture.command & 0x400 == 0)
        device.stopWatching()
        _ = node.put([2, 0, 0, 0])
        try loop.turn(limitMilliseconds: 0)
        #expect(told == [.line])
    }

    @Test func `a function without INTx says so`() throws {
        try fixture.poke("\(Self.folder)/config", 0x3d, [0])
        let device = try fixture.open()
        let loop = try EventLoop()
        #expect(failure { try device.watch(on: loop, line: true) { _ in } }.hasPrefix("pci/vector"))
        try device.watch(on: loop, line: false) { _ in }
    }

    @Test func `HI-A53: a function that was taken away is gone`() throws {
        let device = try fixture.open()
        _ = try device.readRegister(0, 0, .long)
        // The pages behind the BAR go, as the kernel takes them from whoever has them mapped.
        fixture.tree.bytes("\(Self.folder)/resource0", [])
        #expect(failure { _ = try device.readRegister(0, 0, .long) }.hasPrefix("pci/device-gone"))
        #expect(failure { try device.writeRegister(0, 0, .byte, 1) }.hasPrefix("pci/device-gone"))
        try fixture.poke("\(Self.folder)/config", 0, [UInt8](repeating: 0xff, count: 256))
        #expect(failure { try device.setLineMasked(false) }.hasPrefix("pci/device-gone"))
        #expect(failure { _ = try CapabilityList(device) }.hasPrefix("pci/device-gone"))
        #expect(failure { _ = try PCITransport(function: device) }.hasPrefix("pci/device-gone"))
    }

    @Test func `HI-A53: who watches is told once that the function is gone`() throws {
        let device = try fixture.open()
        let loop = try EventLoop()
        var told: [HostFunctionEvent] = []
        try device.watch(on: loop, line: false) { told.append($0) }
        try loop.turn(limitMilliseconds: 600)
        #expect(told.isEmpty)
        try fixture.poke("\(Self.folder)/config", 0, [UInt8](repeating: 0xff, count: 256))
        for _ in 0..<3 { try loop.turn(limitMilliseconds: 600) }
        #expect(told == [.gone])
    }

    @Test func `HI-J34: a function that was unbound is touched no more`() throws {
        let device = try fixture.open()
        let loop = try EventLoop()
        var told: [HostFunctionEvent] = []
        try device.watch(on: loop, line: false) { told.append($0) }
        try device.writeConfiguration(ConfigurationHeader.command, .word, 0x0006)
        fixture.tree.link("\(Self.folder)/driver", "../drivers/virtio-pci")
        for _ in 0..<3 where told.isEmpty { try loop.turn(limitMilliseconds: 600) }
        #expect(told == [.gone])
        #expect(failure { try device.writeRegister(0, 0, .byte, 1) }.hasPrefix("pci/device-gone"))
        #expect(failure { _ = try device.readRegister(0, 0, .byte) }.hasPrefix("pci/device-gone"))
        #expect(failure { _ = try device.doorbell(0, 0, value: 0) }.hasPrefix("pci/device-gone"))
        try device.writeConfiguration(ConfigurationHeader.command, .word, 0)
        #expect(try device.readConfiguration(0, .long) == 0xffff_ffff)
        #expect(try fixture.command == 0x0006)
    }

    @Test func `HI-J34: letting go of a function that another driver has by now leaves it alone`()
        throws
    {
        var device: UIODevice? = try fixture.open()
        try device?.writeConfiguration(ConfigurationHeader.command, .word, 0x0006)
        fixture.tree.link("\(Self.folder)/driver", "../drivers/virtio-pci")
        device = nil
        #expect(try fixture.command == 0x0006)
    }

    @Test func `memory is the function's own or not reachable at all`() throws {
        let device = try fixture.open()
        let arena = try device.makeArena(size: 4096)
        #expect(arena.deviceAddress == 0x4000_0000)
        try device.mapDMA(arena)
        try device.releaseArena(arena)
        #expect(failure { try device.mapDMA(arena) }.hasPrefix("dma/range"))
        let other = try DMAArena(size: 4096, deviceAddress: 0x4000_0000)
        #expect(failure { try device.mapDMA(other) }.contains("no other address than its own"))
        try device.unmapDMA(other)
    }

    @Test func `HI-J30: a reset goes through the kernel, where it has one`() throws {
        try fixture.open().reset()
        #expect(try fixture.peek("\(Self.folder)/reset", 0, 8) == [0x31])
        fixture.tree.remove(name: "\(Self.folder)/reset")
        let device = try fixture.open()
        #expect(!device.canReset)
        #expect(failure { try device.reset() }.hasPrefix("not supported: a reset of 0000:03:00.0"))
    }
}
