import PCI
import Testing

@Suite struct EmulatedConfigSpaceTests {
    private let identity = PCIIdentity(
        vendor: 0x1af4,
        device: 0x107f,
        subsystem: 0x1100,
        classCode: 0x020000
    )

    private func space() throws -> EmulatedConfigSpace {
        var space = EmulatedConfigSpace(identity)
        space.setBAR(0, try #require(BaseAddressRegister(size: 0x8000)))
        space.setBAR(
            2,
            try #require(
                BaseAddressRegister(size: 1 << 34, is64Bit: true, isPrefetchable: true)
            )
        )
        return space
    }

    @Test func `the header says who the function is`() throws {
        let space = try space()
        #expect(space.read(ConfigurationHeader.vendor, .long) == 0x107f_1af4)
        #expect(space.read(ConfigurationHeader.revision, .long) == 0x0200_0001)
        #expect(space.read(ConfigurationHeader.subsystemVendor, .long) == 0x1100_1af4)
        #expect(space.read(ConfigurationHeader.headerType, .byte) == 0)
    }

    @Test func `HI-H1: bytes past the end read as ones, before the start too`() throws {
        let space = try space()
        #expect(space.read(256, .long) == 0xffff_ffff)
        #expect(space.read(254, .long) == 0xffff_0000)
        #expect(space.read(4096, .byte) == 0xff)
        #expect(space.read(-1, .word) == 0xf4ff)
        #expect(space.read(.max, .long) == 0xffff_ffff)
        #expect(space.read(.min, .long) == 0xffff_ffff)
    }

    @Test func `HI-H1: writes past the end and before the start do nothing`() throws {
        var space = try space()
        let before = (0..<64).map { space.read(4 * $0, .long) }
        for offset in [-4, -1, 256, 4096, Int.max, Int.min] {
            for width in AccessWidth.allCases { space.write(offset, width, .max) }
        }
        #expect((0..<64).map { space.read(4 * $0, .long) } == before)
    }

    @Test func `HI-H1: there is no access of 0, 3, 5, 8 or 4096 bytes`() {
        for size in [0, 3, 5, 8, 4096, -1] { #expect(AccessWidth(rawValue: size) == nil) }
    }

    @Test func `HI-H2: each byte of an unaligned access acts as its register`() throws {
        var space = try space()
        // Upper byte of the device id, then the low byte and upper byte of the command register.
        space.write(3, .long, 0xff_06_06_ff)
        #expect(space.read(ConfigurationHeader.device, .word) == 0x107f)
        #expect(space.command.rawValue == 0x0406)
        space.write(ConfigurationHeader.command + 1, .byte, 0)
        #expect(space.command == [.memorySpace, .busMaster])
        #expect(space.read(1, .word) == 0x7f1a)
    }

    @Test func `HI-H3: only a handful of header bits can be written`() throws {
        var space = try space()
        var changed: [Int: UInt8] = [:]
        for offset in 0..<64 where !(0x10..<0x28).contains(offset) {
            let before = space.read(offset, .byte)
            space.write(offset, .byte, ~before)
            let difference = before ^ space.read(offset, .byte)
            if difference != 0 { changed[offset] = UInt8(difference) }
        }
        #expect(changed == [0x04: 0x06, 0x05: 0x04, 0x3c: 0xff])
    }

    @Test func `HI-H3: capability headers cannot be written, bits of the mask can`() throws {
        var space = try space()
        let offsets = [
            space.addCapability([0x09, 0xee, 4, 1]),
            space.addCapability([0x11, 0, 0, 0], writable: [0, 0, 0, 0xc0]),
        ]
        let first = try #require(offsets[0])
        let second = try #require(offsets[1])
        for offset in first..<second + 4 { space.write(offset, .byte, 0xff) }
        #expect(space.read(first, .long) == 0x0104_0009 | UInt32(second) << 8)
        #expect(space.read(second, .long) == 0xc000_0011)
        #expect(space.read(ConfigurationHeader.capabilities, .byte) == UInt32(first))
        #expect(space.read(ConfigurationHeader.status, .word) & 0x10 == 0x10)
    }

    @Test func `a capability that does not fit is not added`() throws {
        var space = try space()
        let large = [UInt8](repeating: 9, count: 190)
        let added = [
            space.addCapability(large), space.addCapability([9, 0, 4, 0]),
            space.addCapability([9]),
        ]
        #expect(added == [0x40, nil, nil])
        #expect(space.read(0x41, .byte) == 0)
    }

    @Test func `HI-H4: all ones in a BAR give its size mask`() throws {
        var space = try space()
        space.write(0x10, .long, .max)
        #expect(space.read(0x10, .long) == 0xffff_8000)
        space.write(0x18, .long, .max)
        #expect(space.read(0x18, .long) == 0x0000_000c)
        #expect(space.read(0x1c, .long) == 0)
        space.write(0x1c, .long, .max)
        #expect(space.read(0x1c, .long) == 0xffff_fffc)
        for absent in [0x14, 0x20, 0x24, 0x30] {
            space.write(absent, .long, .max)
            #expect(space.read(absent, .long) == 0)
        }
    }

    @Test func `HI-H4: a BAR keeps its address however it is written`() throws {
        var space = try space()
        space.write(0x10, .word, 0xffff)
        #expect(space.read(0x10, .long) == 0x0000_8000)
        space.write(0x12, .word, 0xfebf)
        #expect(space.read(0x10, .long) == 0xfebf_8000)
        // Placed over the other BAR.
        space.write(0x18, .long, 0xfebf_8000)
        space.write(0x1c, .byte, 0x04)
        #expect(space.read(0x1c, .long) == 4)
        #expect(space.read(0x10, .long) == 0xfebf_8000)
    }

    @Test func `HI-H24: a reset forgets what was written, not what was built`() throws {
        var space = try space()
        let added = space.addCapability([0x05, 0, 0, 0], writable: [0, 0, 0xff, 0])
        let at = try #require(added)
        let before = (0..<64).map { space.read(4 * $0, .long) }
        for offset in 0..<256 { space.write(offset, .byte, 0xff) }
        space.isInterruptPending = true
        #expect(space.read(at + 2, .byte) == 0xff)
        #expect(space.read(ConfigurationHeader.status, .byte) & 8 == 8)
        space.reset()
        #expect((0..<64).map { space.read(4 * $0, .long) } == before)
    }
}
