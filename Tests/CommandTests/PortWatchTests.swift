import Testing

@testable import PollEngine
@testable import vhost_pci

@Suite struct PortWatchTests {
    private func report(_ change: (inout EngineReport.Port) -> Void) -> EngineReport {
        var port = EngineReport.Port(id: PortID(0), name: "peer0", kind: .peer, isAttached: true)
        change(&port)
        return EngineReport(mode: .switch, cyclesPerSecond: 1, workers: [], ports: [port])
    }

    @Test func `a port without trouble is not spoken of`() {
        var watch = PortWatch()
        #expect(watch.lines(report { $0.received.packets = 7 }).isEmpty)
        #expect(watch.lines(report { $0.stalledNanoseconds = 999_999_999 }).isEmpty)
    }

    @Test func `HI-G37: a ring that broke is named once, and again when it breaks anew`() {
        var watch = PortWatch()
        let broken = report { $0.ringErrors = ["ring/loop": 1] }
        #expect(watch.lines(broken).count == 1)
        #expect(watch.lines(broken).isEmpty)
        let again = watch.lines(report { $0.ringErrors = ["ring/loop": 2, "ring/order": 1] })
        #expect(again.count == 2)
        #expect(again[0].hasPrefix("peer0: ring/loop"))
        #expect(again[1].hasPrefix("peer0: ring/order"))
    }

    @Test func `HI-I10: a stuck peer is named with its age, once until it takes packets again`() {
        var watch = PortWatch()
        let lines = watch.lines(report { $0.stalledNanoseconds = 1_500_000_000 })
        #expect(lines == ["peer0: peer/stalled, it has taken no packet for 1.5 s"])
        #expect(watch.lines(report { $0.stalledNanoseconds = 2_500_000_000 }).isEmpty)
        #expect(watch.lines(report { _ in }) == ["peer0: takes packets again"])
        #expect(watch.lines(report { _ in }).isEmpty)
        #expect(watch.lines(report { $0.stalledNanoseconds = 1_000_000_000 }).count == 1)
        // Gone is not recovered.
        let gone = watch.lines(
            report {
                $0.isAttached = false
                $0.stalledNanoseconds = nil
            }
        )
        #expect(gone.isEmpty)
    }

    @Test func `an uplink whose interface was deleted is named once`() {
        var watch = PortWatch()
        #expect(
            watch.lines(report { $0.isGone = true }).first?.hasPrefix("peer0: tap/gone") == true
        )
        #expect(watch.lines(report { $0.isGone = true }).isEmpty)
    }

    @Test func `addresses that the switch has no room for are told once a port`() {
        var watch = PortWatch()
        let first = watch.lines(report { $0.unlearnedAddresses = 3 })
        #expect(first.count == 1)
        #expect(first.first?.hasPrefix("peer0: switch/table-full") == true)
        #expect(watch.lines(report { $0.unlearnedAddresses = 30_000 }).isEmpty)
    }
}
