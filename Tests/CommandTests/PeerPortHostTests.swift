import GuestMemory
import HostSystem
import PollEngine
import Testing
import VhostPCINet
import VirtioSpec
import Virtqueue

@testable import vhost_pci

@Suite(.serialized) struct PeerPortHostTests {
    private let loop: EventLoop
    private let rings: NetRings
    private let wakeup: EventFD

    init() throws {
        loop = try EventLoop()
        rings = try NetRings(features: .version1)
        wakeup = try EventFD()
    }

    private func connection() throws -> PeerConnection {
        let region = unsafe MemoryRegion(
            start: NetRings.guestAddress,
            size: UInt64(rings.mapping.length),
            host: rings.mapping.address
        )
        return PeerConnection(
            memory: try MemoryTable([try #require(region)], owners: [rings.mapping]),
            features: .version1,
            rings: rings.configurations.enumerated().map { index, configuration in
                PeerRingSetup(
                    index: index,
                    isPeerTransmit: index == 1,
                    isEnabled: true,
                    isStarted: true,
                    configuration: configuration,
                    doorbell: .none,
                    wakeup: index == 1 ? wakeup : nil
                )
            },
            generation: 1
        )
    }

    @Test(arguments: [IdleStrategy.spin, .pause, .sleep])
    func `HI-A29: kicks reach the control thread only where a worker may sleep`(
        idle: IdleStrategy
    ) throws {
        let core = try #require(Topology.usableCPUs.last)
        let engine = try Engine(mode: .sink, cores: [core], idle: idle)
        let port = try engine.addPort(name: "peer0", kind: .peer)
        let host = PeerPortHost(engine: engine, port: port, loop: loop) { text, _ in
            Issue.record("\(text)")
        }
        try host.peerConnected(try connection())
        wakeup.signal()
        try loop.turn(limitMilliseconds: 20)
        #expect(wakeup.drain() == (idle == .sleep ? 0 : 1))
        #expect(host.peerDisconnecting(milliseconds: 1000))
        wakeup.signal()
        try loop.turn(limitMilliseconds: 1)
        #expect(wakeup.drain() == 1)
        try engine.stop()
    }

    @Test func `HI-I25: a host that comes back late leaves the port to the next one`() throws {
        let core = try #require(Topology.usableCPUs.last)
        let engine = try Engine(mode: .sink, cores: [core], idle: .pause)
        let port = try engine.addPort(name: "net0", kind: .peer)
        let hosts = (0..<2).map { _ in
            PeerPortHost(engine: engine, port: port, loop: loop) { text, _ in
                Issue.record("\(text)")
            }
        }
        try hosts[0].peerConnected(try connection())
        // Whoever has the port next need not wait for the first host to learn that it was let go.
        try engine.detach(port)
        try hosts[1].peerConnected(try connection())
        #expect(hosts[0].peerDisconnecting(milliseconds: 0))
        #expect(engine.snapshot().ports[port.index].isAttached)
        #expect(hosts[1].peerDisconnecting(milliseconds: 1000))
        #expect(!engine.snapshot().ports[port.index].isAttached)
        try engine.stop()
    }

    @Test func `a port that cannot be attached is shown with the reason, until it is`() throws {
        let core = try #require(Topology.usableCPUs.last)
        let engine = try Engine(mode: .sink, cores: [core], idle: .pause)
        let port = try engine.addPort(name: "net0", kind: .peer)
        let hosts = (0..<2).map { _ in
            PeerPortHost(engine: engine, port: port, loop: loop) { text, _ in
                Issue.record("\(text)")
            }
        }
        try hosts[0].peerConnected(try connection())
        for count in 1...2 as ClosedRange<UInt64> {
            #expect(throws: PeerConnectionFailure.self) {
                try hosts[1].peerConnected(try connection())
            }
            #expect(hosts[1].failure?.id == "port/attach")
            let shown = engine.snapshot().ports[port.index]
            #expect(shown.failure?.contains("attached already") == true)
            #expect(shown.attachFailures == count)
        }
        // It took nothing from the one that has the port.
        #expect(engine.snapshot().ports[port.index].isAttached)
        #expect(hosts[0].peerDisconnecting(milliseconds: 1000))
        try hosts[1].peerConnected(try connection())
        #expect(hosts[1].failure == nil)
        let shown = engine.snapshot().ports[port.index]
        #expect(shown.failure == nil && shown.attachFailures == 2 && shown.isAttached)
        #expect(hosts[1].peerDisconnecting(milliseconds: 1000))
        try engine.stop()
    }

    @Test func `HI-A25: a pair whose ring is out of reach is told as broken, the others go on`()
        throws
    {
        let core = try #require(Topology.usableCPUs.last)
        let engine = try Engine(mode: .sink, cores: [core], idle: .pause)
        let port = try engine.addPort(name: "net0", kind: .peer)
        var ids: [String?] = []
        let host = PeerPortHost(engine: engine, port: port, loop: loop) { _, id in ids.append(id) }
        let good = try connection()
        let bad = PeerRingSetup(
            index: 3,
            isPeerTransmit: true,
            isEnabled: true,
            isStarted: true,
            configuration: QueueConfiguration(
                size: 8,
                descriptorArea: 1 << 60,
                driverArea: 1 << 60,
                deviceArea: 1 << 60
            ),
            doorbell: .none
        )
        func handed(_ rings: [PeerRingSetup]) -> PeerConnection {
            PeerConnection(
                memory: good.memory,
                features: good.features,
                rings: rings,
                generation: 1
            )
        }
        try host.peerConnected(handed(good.rings + [bad]))
        #expect(host.brokenPairs == [1: "ring/area"])
        #expect(ids == ["ring/area"])
        #expect(host.peerDisconnecting(milliseconds: 1000))
        #expect(host.brokenPairs.isEmpty)
        #expect(throws: PeerConnectionFailure("ring/area", "no queue pair can be worked")) {
            try host.peerConnected(handed([bad]))
        }
        try engine.stop()
    }
}
