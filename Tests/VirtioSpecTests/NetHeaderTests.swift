import Testing
import VirtioSpec

@Suite struct NetHeaderTests {
    @Test func `HI-A34: features that lengthen the header leave it without a length`() {
        #expect(NetHeader.length(.version1) == 12)
        #expect(NetHeader.length([.version1, .netMergeableBuffers, .eventIndex]) == 12)
        #expect(NetHeader.length([]) == nil)
        #expect(NetHeader.length(.netMergeableBuffers) == nil)
        for bit in [46, 48, 57] as [UInt8] {
            let longer: FeatureBits = [.version1, FeatureBits(bit: bit)]
            #expect(NetHeader.length(longer) == nil)
        }
    }
}
