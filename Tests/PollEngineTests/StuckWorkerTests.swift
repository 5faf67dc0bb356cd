import Glibc
import GuestMemory
import HostSystem
import Testing

@testable import PollEngine

/// A worker that is held up: by an uplink over a descriptor that blocks, which no real one does.
@Suite(.serialized) struct StuckWorkerTests {
    /// Two ends of which the near one blocks.
    struct Wire {
        let near: FileDescriptor
        let far: FileDescriptor

        init() throws {
            var ends: [Int32] = [-1, -1]
            let kind = Int32(SOCK_SEQPACKET.rawValue)
            #expect(unsafe socketpair(AF_UNIX, kind, 0, &ends) == 0)
            near = FileDescriptor(owning: ends[0])
            far = FileDescriptor(owning: ends[1])
        }

        /// Ends the worker's wait, and every later one.
        func release() {
            #expect(shutdown(far.rawValue, Int32(SHUT_RDWR)) == 0)
        }
    }

    @Test func `HI-I25: a port that a worker does not let go is named and kept`() throws {
        let rig = try EngineRig(.switch, idle: .pause)
        let wire = try Wire()
        weak var table: MemoryTable?
        let id: PortID
        do {
            let peer = try PeerRig()
            table = peer.table
            id = try rig.engine.addPort(name: "a", kind: .peer)
            try rig.engine.attach(id, pairs: try peer.pairs(), memory: peer.table)
        }
        let tap = try rig.engine.addTap("tap-stuck", wire.near)
        pause(microseconds: 20_000)
        let start = MonotonicClock.now
        do throws(EngineError) {
            try rig.engine.detach(id)
            Issue.record("a worker that hangs let go of a port")
        } catch {
            #expect(error.description.contains("did not let go of port a within 1000 ms"))
        }
        #expect(MonotonicClock.now - start < 3_000_000_000)
        #expect(table != nil)
        #expect(rig.engine.snapshot().ports[id.index].isAttached == false)
        let other = try PeerRig()
        #expect(throws: EngineError.self) {
            try rig.engine.attach(id, pairs: try other.pairs(), memory: other.table)
        }
        #expect(rig.engine.isDetaching(id) && !rig.engine.isDetaching(tap))
        wire.release()
        pause(microseconds: 20_000)
        #expect(!rig.engine.isDetaching(id))
        #expect(table == nil)
        try rig.engine.detach(id)
        try rig.engine.attach(id, pairs: try other.pairs(), memory: other.table)
        try rig.engine.detach(tap)
        try rig.engine.stop()
    }

    @Test func `HI-I1: a port that was let go late serves the next peer`() throws {
        let rig = try EngineRig(.switch, idle: .pause)
        let wire = try Wire()
        let peer = try PeerRig()
        let id = try rig.engine.addPort(name: "a", kind: .peer)
        try rig.engine.attach(id, pairs: try peer.pairs(), memory: peer.table)
        _ = try rig.engine.addTap("tap-stuck", wire.near)
        pause(microseconds: 20_000)
        #expect(throws: EngineError.self) { try rig.engine.detach(id) }
        wire.release()
        // Whoever connects next need not know that the worker was late.
        let next = try PeerRig()
        try rig.engine.attach(id, pairs: try next.pairs(), memory: next.table)
        #expect(rig.engine.snapshot().ports[id.index].isAttached)
        #expect(rig.engine.snapshot().ports[id.index].connections == 2)
        try rig.engine.stop()
    }

    @Test func `HI-I25: a worker that does not end is named, and what it may touch stays`() throws {
        let rig = try EngineRig(.switch, idle: .pause)
        let wire = try Wire()
        weak var table: MemoryTable?
        do {
            let peer = try PeerRig()
            table = peer.table
            let id = try rig.engine.addPort(name: "a", kind: .peer)
            try rig.engine.attach(id, pairs: try peer.pairs(), memory: peer.table)
        }
        _ = try rig.engine.addTap("tap-stuck", wire.near)
        pause(microseconds: 20_000)
        do throws(EngineError) {
            try rig.engine.stop()
            Issue.record("a worker that hangs ended")
        } catch {
            #expect(error.description.contains("did not end within 1000 ms"))
        }
        #expect(table != nil)
        #expect(rig.engine.snapshot().ports.map(\.isAttached) == [true, true])
        wire.release()
        try rig.engine.stop()
        #expect(table == nil)
        #expect(rig.engine.snapshot().ports.map(\.isAttached) == [false, false])
    }
}
