import PCI
import Testing

@Suite struct PCIAddressTests {
    @Test func `an address is read and written as lspci does`() throws {
        let address = try #require(PCIAddress("0000:03:1f.7"))
        #expect(address.bus == 3 && address.device == 31 && address.function == 7)
        #expect(address.description == "0000:03:1f.7")
        #expect(PCIAddress("0A:00.1")?.description == "0000:0a:00.1")
        #expect(PCIAddress("10000:e1:00.0")?.description == "10000:e1:00.0")
    }

    @Test(arguments: [
        "", ":", "03:00", "0000:03:00", "0000:03:00.8", "0000:03:20.0", "0000:3:00.0",
        "000:03:00.0", "0000:03:00.0 ", "0000:03:00.00", "0000:0x:00.0", "0000:+3:00.0",
        "0:0000:03:00.0", "0000:03:00.-1", "123456789:03:00.0", "0000:０3:00.0",
    ])
    func `what is no address is refused`(_ text: String) {
        #expect(PCIAddress(text) == nil)
    }
}
