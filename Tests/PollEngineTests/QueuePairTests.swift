import HostSystem
import Testing

@testable import PollEngine

/// Ports of several queue pairs, and engines of several cores.
@Suite(.serialized) struct QueuePairTests {
    /// A port whose pairs are the pairs of several rigs over one table each.
    static func pairs(_ rigs: [PeerRig], closed: Set<Int> = []) throws -> PortPairs {
        var pairs = PortPairs()
        for (index, rig) in rigs.enumerated() {
            rig.post()
            pairs.append(try rig.port(), isReceiveEnabled: !closed.contains(index))
        }
        return pairs
    }

    @Test func `a port whose attachment fails leaves nothing watched and can be attached`() throws {
        let engine = try Engine(mode: .sink, cores: [EngineRig.core], idle: .sleep)
        let peer = try PeerRig()
        let kick = try EventFD()
        let id = try engine.addPort(name: "a", kind: .peer)
        var pairs = PortPairs()
        pairs.append(try peer.port(), wakeup: kick)
        pairs.append(try PeerRig().port(), wakeup: kick)
        // One descriptor cannot be watched twice.
        do throws(EngineError) {
            try engine.attach(id, pairs: pairs, memory: peer.table)
            Issue.record("one kick for two pairs was taken")
        } catch {
            #expect(error.description.contains("watch descriptor"))
        }
        var again = PortPairs()
        again.append(try peer.port(), wakeup: kick)
        try engine.attach(id, pairs: again, memory: peer.table)
        #expect(engine.snapshot().ports[0].connections == 1)
        try engine.stop()
    }

    static func frame(_ rig: PeerRig) -> [UInt8]? {
        let deadline = Deadline(milliseconds: 2000)
        while !deadline.hasPassed {
            if let frame = rig.receiveFrame() { return frame }
            pause(microseconds: 20)
        }
        return nil
    }

    @Test func `an echo comes back on the pair it came from`() throws {
        let engine = try Engine(mode: .echo, cores: [EngineRig.core])
        let rigs = try (0..<3).map { _ in try PeerRig() }
        let id = try engine.addPort(name: "a", kind: .peer)
        try engine.attach(id, pairs: try Self.pairs(rigs), memory: rigs[0].table)
        for (number, rig) in rigs.enumerated() {
            let frame = Frame.make(
                to: Frame.station(1),
                from: Frame.station(2),
                number: UInt32(number)
            )
            #expect(rig.send(frame))
            #expect(Self.frame(rig).map(Frame.number(of:)) == UInt32(number))
        }
        try engine.stop()
        let port = engine.snapshot().ports[0]
        #expect(port.received.packets == 3)
        #expect(port.transmitted.packets == 3)
        #expect(engine.snapshot().unaccounted == 0)
    }

    @Test func `VU-R-04: a pair whose receive ring is disabled hands over to one that is not`()
        throws
    {
        let engine = try Engine(mode: .echo, cores: [EngineRig.core])
        let rigs = try (0..<3).map { _ in try PeerRig() }
        let id = try engine.addPort(name: "a", kind: .peer)
        try engine.attach(id, pairs: try Self.pairs(rigs, closed: [1, 2]), memory: rigs[0].table)
        for rig in rigs {
            #expect(rig.send(Frame.make(to: Frame.station(1), from: Frame.station(2))))
            #expect(Self.frame(rigs[0]) != nil)
        }
        #expect(rigs[1].receiveFrame() == nil)
        #expect(rigs[2].receiveFrame() == nil)
        try engine.stop()
        #expect(engine.snapshot().ports[0].drops.isEmpty)
    }

    @Test func `a switch takes the destination's pair by the source's, round and round`() throws {
        let engine = try Engine(mode: .switch, cores: [EngineRig.core])
        let wide = try (0..<3).map { _ in try PeerRig() }
        let narrow = [try PeerRig()]
        let first = try engine.addPort(name: "wide", kind: .peer)
        let second = try engine.addPort(name: "narrow", kind: .peer)
        try engine.attach(first, pairs: try Self.pairs(wide), memory: wide[0].table)
        try engine.attach(second, pairs: try Self.pairs(narrow), memory: narrow[0].table)
        for rig in wide {
            #expect(rig.send(Frame.make(to: Frame.broadcast, from: Frame.station(1))))
            #expect(Self.frame(narrow[0]) != nil)
        }
        #expect(narrow[0].send(Frame.make(to: Frame.station(1), from: Frame.station(2))))
        #expect(Self.frame(wide[0]) != nil)
        #expect(wide[1].receiveFrame() == nil)
        try engine.stop()
        #expect(engine.snapshot().unaccounted == 0)
    }

    @Test(.enabled(if: Topology.usableCPUs.count > 1, "this machine has one usable CPU"))
    func `ports are spread over the cores and each is served by one`() throws {
        let cores = Array(Topology.usableCPUs.prefix(2))
        let engine = try Engine(mode: .echo, cores: cores, idle: .sleep)
        var rigs: [PeerRig] = []
        for number in 0..<4 {
            let rig = try PeerRig()
            let id = try engine.addPort(name: "peer\(number)", kind: .peer)
            try engine.attach(id, pairs: try Self.pairs([rig]), memory: rig.table)
            rigs.append(rig)
        }
        #expect(engine.snapshot().ports.map(\.core) == [cores[0], cores[1], cores[0], cores[1]])
        for (number, rig) in rigs.enumerated() {
            #expect(rig.send(Frame.make(to: Frame.station(1), from: Frame.station(2))))
            engine.wake(PortID(number))
            #expect(Self.frame(rig) != nil)
        }
        try engine.stop()
        let report = engine.snapshot()
        #expect(report.workers.map(\.core) == cores)
        #expect(report.ports.map(\.transmitted.packets) == [1, 1, 1, 1])
        #expect(report.unaccounted == 0)
    }

    @Test func `HI-I10: with one of three peers stuck, an echo serves the other two`() throws {
        let rig = try EngineRig(.echo)
        try rig.addPeer()
        try rig.addPeer(posting: 0)
        try rig.addPeer()
        let frame = Frame.make(to: Frame.station(1), from: Frame.station(2))
        for _ in 0..<100 {
            #expect(rig.eventually { rig.send(frame, from: 1) })
            for index in [0, 2] {
                #expect(rig.send(frame, from: index))
                #expect(rig.frame(at: index)?.count == 64)
            }
        }
        let report = rig.report { $0.ports[1].drops["peer/no-buffer"] == 100 }
        #expect(report.ports[1].drops == ["peer/no-buffer": 100])
        #expect(report.ports[1].stalledNanoseconds != nil)
        #expect(report.ports[0].stalledNanoseconds == nil)
        #expect(report.ports[2].transmitted.packets == 100)
        #expect(report.unaccounted == 0)
    }
}
