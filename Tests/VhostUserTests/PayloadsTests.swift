import Testing

@testable import VhostUser

@Suite struct PayloadsTests {
    private let region = MemoryRegionPayload(
        guestAddress: 0,
        length: 0x1000_0000,
        userAddress: 0x7f4a_77ff_f000,
        fileOffset: 0
    )

    @Test func `a table of one region has 40 bytes`() throws {
        let wire = bytes(
            """
            01000000 00000000 0000000000000000 0000001000000000 00f0ff774a7f0000 0000000000000000
            """
        )
        #expect(MemoryTablePayload([region]).encoded == wire)
        let table = try #require(MemoryTablePayload(wire))
        #expect(table.count == 1)
        #expect(table.regions == [region])
    }

    @Test func `a single region has 40 bytes too, with 8 of padding`() throws {
        let wire = bytes(
            """
            0000000000000000 0000000000000000 0000001000000000 00f0fff3fd7e0000 0000000000000000
            """
        )
        let single = try #require(SingleRegionPayload(wire))
        #expect(single.region.userAddress == 0x7efd_f3ff_f000)
        #expect(single.encoded == wire)
    }

    @Test func `the used ring stands before the available ring`() throws {
        let address = VringAddress(
            index: 1,
            flags: 0,
            descriptorArea: 0x10,
            driverArea: 0x30,
            deviceArea: 0x20,
            log: 0x40
        )
        let wire = bytes(
            """
            01000000 00000000 1000000000000000 2000000000000000 3000000000000000 4000000000000000
            """
        )
        #expect(address.encoded == wire)
        #expect(VringAddress(wire) == address)
    }

    @Test func `HI-D23: bit 8 says that no descriptor came`() throws {
        let none = try #require(VringDescriptor(NumberPayload.encode(0x103)))
        #expect(none.index == 3)
        #expect(!none.hasDescriptor)
        #expect(none.encoded == NumberPayload.encode(0x103))
    }

    @Test(arguments: [0x1_0000, 0x200, 0x1_0000_0000, 0xffff_ffff_ffff_fe00] as [UInt64])
    func `HI-D18: a ring index keeps its high bits`(_ value: UInt64) throws {
        let decoded = try #require(VringDescriptor(NumberPayload.encode(value)))
        #expect(decoded.index == value)
    }

    @Test(arguments: [0, 1, 7, 9, 16])
    func `HI-D3: payloads of fixed size decode from no other size`(_ count: Int) {
        let wire = [UInt8](repeating: 0, count: count)
        #expect(NumberPayload.decode(wire) == nil)
        #expect(VringState(wire) == nil)
        #expect(VringDescriptor(wire) == nil)
        #expect(VringAddress(wire) == nil)
        #expect(SingleRegionPayload(wire) == nil)
    }

    @Test(arguments: [0, 7, 9, 39, 41])
    func `HI-D3: a table does not decode from half a region`(_ count: Int) {
        #expect(MemoryTablePayload([UInt8](repeating: 0, count: count)) == nil)
    }

    @Test func `a ring's state keeps all 32 bits of both numbers`() {
        let state = VringState(index: 0xffff_ffff, number: 0x8000_0001)
        #expect(VringState(state.encoded) == state)
    }
}
