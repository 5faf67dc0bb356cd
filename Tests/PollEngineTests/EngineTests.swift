import GuestMemory
import HostSystem
import Testing
import Virtqueue

@testable import PollEngine

@Suite(.serialized) struct EngineTests {
    @Test func `a core that this process may not use is refused by name`() {
        do throws(EngineError) {
            _ = try Engine(mode: .sink, cores: [4095])
            Issue.record("CPU 4095 was accepted")
        } catch {
            #expect(error.description.contains("may not run on CPU 4095"))
        }
    }

    @Test func `no core, a repeated core and a negative core are refused`() {
        let core = EngineRig.core
        #expect(throws: EngineError.self) { try Engine(mode: .sink, cores: []) }
        #expect(throws: EngineError.self) { try Engine(mode: .sink, cores: [core, core]) }
        #expect(throws: EngineError.self) { try Engine(mode: .sink, cores: [-1]) }
    }

    @Test(.enabled(if: Topology.usableCPUs.count > 1, "this machine has one usable CPU"))
    func `a switch on several cores is not supported and says so`() {
        do throws(EngineError) {
            _ = try Engine(mode: .switch, cores: Array(Topology.usableCPUs.prefix(2)))
            Issue.record("a switch on two cores was accepted")
        } catch {
            #expect(error.description.hasPrefix("not supported: "))
        }
    }

    @Test(arguments: [0, 59, 65_536, -1])
    func `a frame size that no frame has is refused`(size: Int) {
        #expect(throws: EngineError.self) {
            try Engine(mode: .source, cores: [EngineRig.core], packetSize: size)
        }
    }

    @Test func `a rate of nothing is refused`() {
        #expect(throws: EngineError.self) {
            try Engine(mode: .source, cores: [EngineRig.core], rate: 0)
        }
    }

    @Test func `a worker runs on its core and is reported with its node`() throws {
        let rig = try EngineRig(.sink)
        let report = rig.engine.snapshot()
        #expect(report.workers.map(\.core) == [EngineRig.core])
        #expect(report.workers.map(\.node) == [try Topology.node(ofCPU: EngineRig.core)])
        #expect(report.cyclesPerSecond > 100_000_000)
        try rig.engine.stop()
    }

    @Test func `names are unique and strangers' ports are refused`() throws {
        let rig = try EngineRig(.sink)
        _ = try rig.engine.addPort(name: "a", kind: .peer)
        #expect(throws: EngineError.self) { try rig.engine.addPort(name: "a", kind: .peer) }
        #expect(throws: EngineError.self) { try rig.engine.detach(PortID(7)) }
        rig.engine.wake(PortID(7))
        #expect(rig.engine.wakeDescriptor(of: PortID(7)) == nil)
    }

    @Test func `a port is attached once at a time`() throws {
        let rig = try EngineRig(.sink)
        let peer = try rig.addPeer()
        #expect(throws: EngineError.self) {
            try rig.engine.attach(rig.ports[0], pairs: try peer.pairs(), memory: peer.table)
        }
        try rig.engine.detach(rig.ports[0])
        try rig.engine.detach(rig.ports[0])
        #expect(rig.engine.snapshot().ports[0].isAttached == false)
    }

    @Test func `no queue pair and too many are refused`() throws {
        let rig = try EngineRig(.sink)
        let id = try rig.engine.addPort(name: "a", kind: .peer)
        #expect(throws: EngineError.self) {
            try rig.engine.attach(id, pairs: PortPairs(), memory: .empty)
        }
        let peer = try PeerRig()
        var many = PortPairs()
        for _ in 0...PortPairs.limit { many.append(try peer.port()) }
        #expect(many.count == PortPairs.limit + 1)
        do throws(EngineError) {
            try rig.engine.attach(id, pairs: many, memory: peer.table)
            Issue.record("65 pairs were accepted")
        } catch {
            #expect(error.description.contains("1…64"))
        }
    }

    @Test func `a TAP uplink is for the switch, and must exist`() throws {
        let sink = try EngineRig(.sink)
        #expect(throws: EngineError.self) { try sink.engine.addTap("tap0") }
        let rig = try EngineRig(.switch)
        do throws(EngineError) {
            try rig.engine.addTap("vpcitest-none")
            Issue.record("an interface that is not there was accepted")
        } catch {
            #expect(error.description.contains("there is no interface vpcitest-none"))
        }
        #expect(rig.engine.snapshot().ports.isEmpty)
    }

    @Test func `totals survive detach and attach`() throws {
        let rig = try EngineRig(.sink)
        let peer = try rig.addPeer()
        for round in 1...3 {
            for number in 0..<10 {
                #expect(
                    rig.send(
                        Frame.make(
                            to: [2, 0, 0, 0, 0, 1],
                            from: [2, 0, 0, 0, 0, 2],
                            number: UInt32(number)
                        ),
                        from: 0
                    )
                )
            }
            let report = rig.report { $0.ports[0].received.packets == UInt64(round * 10) }
            #expect(report.ports[0].received.packets == UInt64(round * 10))
            #expect(report.ports[0].received.bytes == UInt64(round * 640))
            #expect(report.ports[0].connections == round)
            try rig.engine.detach(rig.ports[0])
            let after = rig.engine.snapshot().ports[0]
            #expect(after.received.packets == UInt64(round * 10))
            #expect(after.consumed == UInt64(round * 10))
            #expect(!after.isAttached)
            while peer.transmit.reap() != nil {}
            try rig.engine.attach(
                rig.ports[0],
                pairs: try peer.pairs(),
                memory: peer.table
            )
        }
    }

    @Test func `the memory of a peer is let go with its port`() throws {
        let rig = try EngineRig(.echo)
        weak var table: MemoryTable?
        let id = try rig.engine.addPort(name: "a", kind: .peer)
        do {
            let peer = try PeerRig()
            table = peer.table
            peer.post()
            try rig.engine.attach(id, pairs: try peer.pairs(), memory: peer.table)
            #expect(rig.engine.snapshot().ports[0].isAttached)
        }
        #expect(table != nil)
        try rig.engine.detach(id)
        #expect(table == nil)
    }

    @Test func `HI-I25: stop joins the workers before anything is freed, and is bounded`() throws {
        weak var table: MemoryTable?
        do {
            let rig = try EngineRig(.echo, idle: .spin)
            let peer = try rig.addPeer()
            table = peer.table
            for _ in 0..<20 {
                _ = rig.send(Frame.make(to: Frame.broadcast, from: Frame.station(1)), from: 0)
            }
            let start = MonotonicClock.now
            try rig.engine.stop()
            #expect(MonotonicClock.now - start < 1_000_000_000)
            try rig.engine.stop()
            #expect(throws: EngineError.self) { try rig.engine.addPort(name: "b", kind: .peer) }
            let report = rig.engine.snapshot()
            #expect(!report.ports[0].isAttached)
            #expect(report.unaccounted == 0)
            #expect(peer.send(Frame.make(to: Frame.broadcast, from: Frame.station(1))))
        }
        #expect(table == nil)
    }

    @Test func `HI-I25: an engine that is dropped while it polls ends its workers`() throws {
        weak var control: WorkerControl?
        do {
            let rig = try EngineRig(.switch, idle: .pause)
            try rig.addPeer()
            control = rig.engine.workerControls.first
            #expect(control != nil)
        }
        #expect(control == nil)
    }

    @Test func `ports that were removed leave their place and their name to others`() throws {
        let rig = try EngineRig(.sink)
        try rig.addPeer()
        var earlier: PortID?
        for round in 0..<1000 {
            let id = try rig.engine.addPort(name: "net0", kind: .peer)
            #expect(id.index == 1 && id != earlier)
            if let earlier {
                #expect(throws: EngineError.self) { try rig.engine.detach(earlier) }
                #expect(throws: EngineError.self) { try rig.engine.removePort(earlier) }
                #expect(rig.engine.connections(of: earlier) == 0)
            }
            if round % 100 == 0 {
                let peer = try PeerRig()
                try rig.engine.attach(id, pairs: try peer.pairs(), memory: peer.table)
                #expect(throws: EngineError.self) { try rig.engine.removePort(id) }
                try rig.engine.detach(id)
            }
            let report = rig.engine.snapshot()
            #expect(report.port(id)?.name == "net0")
            #expect(earlier.flatMap { report.port($0) } == nil)
            try rig.engine.removePort(id)
            earlier = id
        }
        #expect(rig.engine.snapshot().ports.map(\.name) == ["peer0"])
        // There is room for as many as ever.
        for number in 1..<Engine.portLimit {
            _ = try rig.engine.addPort(name: "net\(number)", kind: .peer)
        }
        #expect(throws: EngineError.self) {
            try rig.engine.addPort(name: "more", kind: .peer)
        }
    }
}
