import Testing
import VirtioSpec

@testable import Virtio

@Suite struct FeatureNegotiationTests {
    @Test func `VPN-D-08: VERSION_1 is offered whatever the device says`() {
        let device = EchoDevice()
        device.offeredFeatures = []
        #expect(FeatureNegotiation.offer(of: device) == .version1)
    }

    @Test func `VPN-D-08: without VERSION_1 no choice is acceptable`() {
        let device = EchoDevice()
        var negotiation = FeatureNegotiation()
        #expect(!negotiation.isAcceptable(to: device))
        negotiation.driverFeatures = .version1
        #expect(negotiation.isAcceptable(to: device))
    }

    @Test func `HI-H12: a choice beyond the offer, or that the device rejects, is not acceptable`()
    {
        let device = EchoDevice()
        var negotiation = FeatureNegotiation()
        negotiation.driverFeatures = [.version1, .ringPacked]
        #expect(!negotiation.isAcceptable(to: device))
        negotiation.driverFeatures = .version1
        device.acceptable = false
        #expect(!negotiation.isAcceptable(to: device))
    }

    @Test func `windows show and take the halves`() {
        var negotiation = FeatureNegotiation()
        let offer = FeatureBits(rawValue: 0x1122_3344_5566_7788)
        #expect(negotiation.deviceWord(of: offer) == 0x5566_7788)
        negotiation.deviceSelect = 1
        #expect(negotiation.deviceWord(of: offer) == 0x1122_3344)
        negotiation.driverWord = 0xdead_beef
        negotiation.driverSelect = 1
        negotiation.driverWord = 0x0102_0304
        #expect(negotiation.driverFeatures.rawValue == 0x0102_0304_dead_beef)
        #expect(negotiation.driverWord == 0x0102_0304)
    }

    @Test(arguments: [2, 3, 4, 0x8000_0000, 0xffff_ffff] as [UInt32])
    func `HI-H17: words beyond those defined are 0 and take nothing`(_ select: UInt32) {
        var negotiation = FeatureNegotiation()
        negotiation.driverFeatures = .version1
        negotiation.deviceSelect = select
        negotiation.driverSelect = select
        #expect(negotiation.deviceWord(of: FeatureBits(rawValue: .max)) == 0)
        negotiation.driverWord = .max
        #expect(negotiation.driverWord == 0)
        #expect(negotiation.driverFeatures == .version1)
    }
}
