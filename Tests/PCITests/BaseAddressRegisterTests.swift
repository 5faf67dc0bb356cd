import PCI
import Testing

@Suite struct BaseAddressRegisterTests {
    @Test func `HI-H4: sizes that no register can express are refused`() {
        for size in [0, 8, 24, 0x8001, 1 << 32] as [UInt64] {
            #expect(BaseAddressRegister(size: size) == nil)
        }
        #expect(BaseAddressRegister(size: (1 << 33) - 1, is64Bit: true) == nil)
        #expect(BaseAddressRegister(size: 1 << 63, is64Bit: true) != nil)
        #expect(BaseAddressRegister(size: 1 << 31) != nil)
    }

    @Test func `HI-H4: a driver that sizes the BARs finds what was built`() throws {
        let function = InProcessFunction(endpoint: try FakeEndpoint())
        let first = try BaseAddressRegister.size(0, of: function)
        #expect(first == BaseAddressRegister(size: 0x4000))
        let third = try BaseAddressRegister.size(2, of: function)
        #expect(third == BaseAddressRegister(size: 8192, is64Bit: true, isPrefetchable: true))
        for absent in [1, 4, 5, 6, -1, Int.max] {
            #expect(try BaseAddressRegister.size(absent, of: function) == nil)
        }
        #expect(try function.readConfiguration(0x10, .long) == 0)
    }

    @Test func `HI-H4: every size survives sizing, in one register and in two`() throws {
        for shift in UInt64(4)..<64 {
            let register = try #require(BaseAddressRegister(size: 1 << shift, is64Bit: true))
            let low = UInt32(truncatingIfNeeded: register.addressMask) | register.typeBits
            let high = UInt32(truncatingIfNeeded: register.addressMask >> 32)
            #expect(BaseAddressRegister(sizing: low, high) == register)
            guard shift < 32 else { continue }
            let narrow = try #require(BaseAddressRegister(size: 1 << shift))
            let mask = UInt32(truncatingIfNeeded: narrow.addressMask)
            #expect(BaseAddressRegister(sizing: mask, .max) == narrow)
        }
    }

    @Test func `HI-H6: sizing answers that make no sense are no BAR`() {
        #expect(BaseAddressRegister(sizing: 0, 0) == nil)
        #expect(BaseAddressRegister(sizing: 1, 0) == nil)
        #expect(BaseAddressRegister(sizing: 0xffff_ff01, 0) == nil)
        #expect(BaseAddressRegister(sizing: 4, 0) == nil)
        #expect(BaseAddressRegister(sizing: 0xff0f_fff0, 0) == nil)
    }
}
