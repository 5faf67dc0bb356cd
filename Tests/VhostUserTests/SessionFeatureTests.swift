import Testing
import VirtioSpec

@testable import VhostUser

@Suite struct SessionFeatureTests {
    @Test func `VU-B-01: bit 30 is offered on top of the device's features`() {
        var rig = SessionRig()
        let offered = rig.send(.getFeatures).number
        #expect(offered == SessionRig.features.rawValue | 1 << 30)
    }

    @Test func `VU-B-01: protocol features can be asked for and set before SET_FEATURES`() {
        var rig = SessionRig()
        #expect(rig.send(.getProtocolFeatures).number == 0x1a009)
        #expect(rig.number(.setProtocolFeatures, 0x1a009).isGood)
        #expect(rig.session.state.protocolFeatures == .served)
    }

    @Test func `VU-B-04: SET_PROTOCOL_FEATURES may come again with the same effect`() {
        var rig = SessionRig()
        rig.negotiate()
        for _ in 0..<3 {
            #expect(rig.number(.setProtocolFeatures, 0x1a009).isGood)
            #expect(rig.session.state.protocolFeatures == .served)
        }
    }

    @Test(arguments: [1, 2, 4, 5, 12, 17, 18, 21, 22, 23, 62, 63] as [UInt64])
    func `HI-D29, VU-B-03: a protocol feature that was not offered ends the connection`(
        _ bit: UInt64
    ) {
        var rig = SessionRig()
        rig.negotiate()
        let step = rig.number(.setProtocolFeatures, 1 << bit | 8, needsReply: true)
        #expect(step.close?.id == .features)
        #expect(rig.session.state.protocolFeatures == .served)
    }

    @Test(arguments: [1 << 14, 1 << 14 | 1 << 5, 1 << 14 | 1 << 3] as [UInt64])
    func `HI-D29, VU-B-05: in-band notifications without both companions end the connection`(
        _ bits: UInt64
    ) {
        var rig = SessionRig()
        let step = rig.number(.setProtocolFeatures, bits)
        #expect(step.close?.id == .features)
        #expect(step.close?.detail.hasPrefix("in-band") == true)
    }

    @Test func `HI-D28: features that were not offered are refused and change nothing`() {
        var rig = SessionRig()
        rig.negotiate()
        let bad = SessionRig.features.union(.ringPacked).rawValue | 1 << 30
        let step = rig.number(.setFeatures, bad, needsReply: true)
        #expect(step.refused?.id == .features)
        #expect(step.number == 1)
        #expect(step.close == nil)
        #expect(rig.session.state.features.contains(.ringPacked) == false)
    }

    @Test func `HI-D28: without an acknowledgement refused features end the connection`() {
        var rig = SessionRig()
        let step = rig.number(.setFeatures, 1 << 63 | 1 << 32)
        #expect(step.close?.id == .features)
        #expect(step.reply == nil)
    }

    @Test func `HI-D28: features without VERSION_1 are refused`() {
        var rig = SessionRig()
        rig.negotiate()
        let legacy = SessionRig.features.subtracting(.version1).rawValue | 1 << 30
        #expect(rig.number(.setFeatures, legacy, needsReply: true).refused?.id == .features)
        #expect(rig.session.state.features.contains(.version1))
    }

    @Test func `HI-D28: features cannot change while a ring is started`() throws {
        var (rig, _) = try SessionRig.working()
        let less = FeatureBits.version1.rawValue | 1 << 30
        #expect(rig.number(.setFeatures, less, needsReply: true).refused?.id == .features)
        #expect(rig.quiesceCount == 0)
        let same = rig.session.state.features.rawValue
        #expect(rig.number(.setFeatures, same, needsReply: true).number == 0)
    }

    @Test func `HI-D28: FEATURES_OK does not stand on refused features`() {
        var rig = SessionRig()
        rig.negotiate()
        rig.number(.setFeatures, 1 << 34 | 1 << 32, needsReply: true)
        rig.number(.setStatus, 0xb)
        #expect(rig.send(.getStatus).number == 0x3)
        rig.number(.setFeatures, 1 << 32 | 1 << 30, needsReply: true)
        #expect(rig.send(.getStatus).number == 0xb)
    }

    @Test func `VU-R-05: features without bit 30 enable every ring`() {
        var rig = SessionRig(offer: BackendOffer(features: SessionRig.features, queuePairs: 2))
        rig.send(.getFeatures)
        rig.number(.setFeatures, SessionRig.features.rawValue)
        #expect(rig.session.state.rings.map(\.isEnabled) == [true, true, true, true])
    }

    @Test func `features with bit 30 leave rings as they were enabled`() {
        var rig = SessionRig()
        rig.state(.setVringEnable, 1, 1)
        rig.negotiate()
        #expect(rig.session.state.rings.map(\.isEnabled) == [false, true])
    }

    @Test func `HI-D6: SET_VRING_ENABLE is refused after features without bit 30`() {
        var rig = SessionRig()
        rig.number(.setProtocolFeatures, 8)
        rig.number(.setFeatures, SessionRig.features.rawValue)
        let step = rig.state(.setVringEnable, 0, 0, needsReply: true)
        #expect(step.refused?.id == .notNegotiated)
        #expect(step.number == 1)
        #expect(rig.session.state.rings[0].isEnabled)
    }

    @Test(arguments: [1, 2, 128])
    func `VU-B-07: the queue number counts pairs and covers every ring index`(_ pairs: Int) {
        var rig = SessionRig(
            offer: BackendOffer(features: SessionRig.features, queuePairs: pairs)
        )
        rig.negotiate()
        #expect(rig.send(.getQueueCount).number == UInt64(pairs))
        #expect(rig.state(.setVringBase, UInt32(2 * pairs - 1), 7).isGood)
        let beyond = rig.state(.setVringBase, UInt32(2 * pairs), 7, needsReply: true)
        #expect(beyond.refused?.id == .ringIndex)
    }

    @Test func `an offer can change until the front-end has asked for it`() {
        var rig = SessionRig()
        let inTime = rig.session.offer([.version1])
        #expect(inTime)
        #expect(rig.send(.getFeatures).number == 1 << 32 | 1 << 30)
        let tooLate = !rig.session.offer(SessionRig.features)
        #expect(tooLate)
        #expect(rig.send(.getFeatures).number == 1 << 32 | 1 << 30)
    }

    @Test func `the owner may be set and reset at any time without effect`() throws {
        var (rig, _) = try SessionRig.working()
        #expect(rig.send(.setOwner, needsReply: true).number == 0)
        #expect(rig.send(.resetOwner, needsReply: true).number == 0)
        #expect(rig.session.state.rings.allSatisfy { $0.isStarted && $0.isEnabled })
        #expect(rig.quiesceCount == 0)
    }
}
