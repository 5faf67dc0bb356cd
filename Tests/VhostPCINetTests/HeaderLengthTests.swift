import Testing
import VirtioSpec

@testable import VhostPCINet

@Suite struct HeaderLengthTests {
    @Test func `HI-A34: no set that can be negotiated has another header than the one read`() {
        #expect(NetHeader.length(FeatureMirror.supported) == NetHeader.size)
        for bit in 0..<64 as Range<UInt8>
        where !FeatureMirror.supported.contains(FeatureBits(bit: bit)) {
            var mirror = FeatureMirror()
            mirror.peer = FeatureMirror.supported.union(FeatureBits(bit: bit))
            mirror.driver = FeatureMirror.supported
            let agreed = mirror.agreed ?? .version1
            #expect(NetHeader.length(agreed) == NetHeader.size, "bit \(bit)")
            #expect(!mirror.offerToPeer.contains(FeatureBits(bit: bit)) || bit == 30)
        }
    }
}
