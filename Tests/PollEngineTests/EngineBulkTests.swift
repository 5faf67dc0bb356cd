import CAllocationCounter
import Glibc
import HostSystem
import Testing
import Virtqueue

@testable import PollEngine

/// Counts and bounds over much traffic; run optimised.
@Suite(.serialized) struct EngineBulkTests {
    /// One forwarder with its ports on the test's own thread.
    @safe
    struct Bench: ~Copyable {
        // Safety: both arrays have room for every slot until deinit.
        private let control: WorkerControl
        private let attachments: [PortAttachment]
        private let ports: UnsafeMutablePointer<UnsafeMutablePointer<PortState>>
        private let bySlot: UnsafeMutablePointer<UnsafeMutablePointer<PortState>?>
        private var tally = WorkerTally()

        init(_ peers: [PeerRig]) throws {
            // A thread's first kick enrols it with the guard of kicks, which allocates once.
            #expect(try EventFD().signal() == .signalled)
            let made = try Bench.attach(peers)
            control = try WorkerControl()
            attachments = made
            unsafe ports = .allocate(capacity: WorkerControl.capacity)
            unsafe bySlot = .allocate(capacity: WorkerControl.capacity)
            unsafe bySlot.initialize(repeating: nil, count: WorkerControl.capacity)
            for (slot, attachment) in made.enumerated() {
                unsafe attachment.state.pointee.suppressNotifications()
                unsafe ports[slot] = attachment.state
                unsafe bySlot[slot] = attachment.state
            }
        }

        private static func attach(_ peers: [PeerRig]) throws -> [PortAttachment] {
            var made: [PortAttachment] = []
            for (slot, peer) in peers.enumerated() {
                made.append(
                    try PortAttachment(
                        port: PortID(slot),
                        pairs: try peer.pairs(),
                        memory: peer.table,
                        memoryNode: nil,
                        workerNode: 0
                    )
                )
            }
            return made
        }

        deinit {
            unsafe ports.deallocate()
            unsafe bySlot.deallocate()
        }

        /// Polls until a turn finds nothing; returns the allocations this took.
        mutating func poll<F: Forwarder & ~Copyable>(_ forwarder: inout F) -> UInt64 {
            let list = unsafe PortList(ports: ports, count: attachments.count, bySlot: bySlot)
            let watch = PollWatch(command: 0, emptyTurns: 1, pauses: false)
            let before = allocation_count()
            _ = unsafe F.poll(&forwarder, list, control, &tally, watch)
            return allocation_count() - before
        }

        func record(_ slot: Int) -> PortRecord { attachments[slot].finalRecord }
    }

    static let plan = WorkerPlan(
        core: 0,
        idle: .spin,
        packetSize: 64,
        rate: nil,
        tableKey: 0x1357_9BDF
    )
    static let goal = 1_000_000

    /// Fills a peer's transmit ring with frames to several stations, without leaving the ring rig.
    static func fill(_ peer: PeerRig, _ frames: [[UInt8]], _ number: inout Int) {
        while peer.transmit.reap() != nil {}
        while peer.transmit.free > 0, peer.send(frames[number % frames.count]) { number += 1 }
    }

    static func drain(_ peer: PeerRig) -> Int {
        var count = 0
        while peer.receive.reap() != nil { count += 1 }
        peer.post()
        return count
    }

    @Test func `the counter counts`() {
        guard allocation_is_counted() == 1 else { return }
        let before = allocation_count()
        let array = [UInt8](repeating: 1, count: 100_000)
        #expect(array.count == 100_000)
        #expect(allocation_count() > before)
    }

    @Test func `a million packets into a sink allocate nothing`() throws {
        let peer = try PeerRig(size: 256)
        var bench = try Bench([peer])
        var forwarder = SinkForwarder(Self.plan)
        var allocations: UInt64 = 0
        var number = 0
        let frames = [Frame.make(to: Frame.station(1), from: Frame.station(2))]
        while number < Self.goal {
            Self.fill(peer, frames, &number)
            allocations += bench.poll(&forwarder)
        }
        #expect(allocations == 0)
        #expect(bench.record(0).engine.consumed == UInt64(number))
    }

    @Test func `a million echoes allocate nothing`() throws {
        let peer = try PeerRig(size: 256)
        peer.post()
        var bench = try Bench([peer])
        var forwarder = EchoForwarder(Self.plan)
        var allocations: UInt64 = 0
        var number = 0
        var arrived = 0
        let frames = [64, 300, 1518].map {
            Frame.make(to: Frame.station(1), from: Frame.station(2), count: $0)
        }
        while number < Self.goal {
            Self.fill(peer, frames, &number)
            allocations += bench.poll(&forwarder)
            arrived += Self.drain(peer)
        }
        #expect(allocations == 0)
        #expect(arrived == number)
    }

    @Test func `a million generated frames allocate nothing`() throws {
        let peer = try PeerRig(size: 256)
        peer.post()
        var bench = try Bench([peer])
        var forwarder = SourceForwarder(Self.plan)
        var allocations: UInt64 = 0
        var arrived = 0
        while arrived < Self.goal {
            allocations += bench.poll(&forwarder)
            arrived += Self.drain(peer)
        }
        #expect(allocations == 0)
        #expect(bench.record(0).engine.generated == UInt64(arrived))
    }

    @Test func `a million packets through a switch allocate nothing`() throws {
        let peers = try (0..<4).map { _ in try PeerRig(size: 256) }
        for peer in peers { peer.post() }
        var bench = try Bench(peers)
        var forwarder = SwitchForwarder(Self.plan)
        var allocations: UInt64 = 0
        var number = 0
        var arrived = 0
        let stations = (0..<4).map { Frame.station(UInt8($0)) }
        for index in 0..<4 {
            #expect(peers[index].send(Frame.make(to: Frame.broadcast, from: stations[index])))
        }
        allocations += bench.poll(&forwarder)
        for peer in peers { arrived += Self.drain(peer) }
        #expect(arrived == 12)
        arrived = 0
        // Every fourth packet is broadcast, the others go to three stations in turn.
        while number < Self.goal {
            for index in 0..<4 {
                let frames = (0..<4).map {
                    Frame.make(
                        to: $0 == index ? Frame.broadcast : stations[$0],
                        from: stations[index]
                    )
                }
                Self.fill(peers[index], frames, &number)
                allocations += bench.poll(&forwarder)
                for peer in peers { arrived += Self.drain(peer) }
            }
        }
        #expect(allocations == 0)
        var dropped: UInt64 = 0
        for slot in 0..<4 { dropped += bench.record(slot).engine.noBuffer }
        #expect(UInt64(arrived) + dropped == UInt64(number / 4 * 3 + number / 4 * 3))
    }

    @Test func `HI-I25: a thousand attachments leave nothing behind`() throws {
        let engine = try Engine(mode: .echo, cores: [EngineRig.core], idle: .pause)
        let id = try engine.addPort(name: "a", kind: .peer)
        let rig = try PeerRig(size: 64)
        rig.post()
        func cycle() throws {
            try engine.attach(id, pairs: try rig.pairs(), memory: rig.table)
            #expect(rig.send(Frame.make(to: Frame.station(1), from: Frame.station(2))))
            let deadline = Deadline(milliseconds: 2000)
            while rig.receiveFrame() == nil, !deadline.hasPassed {}
            try engine.detach(id)
        }
        for _ in 0..<100 { try cycle() }
        let before = try Footprint()
        for _ in 0..<900 { try cycle() }
        let after = try Footprint()
        #expect(after.descriptors <= before.descriptors + 8)
        #expect(after.mappings <= before.mappings + 32)
        #expect(after.residentPages <= before.residentPages + 1024)
        #expect(engine.snapshot().ports[0].received.packets == 1000)
        #expect(engine.snapshot().ports[0].transmitted.packets == 1000)
    }

    /// What this process holds; other suites run beside, so comparisons leave some room.
    struct Footprint {
        let descriptors: Int
        let mappings: Int
        let residentPages: Int

        init() throws {
            var count = 0
            let folder = unsafe try #require(unsafe opendir("/proc/self/fd"))
            while unsafe readdir(folder) != nil { count += 1 }
            unsafe closedir(folder)
            descriptors = count
            mappings = try Footprint.text("/proc/self/maps").count { $0 == 0x0A }
            let fields = String(
                decoding: try Footprint.text("/proc/self/statm"),
                as: UTF8.self
            ).split(separator: " ")
            residentPages = Int(fields[1]) ?? 0
        }

        private static func text(_ path: String) throws -> [UInt8] {
            let file = unsafe open(path, O_RDONLY)
            try #require(file >= 0)
            defer { close(file) }
            var all: [UInt8] = []
            var part = [UInt8](repeating: 0, count: 65_536)
            while true {
                let count = unsafe read(file, &part, part.count)
                if count <= 0 { return all }
                all += part.prefix(count)
            }
        }
    }
}
