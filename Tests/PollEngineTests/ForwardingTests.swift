import HostSystem
import Testing

@testable import PollEngine

/// Sink, source and echo, with peers in memory.
@Suite(.serialized) struct ForwardingTests {
    @Test func `a sink counts packets and bytes and gives every buffer back`() throws {
        let rig = try EngineRig(.sink)
        let peer = try rig.addPeer()
        var bytes = 0
        for number in 0..<500 {
            let frame = Frame.make(
                to: Frame.station(9),
                from: Frame.station(1),
                count: 60 + number
            )
            #expect(rig.eventually { peer.send(frame) })
            bytes += frame.count
        }
        let report = rig.report { $0.ports[0].received.packets == 500 }
        #expect(report.ports[0].received == .init(packets: 500, bytes: UInt64(bytes)))
        #expect(report.ports[0].consumed == 500)
        #expect(report.ports[0].copies == 0)
        #expect(report.ports[0].transmitted.packets == 0)
        #expect(report.unaccounted == 0)
        while peer.transmit.reap() != nil {}
        #expect(peer.transmit.free == peer.transmit.size)
    }

    @Test func `an echo comes back whole, with the addresses exchanged`() throws {
        let rig = try EngineRig(.echo)
        let peer = try rig.addPeer()
        for count in [14, 15, 60, 64, 255, 1500, 2036] {
            let frame = Array(
                Frame.make(to: Frame.station(9), from: Frame.station(1), count: count)
                    .prefix(count)
            )
            #expect(rig.send(frame, from: 0))
            let back = try #require(rig.frame(at: 0))
            #expect(back == Frame.station(1) + Frame.station(9) + frame.dropFirst(12))
        }
        #expect(peer.transmit.outstanding <= 1)
        let report = rig.report { $0.ports[0].transmitted.packets == 7 }
        #expect(report.ports[0].transmitted.packets == 7)
        #expect(report.ports[0].copies == 7)
    }

    @Test func `an echo leaves the peer's transmit buffer as it was`() throws {
        let rig = try EngineRig(.echo)
        let peer = try rig.addPeer(size: 8)
        let frame = Frame.make(to: Frame.station(9), from: Frame.station(1))
        #expect(rig.send(frame, from: 0))
        _ = try #require(rig.frame(at: 0))
        let (head, _) = try #require(peer.transmit.reap())
        let buffer = unsafe peer.transmit.buffer(head) + PeerRig.headerSize
        #expect(unsafe [UInt8](UnsafeRawBufferPointer(start: buffer, count: 64)) == frame)
    }

    @Test func `a frame without a whole header is not echoed and is counted`() throws {
        let rig = try EngineRig(.echo)
        try rig.addPeer()
        let frame = Frame.make(to: Frame.station(9), from: Frame.station(1))
        #expect(rig.send(Array(frame.prefix(13)), from: 0))
        #expect(rig.send(Array(frame.prefix(1)), from: 0))
        #expect(rig.send(frame, from: 0))
        #expect(rig.frame(at: 0)?.count == 64)
        let report = rig.report { $0.ports[0].drops["frame/short"] == 2 }
        #expect(report.ports[0].drops == ["frame/short": 2])
        #expect(report.ports[0].transmitted.packets == 1)
        #expect(report.unaccounted == 0)
    }

    @Test func `echo keeps the order of a thousand frames`() throws {
        let rig = try EngineRig(.echo, idle: .pause)
        let peer = try rig.addPeer(size: 128)
        var next: UInt32 = 0
        var expected: UInt32 = 0
        let done = rig.eventually {
            while next < 1000, next - expected < 100,
                peer.send(Frame.make(to: Frame.station(9), from: Frame.station(1), number: next))
            {
                next += 1
            }
            while let frame = peer.receiveFrame() {
                if Frame.number(of: frame) != expected { return false }
                expected += 1
            }
            return expected == 1000
        }
        #expect(done)
        #expect(expected == 1000)
    }

    @Test func `a source fills every buffer with numbered frames and loses no number`() throws {
        let rig = try EngineRig(.source, packetSize: 100)
        try rig.addPeer(size: 32)
        for expected in 0..<500 {
            let frame = try #require(rig.frame(at: 0))
            #expect(frame.count == 100)
            #expect(Array(frame[12..<14]) == [0x88, 0xB5])
            let number = frame[16..<24].reversed().reduce(0) { $0 << 8 | Int($1) }
            #expect(number == expected)
            #expect(frame[99] == 99)
        }
        try rig.engine.stop()
        let port = rig.engine.snapshot().ports[0]
        #expect(port.generated == port.transmitted.packets)
        #expect(port.copies == port.transmitted.packets)
        #expect(port.drops.isEmpty)
        #expect(rig.engine.snapshot().unaccounted == 0)
    }

    @Test func `sources number each peer's frames by themselves, with its own addresses`() throws {
        let rig = try EngineRig(.source)
        try rig.addPeer()
        try rig.addPeer()
        for index in 0..<2 {
            let frame = try #require(rig.frame(at: index))
            #expect(frame[16..<24].allSatisfy { $0 == 0 })
            #expect(Array(frame[0..<6]) == [2, 0x56, 0x50, 0, UInt8(index), 1])
            #expect(Array(frame[6..<12]) == [2, 0x56, 0x50, 0, UInt8(index), 0])
        }
    }

    @Test func `a source with a rate sends about that many`() throws {
        let rig = try EngineRig(.source, idle: .pause, rate: 10_000)
        let peer = try rig.addPeer(size: 256)
        let start = MonotonicClock.now
        var count = 0
        while MonotonicClock.now - start < 200_000_000 {
            while peer.receiveFrame() != nil { count += 1 }
            pause(microseconds: 200)
        }
        #expect(count < 2400)
        #expect(count > 200)
    }

    @Test func `a source takes in what peers transmit`() throws {
        let rig = try EngineRig(.source)
        try rig.addPeer()
        #expect(rig.send(Frame.make(to: Frame.station(9), from: Frame.station(1)), from: 0))
        let report = rig.report { $0.ports[0].consumed == 1 }
        #expect(report.ports[0].consumed == 1)
    }

    @Test(arguments: [ForwardingMode.sink, .echo, .switch, .source])
    func `VU-R-04: a started, disabled transmit ring is taken and discarded`(
        mode: ForwardingMode
    ) throws {
        let rig = try EngineRig(mode)
        let peer = try rig.addPeer(size: 8, isTransmitEnabled: false)
        try rig.addPeer()
        for number in 0..<50 {
            let frame = Frame.make(
                to: Frame.broadcast,
                from: Frame.station(1),
                number: UInt32(number)
            )
            #expect(rig.eventually { peer.send(frame) })
        }
        let report = rig.report { $0.ports[0].drops["peer/transmit-disabled"] == 50 }
        #expect(report.ports[0].drops["peer/transmit-disabled"] == 50)
        #expect(report.ports[0].consumed == 0)
        if mode == .switch { #expect(rig.peers[1].receiveFrame() == nil) }
        if mode == .echo { #expect(peer.receiveFrame() == nil) }
        #expect(report.unaccounted == 0 || mode == .source)
    }

    @Test(arguments: [ForwardingMode.echo, .switch, .source])
    func `VU-R-04: nothing is delivered to a disabled receive ring`(mode: ForwardingMode) throws {
        let rig = try EngineRig(mode)
        let peer = try rig.addPeer(isReceiveEnabled: false)
        try rig.addPeer()
        let from = mode == .echo ? 0 : 1
        for _ in 0..<10 {
            #expect(rig.send(Frame.make(to: Frame.broadcast, from: Frame.station(1)), from: from))
        }
        let report = rig.report {
            mode == .source
                ? $0.ports[1].transmitted.packets > 0
                : $0.ports[0].drops["peer/receive-disabled"] == 10
        }
        #expect(peer.receiveFrame() == nil)
        #expect(report.ports[0].transmitted.packets == 0)
        if mode != .source { #expect(report.ports[0].drops == ["peer/receive-disabled": 10]) }
    }

    @Test func `a sleeping worker asks for kicks and wakes by one`() throws {
        let rig = try EngineRig(.sink, idle: .sleep)
        let peer = try rig.addPeer()
        #expect(rig.report { $0.workers[0].sleeps > 0 }.workers[0].sleeps > 0)
        #expect(rig.eventually { peer.transmit.wantsKick })
        let descriptor = try #require(rig.engine.wakeDescriptor(of: rig.ports[0]))
        #expect(peer.send(Frame.make(to: Frame.station(9), from: Frame.station(1))))
        EventFD.signal(descriptor.rawValue)
        let report = rig.report { $0.ports[0].received.packets == 1 }
        #expect(report.ports[0].received.packets == 1)
    }

    @Test func `a sleeping worker wakes by the peer's own eventfd and takes its count`() throws {
        let engine = try Engine(mode: .sink, cores: [EngineRig.core], idle: .sleep)
        let peer = try PeerRig()
        let kick = try EventFD()
        var pairs = PortPairs()
        pairs.append(try peer.port(), wakeup: kick)
        let id = try engine.addPort(name: "a", kind: .peer)
        try engine.attach(id, pairs: pairs, memory: peer.table)
        for number in 1...5 {
            let deadline = Deadline(milliseconds: 2000)
            while !peer.transmit.wantsKick, !deadline.hasPassed { pause(microseconds: 50) }
            #expect(peer.transmit.wantsKick)
            #expect(peer.send(Frame.make(to: Frame.station(9), from: Frame.station(1))))
            kick.signal()
            while engine.snapshot().ports[0].received.packets < number, !deadline.hasPassed {}
            #expect(engine.snapshot().ports[0].received.packets == UInt64(number))
        }
        try engine.detach(id)
        #expect(kick.drain() == 0)
    }

    @Test(arguments: [IdleStrategy.spin, .pause])
    func `a polling worker needs no kick and asks for none`(idle: IdleStrategy) throws {
        let rig = try EngineRig(.sink, idle: idle)
        let peer = try rig.addPeer()
        #expect(peer.send(Frame.make(to: Frame.station(9), from: Frame.station(1))))
        let deadline = Deadline(milliseconds: 2000)
        while rig.engine.snapshot().ports[0].received.packets == 0, !deadline.hasPassed {}
        let report = rig.engine.snapshot()
        #expect(report.ports[0].received.packets == 1)
        #expect(!peer.transmit.wantsKick)
        #expect(report.workers[0].emptyPolls > 0)
        #expect(report.workers[0].idleCycles > 0)
    }
}
