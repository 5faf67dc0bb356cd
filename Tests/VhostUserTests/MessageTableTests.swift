import Testing
import VirtioSpec

@testable import VhostUser

@Suite struct MessageTableTests {
    @Test func `every request's rule is at its id`() {
        #expect(MessageTable.rules.count == Request.allCases.count)
        for request in Request.allCases {
            #expect(MessageTable.rule(request.rawValue)?.request == request)
            #expect(MessageTable.rule(request).request == request)
        }
        #expect(Set(MessageTable.rules.map(\.name)).count == MessageTable.rules.count)
    }

    @Test(arguments: [0, 45, 46, 0x1000, 0x7fff_ffff, 0x8000_0000, 0xffff_ffff] as [UInt32])
    func `HI-D5: ids that nobody defined have no rule`(_ id: UInt32) {
        #expect(MessageTable.rule(id) == nil)
    }

    @Test func `the requests a network device needs to run are open to any front-end`() {
        let open: [Request] = [
            .getFeatures, .setFeatures, .setOwner, .setMemoryTable, .setVringSize,
            .setVringAddress, .setVringBase, .getVringBase, .setVringKick, .setVringCall,
            .setVringError, .getProtocolFeatures, .setProtocolFeatures,
        ]
        for request in open { #expect(MessageTable.rule(request).gate == .open) }
    }

    @Test func `VU-B-02: only protocol features whose requests are served are offered`() {
        let never: ProtocolFeatures = [
            .inBandNotifications, .xenMapping, .guestAddresses, .sharedObject, .deviceState,
            .inflight, .logShared, .backendRequests, .configuration,
        ]
        #expect(ProtocolFeatures.served.isDisjoint(with: never))
        #expect(ProtocolFeatures.served.rawValue == 0x1a009)
        let everything = BackendOffer(
            features: .version1,
            protocolFeatures: ProtocolFeatures(rawValue: .max)
        )
        #expect(everything.protocolFeatures == .served)
    }

    @Test func `a list may have any number of whole items behind its head`() {
        let list = MessageRule.PayloadSize.list(head: 8, item: 32)
        #expect(list.allows(8))
        #expect(list.allows(40))
        #expect(!list.allows(7))
        #expect(!list.allows(39))
        #expect(!list.allows(0))
    }
}
