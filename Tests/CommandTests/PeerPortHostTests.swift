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
        host.peerConnected(try connection())
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
        hosts[0].peerConnected(try connection())
        // Whoever has the port next need not wait for the first host to learn that it was let go.
        try engine.detach(port)
        hosts[1].peerConnected(try connection())
        #expect(hosts[0].peerDisconnecting(milliseconds: 0))
        #expect(engine.snapshot().ports[port.index].isAttached)
        #expect(hosts[1].peerDisconnecting(milliseconds: 1000))
        #expect(!engine.snapshot().ports[port.index].isAttached)
        try engine.stop()
    }
}
