import HostSystem
import Synchronization
import Testing

@testable import PollEngine

/// Ports that come and go while another thread keeps their rings full. Meant for the thread
/// sanitizer as well.
@Suite(.serialized) struct AttachUnderLoadTests {
    /// The driver of one peer on a thread of its own: sends numbered frames to itself by way of an
    /// echo, or to anybody, and checks what comes.
    final class Driver: Sendable {
        private let isStopping = Atomic<Bool>(false)
        let sent = Atomic<Int>(0)
        let arrived = Atomic<Int>(0)
        let wrong = Atomic<Int>(0)

        func stop() { isStopping.store(true, ordering: .releasing) }

        /// Keeps `window` frames under way; ends when told to and all have come back.
        func runEcho(_ peer: PeerRig, window: Int) {
            let expected = Array(Frame.station(9) + Frame.station(1))
            while true {
                let isEnding = isStopping.load(ordering: .acquiring)
                var next = sent.load(ordering: .relaxed)
                var done = arrived.load(ordering: .relaxed)
                if isEnding, done == next { return }
                while !isEnding, next - done < window,
                    peer.send(
                        Frame.make(
                            to: Frame.station(1),
                            from: Frame.station(9),
                            number: UInt32(next)
                        )
                    )
                {
                    next += 1
                }
                sent.store(next, ordering: .relaxed)
                while let frame = peer.receiveFrame() {
                    let isRight =
                        Frame.number(of: frame) == UInt32(done)
                        && Array(frame.prefix(12)) == expected
                    if !isRight { wrong.add(1, ordering: .relaxed) }
                    done += 1
                }
                arrived.store(done, ordering: .relaxed)
                pause(microseconds: 1)
            }
        }
    }

    /// The rig is used by one thread at a time but for the two ring positions, which are atomic.
    @safe struct Peer: @unchecked Sendable {
        let rig: PeerRig
    }

    @Test(arguments: [IdleStrategy.pause, .sleep])
    func `HI-I25: attach and detach under load lose and repeat nothing`(
        idle: IdleStrategy
    ) throws {
        let engine = try Engine(mode: .echo, cores: [EngineRig.core], idle: idle)
        let rig = try PeerRig(size: 64)
        rig.post()
        let id = try engine.addPort(name: "a", kind: .peer)
        let driver = Driver()
        let peer = Peer(rig: rig)
        let thread = try PollingThread(name: "driver") { driver.runEcho(peer.rig, window: 48) }
        for _ in 0..<100 {
            try engine.attach(id, pairs: try rig.pairs(), memory: rig.table)
            let before = driver.arrived.load(ordering: .relaxed)
            let deadline = Deadline(milliseconds: 2000)
            while driver.arrived.load(ordering: .relaxed) < before + 20, !deadline.hasPassed {
                engine.wake(id)
                pause(microseconds: 50)
            }
            #expect(driver.arrived.load(ordering: .relaxed) >= before + 20)
            try engine.detach(id)
        }
        try engine.attach(id, pairs: try rig.pairs(), memory: rig.table)
        driver.stop()
        let deadline = Deadline(milliseconds: 2000)
        while driver.arrived.load(ordering: .relaxed) < driver.sent.load(ordering: .relaxed),
            !deadline.hasPassed
        {
            engine.wake(id)
            pause(microseconds: 50)
        }
        #expect(
            driver.arrived.load(ordering: .relaxed) == driver.sent.load(ordering: .relaxed)
        )
        thread.join()
        try engine.stop()
        let report = engine.snapshot()
        let sent = UInt64(driver.sent.load(ordering: .relaxed))
        #expect(driver.wrong.load(ordering: .relaxed) == 0)
        #expect(report.ports[0].received.packets == sent)
        #expect(report.ports[0].transmitted.packets == sent)
        #expect(report.ports[0].connections == 101)
        #expect(report.unaccounted == 0)
    }

    @Test func `ports of a switch that come and go leave the others' traffic alone`() throws {
        let rig = try EngineRig(.switch, idle: .pause)
        try rig.addPeer()
        try rig.addPeer()
        let guest = try rig.addPeer()
        // Teaches the switch where the two that stay are.
        #expect(rig.send(Frame.make(to: Frame.broadcast, from: Frame.station(2)), from: 1))
        #expect(rig.frame(at: 0) != nil)
        var number: UInt32 = 0
        for _ in 0..<60 {
            try rig.engine.detach(rig.ports[2])
            for _ in 0..<5 {
                number += 1
                let frame = Frame.make(
                    to: Frame.station(2),
                    from: Frame.station(1),
                    number: number
                )
                #expect(rig.send(frame, from: 0))
                #expect(rig.send(Frame.make(to: Frame.broadcast, from: Frame.station(1)), from: 0))
            }
            try rig.engine.attach(
                rig.ports[2],
                pairs: try guest.pairs(),
                memory: guest.table
            )
            for _ in 0..<5 { #expect(rig.frame(at: 1) != nil) }
            for _ in 0..<5 { #expect(rig.frame(at: 1) != nil) }
            while guest.receiveFrame() != nil {}
        }
        try rig.engine.stop()
        let report = rig.engine.snapshot()
        #expect(report.ports[1].transmitted.packets == 600)
        #expect(report.ports[1].drops.isEmpty)
        #expect(report.unaccounted == 0)
    }

    @Test func `HI-I25: stop under load is bounded and every packet is accounted for`() throws {
        for _ in 0..<10 {
            let engine = try Engine(mode: .echo, cores: [EngineRig.core], idle: .spin)
            let rig = try PeerRig(size: 64)
            rig.post()
            let id = try engine.addPort(name: "a", kind: .peer)
            try engine.attach(id, pairs: try rig.pairs(), memory: rig.table)
            let start = MonotonicClock.now
            var sent = 0
            while MonotonicClock.now - start < 3_000_000 {
                if rig.send(Frame.make(to: Frame.station(1), from: Frame.station(2))) { sent += 1 }
            }
            let begin = MonotonicClock.now
            try engine.stop()
            #expect(MonotonicClock.now - begin < 1_000_000_000)
            let port = engine.snapshot().ports[0]
            #expect(port.received.packets <= UInt64(sent))
            #expect(engine.snapshot().unaccounted == 0)
        }
    }
}
