import Testing
import VirtioSpec

@testable import VhostPCINet

@Suite struct FeatureMirrorTests {
    private let all = FeatureMirror.supported

    @Test func `VPN-D-08: VERSION_1 is always offered to the driver`() {
        for peer in [nil, [], [.version1], all] as [FeatureBits?] {
            #expect(FeatureMirror(driver: nil, peer: peer).offerToDriver.contains(.version1))
        }
    }

    @Test func `VPN-D-06: the driver is offered network features as far as the peer agreed`() {
        #expect(
            FeatureMirror(peer: [.version1]).offerToDriver == all.subtracting(.netMergeableBuffers)
        )
        #expect(FeatureMirror(peer: [.version1, .netMergeableBuffers]).offerToDriver == all)
        #expect(FeatureMirror(peer: nil).offerToDriver == all)
    }

    @Test func `VPN-D-07: the peer is offered what the driver accepted and nothing else`() {
        #expect(FeatureMirror(driver: nil).offerToPeer == all)
        #expect(FeatureMirror(driver: [.version1]).offerToPeer == [.version1])
        #expect(FeatureMirror(driver: FeatureBits(rawValue: .max)).offerToPeer == all)
    }

    @Test func `VPN-D-07: a peer that agreed to more than the driver accepts is no match`() {
        let driver: FeatureBits = [.version1, .eventIndex]
        #expect(FeatureMirror(driver: driver, peer: all).agreed == nil)
        #expect(FeatureMirror(driver: driver, peer: [.version1, .inOrder]).agreed == nil)
        #expect(FeatureMirror(driver: driver, peer: [.version1]).agreed == [.version1])
        #expect(FeatureMirror(driver: driver, peer: driver).agreed == driver)
    }

    @Test func `a peer without VERSION_1 is no match`() {
        #expect(FeatureMirror(driver: all, peer: [.eventIndex]).agreed == nil)
        #expect(FeatureMirror(driver: all, peer: nil).agreed == nil)
    }

    @Test func `bits that concern vhost-user alone do not count`() {
        let peer: FeatureBits = [.version1, .vhostUserProtocol]
        #expect(FeatureMirror(driver: [.version1], peer: peer).agreed == [.version1])
    }
}
