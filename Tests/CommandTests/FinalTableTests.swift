import Testing

@testable import vhost_pci

@Suite struct FinalTableTests {
    private func report() -> RunReport {
        RunReport(
            verdict: .failed,
            reasons: ["1 packet lost on peer0"],
            mode: "switch",
            durationSeconds: 5.04,
            workers: [.init(core: 1, node: 0, busyCycles: 25, idleCycles: 75, emptyPolls: 9)],
            ports: [
                .init(
                    name: "peer0",
                    kind: .peer,
                    path: "/tmp/a",
                    connections: 1,
                    received: .init(packets: 10, bytes: 640),
                    transmitted: .init(packets: 9, bytes: 576),
                    lost: 1,
                    mpps: 1.23456,
                    gbitPerSecond: 0.5,
                    latency: .init(p50: 1500, p99: 2500, p999: 10_000),
                    copiesPerPacket: 1,
                    kicks: .init(sent: 3, suppressed: 4, full: 0),
                    drops: ["peer/no-buffer": 1, "net/empty": 2],
                    ringErrors: ["ring/loop": 1]
                )
            ]
        )
    }

    @Test func `the table has the same facts as the JSON`() throws {
        let lines = FinalTable(report: report()).lines()
        #expect(lines.count == 7)
        #expect(lines[1].contains("peer0 (/tmp/a)") && lines[1].contains("1.235"))
        #expect(lines[1].contains("1.5") && lines[1].contains("3/4"))
        #expect(lines[2] == "peer0 dropped: net/empty 2, peer/no-buffer 1")
        #expect(lines[3] == "peer0 broken rings: ring/loop 1")
        #expect(lines[4] == "worker on core 1, node 0: 25.0 % busy, 9 empty polls")
        #expect(lines[5] == "failed: 1 packet lost on peer0")
        #expect(lines[6] == "switch, 5.0 s: failed")
        let json = try report().json()
        #expect(
            json.contains("\"p999\" : 10000") && json.contains("\"schema\" : \"vhost-pci.run/1\"")
        )
    }

    @Test func `a fact without a value is a dash in the table and absent in the JSON`() throws {
        var report = report()
        report.ports[0].latency = nil
        report.ports[0].lost = nil
        report.ports[0].drops = nil
        report.ports[0].ringErrors = nil
        let lines = FinalTable(report: report).lines()
        #expect(lines.count == 5)
        #expect(lines[1].contains(" - "))
        let json = try report.json()
        #expect(!json.contains("latency") && !json.contains("null") && !json.contains("lost\" :"))
    }

    @Test func `decimals are rounded and keep their zeros`() {
        #expect(FinalTable.decimal(0, places: 2) == "0.00")
        #expect(FinalTable.decimal(1.005, places: 1) == "1.0")
        #expect(FinalTable.decimal(0.056, places: 2) == "0.06")
        #expect(FinalTable.decimal(-1.26, places: 1) == "-1.3")
        #expect(FinalTable.decimal(12, places: 0) == "12")
        #expect(FinalTable.decimal(.infinity, places: 2) == "-")
    }
}
