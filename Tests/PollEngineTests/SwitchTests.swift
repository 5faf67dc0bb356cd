import Glibc
import HostSystem
import Testing

@testable import PollEngine

@Suite(.serialized) struct SwitchTests {
    static func rig(_ peers: Int) throws -> EngineRig {
        let rig = try EngineRig(.switch)
        for _ in 0..<peers { try rig.addPeer() }
        return rig
    }

    static func settled(_ rig: EngineRig, received: UInt64) -> EngineReport {
        rig.report {
            $0.ports.reduce(0) { $0 + $1.received.packets } == received && $0.unaccounted == 0
        }
    }

    @Test func `an unknown destination is flooded to all others, a known one goes to its port`()
        throws
    {
        let rig = try Self.rig(3)
        let first = Frame.make(to: Frame.station(2), from: Frame.station(1), number: 1)
        #expect(rig.send(first, from: 0))
        #expect(rig.frame(at: 1) == first)
        #expect(rig.frame(at: 2) == first)
        let reply = Frame.make(to: Frame.station(1), from: Frame.station(2), number: 2)
        #expect(rig.send(reply, from: 1))
        #expect(rig.frame(at: 0) == reply)
        let second = Frame.make(to: Frame.station(2), from: Frame.station(1), number: 3)
        #expect(rig.send(second, from: 0))
        #expect(rig.frame(at: 1) == second)
        let report = Self.settled(rig, received: 3)
        #expect(rig.peers[2].receiveFrame() == nil)
        #expect(report.ports.map(\.transmitted.packets) == [1, 2, 1])
        #expect(report.ports.map(\.copies) == [1, 2, 1])
        #expect(report.ports[0].floodCopies == 1)
        #expect(report.unaccounted == 0)
    }

    @Test func `broadcast and multicast go to everybody but their sender`() throws {
        let rig = try Self.rig(4)
        for destination in [Frame.broadcast, [1, 0, 0x5E, 0, 0, 1]] {
            let frame = Frame.make(to: destination, from: Frame.station(1))
            #expect(rig.send(frame, from: 0))
            for index in 1...3 { #expect(rig.frame(at: index) == frame) }
        }
        let report = Self.settled(rig, received: 2)
        #expect(report.ports[0].transmitted.packets == 0)
        #expect(report.ports[0].floodCopies == 4)
        #expect(report.unaccounted == 0)
    }

    @Test func `a station that moves is followed`() throws {
        let rig = try Self.rig(3)
        #expect(rig.send(Frame.make(to: Frame.broadcast, from: Frame.station(7)), from: 1))
        #expect(rig.frame(at: 0) != nil)
        #expect(rig.send(Frame.make(to: Frame.broadcast, from: Frame.station(7)), from: 2))
        #expect(rig.frame(at: 0) != nil)
        let frame = Frame.make(to: Frame.station(7), from: Frame.station(1), number: 5)
        while rig.peers[2].receiveFrame() != nil {}
        #expect(rig.send(frame, from: 0))
        #expect(rig.frame(at: 2) == frame)
    }

    @Test func `a packet to a station of its own port goes nowhere and is counted`() throws {
        let rig = try Self.rig(2)
        #expect(rig.send(Frame.make(to: Frame.broadcast, from: Frame.station(7)), from: 0))
        #expect(rig.send(Frame.make(to: Frame.station(7), from: Frame.station(1)), from: 0))
        let report = Self.settled(rig, received: 2)
        #expect(report.ports[0].drops == ["switch/same-port": 1])
        #expect(report.ports[1].transmitted.packets == 1)
        #expect(report.ports.map(\.copies) == [0, 1])
    }

    @Test func `with nobody else there, packets are dropped by name`() throws {
        let rig = try Self.rig(1)
        for _ in 0..<5 {
            #expect(rig.send(Frame.make(to: Frame.broadcast, from: Frame.station(1)), from: 0))
        }
        let report = Self.settled(rig, received: 5)
        #expect(report.ports[0].drops == ["switch/no-port": 5])
        #expect(report.unaccounted == 0)
    }

    @Test func `a destination that was detached is unknown again`() throws {
        let rig = try Self.rig(3)
        #expect(rig.send(Frame.make(to: Frame.broadcast, from: Frame.station(2)), from: 1))
        #expect(rig.frame(at: 0) != nil)
        #expect(rig.frame(at: 2) != nil)
        try rig.engine.detach(rig.ports[1])
        let frame = Frame.make(to: Frame.station(2), from: Frame.station(1), number: 9)
        #expect(rig.send(frame, from: 0))
        #expect(rig.frame(at: 2) == frame)
        #expect(Self.settled(rig, received: 2).unaccounted == 0)
    }

    @Test func `what was for a removed port does not go to the one that has its place`() throws {
        let rig = try Self.rig(3)
        #expect(rig.send(Frame.make(to: Frame.broadcast, from: Frame.station(2)), from: 1))
        #expect(rig.frame(at: 0) != nil)
        #expect(rig.frame(at: 2) != nil)
        try rig.engine.detach(rig.ports[1])
        try rig.engine.removePort(rig.ports[1])
        try rig.addPeer()
        #expect(rig.ports[3].index == rig.ports[1].index && rig.ports[3] != rig.ports[1])
        let frame = Frame.make(to: Frame.station(2), from: Frame.station(1), number: 9)
        #expect(rig.send(frame, from: 0))
        #expect(rig.frame(at: 2) == frame)
        #expect(rig.frame(at: 3) == frame)
    }

    @Test func `frames too short for addresses are dropped at their source`() throws {
        let rig = try Self.rig(2)
        #expect(rig.send([UInt8](repeating: 1, count: 13), from: 0))
        let report = Self.settled(rig, received: 1)
        #expect(report.ports[0].drops == ["frame/short": 1])
        #expect(rig.peers[1].receiveFrame() == nil)
    }

    @Test func `HI-I9: a peer without buffers loses its own packets and nobody else's`() throws {
        let rig = try EngineRig(.switch)
        try rig.addPeer()
        let slow = try rig.addPeer(posting: 3)
        try rig.addPeer()
        for number in 0..<200 {
            let frame = Frame.make(
                to: Frame.broadcast,
                from: Frame.station(1),
                number: UInt32(number)
            )
            #expect(rig.send(frame, from: 0))
            #expect(rig.frame(at: 2) == frame)
        }
        let report = Self.settled(rig, received: 200)
        #expect(report.ports[1].transmitted.packets == 3)
        #expect(report.ports[1].drops == ["peer/no-buffer": 197])
        #expect(report.ports[2].transmitted.packets == 200)
        #expect(report.ports[2].drops.isEmpty)
        #expect(report.ports[0].drops.isEmpty)
        #expect(report.unaccounted == 0)
        slow.post()
        let last = Frame.make(to: Frame.broadcast, from: Frame.station(1), number: 999)
        #expect(rig.send(last, from: 0))
        #expect(rig.frame(at: 2) == last)
        var frames: [UInt32] = []
        while let frame = rig.peers[1].receiveFrame() { frames.append(Frame.number(of: frame)) }
        #expect(frames == [0, 1, 2, 999])
    }

    @Test func `HI-I10: a stuck peer is reported with its age, others go on, it can be detached`()
        throws
    {
        let rig = try EngineRig(.switch)
        try rig.addPeer()
        try rig.addPeer(posting: 0)
        try rig.addPeer()
        #expect(rig.engine.snapshot().ports[1].stalledNanoseconds == nil)
        #expect(rig.send(Frame.make(to: Frame.broadcast, from: Frame.station(1)), from: 0))
        #expect(rig.frame(at: 2) != nil)
        let first = rig.report { $0.ports[1].stalledNanoseconds != nil }
        let age = try #require(first.ports[1].stalledNanoseconds)
        #expect(first.ports[2].stalledNanoseconds == nil)
        pause(microseconds: 5000)
        let later = try #require(rig.engine.snapshot().ports[1].stalledNanoseconds)
        #expect(later >= age + 4_000_000)
        try rig.engine.detach(rig.ports[1])
        #expect(rig.engine.snapshot().ports[1].stalledNanoseconds == nil)
        #expect(rig.send(Frame.make(to: Frame.broadcast, from: Frame.station(1)), from: 0))
        #expect(rig.frame(at: 2) != nil)
    }

    @Test func `HI-I10: a peer that takes packets again is stalled no more`() throws {
        let rig = try EngineRig(.switch)
        try rig.addPeer()
        let peer = try rig.addPeer(posting: 0)
        #expect(rig.send(Frame.make(to: Frame.broadcast, from: Frame.station(1)), from: 0))
        #expect(
            rig.report { $0.ports[1].stalledNanoseconds != nil }.ports[1].stalledNanoseconds != nil
        )
        peer.post()
        #expect(rig.send(Frame.make(to: Frame.broadcast, from: Frame.station(1)), from: 0))
        #expect(rig.frame(at: 1) != nil)
        let report = rig.report { $0.ports[1].stalledNanoseconds == nil }
        #expect(report.ports[1].stalledNanoseconds == nil)
    }

    @Test func `a peer that breaks its ring is reported by name and others go on`() throws {
        let rig = try Self.rig(3)
        rig.peers[1].transmit.jump()
        let report = rig.report { $0.ports[1].ringError != nil }
        #expect(report.ports[1].ringError == .init(pair: 0, id: "ring/avail-jump"))
        #expect(report.ports[1].ringErrors == ["ring/avail-jump": 1])
        #expect(report.ports[0].ringError == nil)
        #expect(report.ports[0].ringErrors.isEmpty)
        #expect(report.ports[1].brokenPairs == [0] && report.ports[0].brokenPairs.isEmpty)
        let frame = Frame.make(to: Frame.broadcast, from: Frame.station(1))
        #expect(rig.send(frame, from: 0))
        #expect(rig.frame(at: 2) == frame)
    }

    @Test func `an uplink and peers reach each other`() throws {
        let rig = try Self.rig(2)
        let wire = try TapPortTests.Wire()
        let tap = try rig.engine.addTap("tap-test", wire.near)
        let out = Frame.make(to: Frame.broadcast, from: Frame.station(1), number: 4)
        #expect(rig.send(out, from: 0))
        var seen: [UInt8]?
        #expect(
            rig.eventually {
                seen = wire.receive()
                return seen != nil
            }
        )
        #expect(seen == out)
        #expect(rig.frame(at: 1) == out)
        let back = Frame.make(to: Frame.station(1), from: Frame.station(8), number: 6)
        wire.send(back)
        #expect(rig.frame(at: 0) == back)
        let again = Frame.make(to: Frame.station(8), from: Frame.station(1), number: 7, count: 900)
        #expect(rig.send(again, from: 0))
        #expect(
            rig.eventually {
                seen = wire.receive()
                return seen != nil
            }
        )
        #expect(seen == again)
        let report = Self.settled(rig, received: 3)
        #expect(report.ports[tap.index].kind == .tap)
        #expect(report.ports[tap.index].received == .init(packets: 1, bytes: 64))
        #expect(report.ports[tap.index].transmitted == .init(packets: 2, bytes: 964))
        // A write of the kernel each; and into the ring, what the kernel had copied when it was read.
        #expect(report.ports[tap.index].copies == 2)
        #expect(report.ports[0].copies == 2)
        #expect(report.unaccounted == 0)
        try rig.engine.detach(tap)
        #expect(report.ports[1].transmitted.packets == 1)
    }

    @Test func `random traffic between five ports reconciles and keeps order`() throws {
        let rig = try Self.rig(5)
        var random = SplitMix(state: 3)
        for index in 0..<5 {
            let hello = Frame.make(to: Frame.broadcast, from: Frame.station(UInt8(index)))
            #expect(rig.send(hello, from: index))
            #expect(Self.settled(rig, received: UInt64(index + 1)).unaccounted == 0)
        }
        for peer in rig.peers { while peer.receiveFrame() != nil {} }
        var last: [[UInt8]: UInt32] = [:]
        var arrived = 0
        func collect() {
            for (index, peer) in rig.peers.enumerated() {
                while let frame = peer.receiveFrame() {
                    arrived += 1
                    #expect(Array(frame[0..<6]) == Frame.station(UInt8(index)))
                    let flow = Array(frame[0..<12])
                    let number = Frame.number(of: frame)
                    #expect(number > last[flow] ?? 0)
                    last[flow] = number
                }
            }
        }
        for number in 1...4000 {
            let from = Int(random.next() % 5)
            let to = (from + 1 + Int(random.next() % 4)) % 5
            let frame = Frame.make(
                to: Frame.station(UInt8(to)),
                from: Frame.station(UInt8(from)),
                number: UInt32(number),
                count: 60 + Int(random.next() % 1400)
            )
            while !rig.send(frame, from: from) { collect() }
            if number % 16 == 0 { collect() }
        }
        let report = Self.settled(rig, received: 4005)
        collect()
        #expect(report.unaccounted == 0)
        let drops = report.ports.reduce(0) { $0 + $1.drops.values.reduce(0, +) }
        #expect(arrived + Int(drops) == 4000)
    }
}

/// Sleeps; the name keeps the unit at the call.
func pause(microseconds: UInt32) {
    usleep(microseconds)
}
