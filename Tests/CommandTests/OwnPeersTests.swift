import Testing

@testable import vhost_pci

@Suite struct OwnPeersTests {
    private func summary(_ change: (inout PeerTraffic.Summary) -> Void = { _ in })
        -> PeerTraffic.Summary
    {
        var summary = PeerTraffic.Summary(sent: 10, received: 10, confirmed: 10)
        change(&summary)
        return summary
    }

    @Test func `equal counts on both sides are no finding`() {
        #expect(OwnPeers.findings([summary(), summary()]).isEmpty)
    }

    @Test func `each kind of loss is a finding that names the way`() {
        let cases: [(PeerTraffic.Summary, String)] = [
            (summary { $0.received = 9 }, "10 packets were sent from peer1 to peer0, 9 arrived"),
            (summary { $0.missing = 1 }, "1 packets missing from peer1 to peer0"),
            (summary { $0.reordered = 2 }, "2 packets out of order from peer1 to peer0"),
            (summary { $0.damaged = 3 }, "3 packets damaged from peer1 to peer0"),
        ]
        for (bad, finding) in cases {
            #expect(OwnPeers.findings([bad, summary()]) == [finding])
        }
    }

    @Test func `silence is a finding`() {
        let silent = PeerTraffic.Summary()
        #expect(
            OwnPeers.findings([silent, silent]) == [
                "no packet was sent from peer1 to peer0", "no packet was sent from peer0 to peer1",
            ]
        )
        #expect(OwnPeers.findings([summary()]) == ["1 peers reported, not two"])
    }
}
