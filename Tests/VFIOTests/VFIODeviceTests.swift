import GuestMemory
import HostSystem
import PCI
import Testing
import Virtio
import Virtqueue

@testable import VFIO

/// A device whose kernel answers as it should, and then not.
@Suite struct VFIODeviceTests {
    let kernel: FakeKernel
    let tree: FixtureTree

    init() throws {
        kernel = try FakeKernel()
        tree = try FixtureTree()
    }

    func open() throws -> VFIODevice {
        try VFIODevice.open(FixtureTree.address, kernel: kernel, in: HostTree(root: tree.root))
    }

    @Test func `registers and configuration go through the device file`() throws {
        let device = try open()
        #expect(try device.barSize(4) == 0x4000)
        #expect(try device.barSize(0) == 0)
        #expect(try device.barSize(6) == 0)
        #expect(try device.barSize(-1) == 0)
        try device.writeRegister(4, 0x10, .long, 0x0102_0304)
        #expect(kernel.peek(0x40010, 4) == [4, 3, 2, 1])
        #expect(try device.readRegister(4, 0x12, .word) == 0x0102)
        #expect(try device.readConfiguration(0, .long) == 0x1041_1af4)
        #expect(try device.readConfiguration(0xff, .word) == 0xffff)
        #expect(try device.readConfiguration(-1, .byte) == 0xff)
        try device.writeConfiguration(0x1000, .long, 0)
        for (bar, offset) in [(4, UInt64(0x3ffd)), (0, 0), (9, 0), (4, .max)] {
            #expect(
                failure { _ = try device.readRegister(bar, offset, .long) }
                    .hasPrefix("region/range")
            )
            #expect(
                failure { try device.writeRegister(bar, offset, .long, 0) }
                    .hasPrefix("region/range")
            )
        }
    }

    @Test func `HI-A53: a vanished device is gone, by ones or by EIO`() throws {
        let device = try open()
        kernel.isGone = true
        #expect(try device.readRegister(4, 0, .long) == 0xffff_ffff)
        #expect(failure { _ = try CapabilityList(device) }.hasPrefix("pci/device-gone"))
        #expect(failure { _ = try PCITransport(function: device) }.hasPrefix("pci/device-gone"))
        kernel.isGone = false
        kernel.errors = ["read": .ioFailure, "write": .ioFailure]
        #expect(failure { _ = try device.readRegister(4, 0, .byte) }.hasPrefix("pci/device-gone"))
        #expect(
            failure { try device.writeRegister(4, 0, .byte, 1) }.hasPrefix("pci/device-gone")
        )
    }

    @Test func `HI-A53: a device file that ends reads as ones`() throws {
        let device = try open()
        kernel.readLimit = 1
        #expect(try device.readRegister(4, 0, .long) == 0xffff_ff00)
        kernel.errors = ["write": .ioFailure]
        // The function still answers: memory decoding is off.
        kernel.readLimit = .max
        #expect(failure { try device.writeRegister(4, 0, .byte, 1) }.hasPrefix("write"))
    }

    @Test func `HI-A54: counts that nothing can have are cut or refused`() throws {
        kernel.interrupts[2] = Answer.interrupts(count: .max, flags: 1)
        #expect(try open().interruptVectorCount == 2048)
        kernel.interrupts[2] = nil
        let device = try open()
        #expect(try device.interruptVectorCount == 0)
        #expect(
            failure { try device.connectInterrupt(0, to: nil) }.hasPrefix("pci/vector")
        )
        kernel.interrupts[2] = [1, 2, 3]
        #expect(failure { _ = try open() }.hasPrefix("vfio/answer"))
    }

    @Test func `HI-H28: answers that are no PCI function are refused`() throws {
        for answer in [
            Answer.device(flags: 1), Answer.device(regions: 7), Answer.device(regions: 0), [],
            [1, 2, 3],
        ] {
            kernel.device = answer
            #expect(failure { _ = try open() }.hasPrefix("vfio/answer"))
        }
        kernel.device = Answer.device(regions: .max)
        #expect(try open().canReset)
        kernel.regions[7] = Answer.region(size: 255, offset: 0x70000, flags: 3)
        #expect(failure { _ = try open() }.hasPrefix("vfio/answer"))
        kernel.regions[7] = nil
        #expect(failure { _ = try open() }.hasPrefix("vfio/answer"))
    }

    @Test func `HI-H27: a window and the registers show the same`() throws {
        let device = try open()
        let window = try device.mapWindow(4, offset: 0x1004, size: 8)
        try device.writeRegister(4, 0x1004, .long, 0xdead_beef)
        #expect(unsafe SharedCell.loadRelaxed32(window.address) == 0xdead_beef)
        unsafe SharedCell.storeRegister16(window.address, 0x1234)
        #expect(try device.readRegister(4, 0x1004, .word) == 0x1234)
        _ = try device.mapWindow(4, offset: 0, size: 0x4000)
        #expect(kernel.calls.count(where: { $0 == "map" }) == 1)
        for (offset, size) in [(UInt64(0x3fff), UInt64(2)), (0, 0x4001), (.max, 2), (0, 0)] {
            #expect(
                failure { _ = try device.mapWindow(4, offset: offset, size: size) }
                    .hasPrefix("region/range")
            )
        }
    }

    @Test func `HI-H27: a doorbell on an unmapped page is rung through the kernel`() throws {
        kernel.regions[4] = Answer.region(
            size: 0x4000,
            offset: 0x40000,
            flags: 0xf,
            capabilities: [(VFIOLayout.sparseCapability, Answer.pairs([(0x1000, 0x1000)]))]
        )
        let device = try open()
        try device.doorbell(4, 0x1ffe, value: 3).ring()
        #expect(kernel.peek(0x41ffe, 2) == [3, 0])
        #expect(!kernel.calls.contains("storeOnEvent"))
        #expect(try device.doorbell(4, 0x2000, value: 5).ring() == .signalled)
        #expect(kernel.calls.suffix(2) == ["storeOnEvent", "\(0x42000) 5"])
        #expect(
            failure { _ = try device.mapWindow(4, offset: 0x1800, size: 0x1000) }
                .hasPrefix("not supported")
        )
        #expect(
            failure { _ = try device.doorbell(4, 0x2001, value: 5) }.hasPrefix("region/range")
        )
        kernel.errors = ["storeOnEvent": .noSpace]
        #expect(failure { _ = try device.doorbell(4, 0, value: 0) }.contains("storeOnEvent"))
    }

    @Test func `HI-J33: requests that a kernel does not know are told with the version`() throws {
        kernel.regions[4] = Answer.region(size: 0x4000, offset: 0x40000, flags: 3)
        kernel.errors = ["storeOnEvent": .notATerminal]
        let text = failure { _ = try open().doorbell(4, 0, value: 0) }
        #expect(text.hasPrefix("host/kernel: this kernel does not have eventfds"))
        #expect(text.hasSuffix("use Linux 4.17 or newer"))
        tree.file("dev/iommu")
        tree.file("dev/vfio/devices/vfio0")
        tree.folder("\(FixtureTree.folder)/vfio-dev/vfio0")
        kernel.errors = ["bind": .notATerminal]
        #expect(failure { _ = try open() }.contains("use Linux 6.6"))
    }

    @Test func `HI-H27: the page of the MSI-X table is not mapped where the kernel keeps it`()
        throws
    {
        kernel.regions[1] = Answer.region(size: 0x3000, offset: 0x10000, flags: 7)
        kernel.poke(FakeKernel.configurationOffset + 0x44, Answer.words(0x1800 | 1))
        let device = try open()
        _ = try device.mapWindow(1, offset: 0, size: 0x1000)
        _ = try device.mapWindow(1, offset: 0x2000, size: 0x1000)
        #expect(
            failure { _ = try device.mapWindow(1, offset: 0x1000, size: 4) }
                .hasPrefix("not supported")
        )
        // A table that lies about where it is takes nothing else with it.
        kernel.poke(FakeKernel.configurationOffset + 0x44, Answer.words(0xffff_f000 | 1))
        _ = try open().mapWindow(1, offset: 0x1000, size: 4)
        kernel.poke(FakeKernel.configurationOffset + 0x44, Answer.words(7))
        _ = try open().mapWindow(1, offset: 0x1000, size: 4)
    }

    @Test func `HI-H5: a capability list that loops ends the search for the table`() throws {
        kernel.poke(FakeKernel.configurationOffset + 0x40, [0x09, 0x40])
        let device = try open()
        #expect(failure { _ = try CapabilityList(device) }.hasPrefix("pci/cap-loop"))
        kernel.poke(FakeKernel.configurationOffset + 0x40, [0x09, 0xfc])
        kernel.poke(FakeKernel.configurationOffset + 0xfc, [0x11, 0xff, 0xff, 0xff])
        #expect(failure { _ = try CapabilityList(try open()) }.hasPrefix("pci/cap-loop"))
    }

    @Test func `a reset that the function does not have is named`() throws {
        let device = try open()
        try device.reset()
        kernel.errors = ["reset": .invalidArgument]
        #expect(failure { try device.reset() }.hasPrefix("not supported: a reset"))
        kernel.errors = ["reset": .busy]
        #expect(failure { try device.reset() }.hasPrefix("reset"))
        kernel.device = Answer.device(flags: 2)
        kernel.calls = []
        #expect(failure { try open().reset() }.hasPrefix("not supported: a reset"))
        #expect(!kernel.calls.contains("reset"))
        kernel.hotReset =
            Answer.words(28, 0, 2) + Answer.words(4, 0x0003_0000) + Answer.words(5, 0x0903_0000)
        #expect(failure { try open().reset() }.hasSuffix("would hit 0000:03:01.1 too"))
    }

    @Test func `HI-H28: whom a hot reset hits is read within the answer`() throws {
        let device = try open()
        kernel.hotReset =
            Answer.words(28, 0, 2) + Answer.words(4, 0x0803_0000) + Answer.words(5, 0x0903_0001)
        #expect(
            try device.hotResetMembers().map { "\($0.address) \($0.group)" }
                == ["0000:03:01.0 4", "0001:03:01.1 5"]
        )
        kernel.hotReset = Answer.words(28, 0, 3) + Answer.words(4, 0)
        #expect(failure { _ = try device.hotResetMembers() }.hasPrefix("vfio/answer"))
        kernel.hotReset = Answer.words(28, 0, .max)
        #expect(failure { _ = try device.hotResetMembers() }.hasPrefix("vfio/answer"))
        kernel.hotReset = []
        #expect(failure { _ = try device.hotResetMembers() }.hasPrefix("vfio/answer"))
    }
}
