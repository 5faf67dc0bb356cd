import PCI
import Testing

@Suite struct PCIBusTests {
    @Test func `an address without a function is no error`() throws {
        let address = try #require(PCIAddress("fffe:ff:1f.7"))
        #expect(try PCIBus.identify(address) == nil)
    }

    @Test func `the first function of this machine, if it has any, has ids`() throws {
        let address = try #require(PCIAddress("0000:00:00.0"))
        guard let record = try PCIBus.identify(address) else { return }
        #expect(record.identity.vendor != 0 && record.identity.vendor != 0xffff)
        #expect(record.address == address)
        #expect(!record.name.isEmpty)
    }
}
