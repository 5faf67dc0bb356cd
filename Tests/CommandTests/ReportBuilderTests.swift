import Testing

@testable import PollEngine
@testable import vhost_pci

@Suite struct ReportBuilderTests {
    private typealias Count = (
        received: UInt64, transmitted: UInt64, consumed: UInt64, copies: UInt64
    )

    private func copiesPerPacket(_ mode: ForwardingMode, _ count: Count) -> Double? {
        var port = EngineReport.Port(id: PortID(0), name: "peer0", kind: .peer, isAttached: true)
        port.received.packets = count.received
        port.transmitted.packets = count.transmitted
        port.consumed = count.consumed
        port.copies = count.copies
        let engine = EngineReport(mode: mode, cyclesPerSecond: 1, workers: [], ports: [port])
        let builder = ReportBuilder(
            engine: engine,
            paths: [:],
            connections: [:],
            summaries: [:],
            seconds: 1
        )
        return builder.report(reasons: []).ports[0].copiesPerPacket
    }

    @Test func `copies a packet are those that were counted, in every mode`() {
        for mode in [ForwardingMode.sink, .source, .echo, .switch] {
            #expect(copiesPerPacket(mode, (100, 0, 100, 0)) == 0)
            #expect(copiesPerPacket(mode, (100, 80, 0, 80)) == 1)
            #expect(copiesPerPacket(mode, (0, 80, 0, 160)) == 2)
            #expect(copiesPerPacket(mode, (0, 1, 3, 1)) == 0.25)
        }
    }

    @Test func `a device has kicks and no path, and says what it was left with`() throws {
        var port = EngineReport.Port(
            id: PortID(0),
            name: "0000:03:00.0",
            kind: .device,
            isAttached: true
        )
        port.kicksSent = 3
        func report() -> RunReport.Port {
            let engine = EngineReport(
                mode: .echo,
                cyclesPerSecond: 1,
                workers: [],
                ports: [port]
            )
            return ReportBuilder(
                engine: engine,
                paths: [:],
                connections: [:],
                summaries: [:],
                seconds: 1
            )
            .report(reasons: []).ports[0]
        }
        #expect(report().kind == .device)
        #expect(report().path == nil)
        #expect(report().connections == nil)
        #expect(report().kicks?.sent == 3)
        #expect(report().unfinished == nil)
        #expect(report().cutLengths == nil)
        port.unfinished = 4
        port.cutLengths = 5
        #expect(report().unfinished == 4)
        #expect(report().cutLengths == 5)
    }

    @Test func `where no packet's way ended there is no figure`() {
        #expect(copiesPerPacket(.switch, (100, 0, 0, 0)) == nil)
        #expect(copiesPerPacket(.switch, (0, 0, 0, 0)) == nil)
    }

    @Test func `a front-end that was attached twice has connected once`() {
        var port = EngineReport.Port(id: PortID(0), name: "peer0", kind: .peer, isAttached: true)
        port.connections = 2
        let engine = EngineReport(mode: .sink, cyclesPerSecond: 1, workers: [], ports: [port])
        func reported(_ connections: [String: UInt64]) -> UInt64? {
            ReportBuilder(
                engine: engine,
                paths: [:],
                connections: connections,
                summaries: [:],
                seconds: 1
            ).report(reasons: []).ports[0].connections
        }
        #expect(reported(["peer0": 1]) == 1)
        #expect(reported(["peer1": 3]) == 0)
    }
}
