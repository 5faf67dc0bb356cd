import GuestMemory
import HostSystem
import Synchronization
import Testing
import Virtqueue

@testable import VhostPCINet

/// With a thread at work on the window, as in a run.
@Suite(.serialized) struct ThreadedLoopTests {
    /// A thread that counts in the peer's memory without pause, until told to let go.
    private final class Worker: @unchecked Sendable {
        // Safety: the thread sees the table and the two atomics only.
        private let isStopping = Atomic<Bool>(false)
        private let turns = Atomic<UInt64>(0)
        private var thread: PollingThread?

        init(_ memory: MemoryTable, at address: UInt64) throws {
            thread = try PollingThread(name: "worker") { [self] in
                while !isStopping.load(ordering: .acquiring) {
                    guard let now = memory.read(address, 1),
                        memory.write([now[0] &+ 1], at: address)
                    else { return }
                    turns.add(1, ordering: .relaxed)
                }
            }
        }

        var turnCount: UInt64 { turns.load(ordering: .relaxed) }

        func letGo() {
            isStopping.store(true, ordering: .releasing)
            thread?.join()
        }

        /// Waits until the thread has made some turns from now on.
        func waitForTurns() {
            let start = turnCount
            let deadline = Deadline(milliseconds: 2000)
            while turnCount < start + 100, !deadline.hasPassed { unsafe SharedCell.pause() }
            #expect(turnCount >= start + 100)
        }
    }

    private let offset = 0x30000

    private func start(_ rig: LoopRig, _ peer: ScriptedPeer) throws -> Worker {
        let memory = try #require(rig.host.connection).memory
        let worker = try Worker(memory, at: peer.guestAddress(offset))
        rig.host.whileDisconnecting = { worker.letGo() }
        worker.waitForTurns()
        return worker
    }

    @Test func `HI-G7: OFF in mid-burst waits for the thread, and then nothing is touched`() throws
    {
        let rig = try LoopRig()
        let peer = try rig.connected()
        let worker = try start(rig, peer)
        // The reply comes only when the rings have stopped, and the thread with them.
        _ = try peer.stop(1)
        let (value, turns) = (peer[offset], worker.turnCount)
        try rig.run(milliseconds: 30)
        #expect(peer[offset] == value)
        #expect(worker.turnCount == turns)
        #expect(rig.host.disconnects == 1)
    }

    @Test func `HI-I1: a peer that dies under a working thread takes nobody with it`() throws {
        let rig = try LoopRig()
        var peer: ScriptedPeer? = try rig.connected()
        let worker = try start(rig, try #require(peer))
        peer = nil
        try rig.wait("OFF") { rig.host.connection == nil }
        #expect(worker.turnCount > 0)
        let next = try rig.connected()
        #expect(next[offset] == 0)
        try start(rig, next).letGo()
        rig.host.whileDisconnecting = nil
    }

    @Test func `HI-I11: memory cut short under a working thread ends that peer alone`() throws {
        let rig = try LoopRig()
        let peer = try rig.connected(isSealed: false)
        let worker = try start(rig, peer)
        try PeerMemory.truncate(peer.file, to: 0)
        worker.waitForTurns()
        try rig.wait("OFF") { rig.host.connection == nil }
        #expect(rig.refusals().contains("mem/truncated"))
        rig.host.whileDisconnecting = nil
        let next = try rig.connected()
        #expect(rig.host.connects == 2)
        withExtendedLifetime(next) {}
    }

    @Test func `VPN-M-10, VPN-M-16: a peer that scribbles over its rings under way harms nobody`()
        throws
    {
        let rig = try LoopRig()
        let peer = try rig.connected()
        let connection = try #require(rig.host.connection)
        let memory = peer.memory
        var generator = SystemRandomNumberGenerator()
        // Both rings, areas and buffers' first pages: any byte may change at any moment.
        let scribbler = Scribbler(memory, length: 0x6000)
        let thread = try PollingThread(name: "scribbler") { scribbler.run() }
        defer {
            scribbler.stop()
            thread.join()
        }
        var broken = 0
        for _ in 0..<2000 {
            var configuration = connection.rings[1].configuration
            configuration.nextAvailable = UInt16.random(in: 0...UInt16.max, using: &generator)
            var queue = try SplitDeviceQueue(configuration, memory: connection.memory)
            var burst = ChainBurst(longestChain: 64)
            for _ in 0..<4 where queue.error == nil {
                burst.clear()
                let taken = queue.takeReadable(into: &burst, limit: 32)
                #expect(taken <= 32)
                queue.releaseTaken(burst)
            }
            if queue.error != nil { broken += 1 }
        }
        #expect(broken > 0)
    }

    private final class Scribbler: @unchecked Sendable {
        // Safety: the mapping lives as long as this; the bytes are meant to be torn.
        private let memory: Mapping
        private let length: Int
        private let isStopping = Atomic<Bool>(false)

        init(_ memory: Mapping, length: Int) {
            self.memory = memory
            self.length = length
        }

        func run() {
            var state: UInt64 = 0x9e37_79b9_7f4a_7c15
            while !isStopping.load(ordering: .relaxed) {
                state = state &* 6_364_136_223_846_793_005 &+ 1_442_695_040_888_963_407
                let at = Int(truncatingIfNeeded: state >> 33) % length
                unsafe memory.address.storeBytes(
                    of: UInt8(truncatingIfNeeded: state >> 56),
                    toByteOffset: at,
                    as: UInt8.self
                )
            }
        }

        func stop() {
            isStopping.store(true, ordering: .relaxed)
        }
    }
}
