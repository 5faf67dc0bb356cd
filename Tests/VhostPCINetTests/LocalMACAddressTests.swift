import Testing
import VhostPCINet

@Suite struct LocalMACAddressTests {
    @Test func `VPN-M-02: addresses are local, for one station, and differ`() {
        let addresses = (0..<200).map { _ in LocalMACAddress() }
        for address in addresses {
            #expect(address.bytes.count == 6)
            #expect(address.bytes[0] & 1 == 0)
            #expect(address.bytes[0] & 2 == 2)
        }
        #expect(Set(addresses).count == 200)
    }

    @Test func `all of the source's ones do not make a group address`() {
        struct Ones: RandomNumberGenerator {
            func next() -> UInt64 { .max }
        }
        var ones = Ones()
        #expect(LocalMACAddress(using: &ones).description == "fe:ff:ff:ff:ff:ff")
    }
}
