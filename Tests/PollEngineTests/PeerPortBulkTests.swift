import CAllocationCounter
import RingSupport
import Testing
import VirtioSpec
import Virtqueue

@testable import PollEngine

/// Millions of packets through the packet path; optimised builds only.
@Suite struct PeerPortBulkTests {
    private static let packets = 1_000_000

    /// A peer's two rings with a driver on each, and what it posts.
    private struct Peer: ~Copyable {
        let transmitRig: SplitRingRig
        let receiveRig: SplitRingRig
        var transmit: SplitDriverQueue
        var receive: SplitDriverQueue

        init(bufferSize: UInt32) throws {
            let transmitRig = try SplitRingRig(size: 256)
            let receiveRig = try SplitRingRig(size: 256)
            let transmit = try SplitDriverQueue(
                transmitRig.configuration,
                memory: transmitRig.table
            )
            var receive = try SplitDriverQueue(receiveRig.configuration, memory: receiveRig.table)
            for index in 0..<UInt64(256) {
                _ = receive.post(
                    DriverBuffer(
                        address: SplitRingRig.buffers + index * 4096,
                        length: bufferSize,
                        isWritable: true
                    )
                )
            }
            receive.publish()
            self.transmitRig = transmitRig
            self.receiveRig = receiveRig
            self.transmit = transmit
            self.receive = receive
        }

        func port(mergeable: Bool) throws -> PeerPort {
            PeerPort(
                receive: try SplitDeviceQueue(
                    transmitRig.configuration,
                    memory: transmitRig.table
                ),
                transmit: try SplitDeviceQueue(
                    receiveRig.configuration,
                    memory: receiveRig.table
                ),
                mergeable: mergeable,
                receiveDoorbell: .none,
                transmitDoorbell: .none
            )
        }
    }

    @Test(arguments: [(2048, 64), (2048, 1514), (512, 1514)] as [(UInt32, UInt32)])
    func `a million packets allocate nothing and lose nothing`(
        bufferSize: UInt32,
        frame: UInt32
    ) throws {
        try #require(allocation_is_counted() == 1)
        let control = allocation_count()
        let witness = (0..<Int(frame)).map { UInt8(truncatingIfNeeded: $0) }
        try #require(allocation_count() > control)
        var from = try Peer(bufferSize: bufferSize)
        var to = try Peer(bufferSize: bufferSize)
        var source = try from.port(mergeable: true)
        var sink = try to.port(mergeable: true)
        for index in 0..<UInt64(256) {
            from.transmitRig.write(witness, at: SplitRingRig.buffers + index * 4096 + 12)
        }
        var burst = ChainBurst()
        var moved = 0
        var merged = 0
        let before = allocation_count()
        while moved < Self.packets {
            // Not `for`: a range's iterator allocates a coroutine frame each step in a debug build.
            var index: UInt64 = 0
            while index < 32 {
                _ = from.transmit.post(
                    DriverBuffer(
                        address: SplitRingRig.buffers + index * 4096,
                        length: 12 + frame,
                        isWritable: false
                    )
                )
                index += 1
            }
            from.transmit.publish()
            burst.clear()
            let count = source.receive(into: &burst, limit: 32)
            moved += sink.transmit(burst, from: 0, count: count)
            sink.finishTransmit()
            source.finishReceive(burst)
            while from.transmit.reap() != nil {}
            while let used = to.receive.reap() {
                merged += 1
                _ = to.receive.post(
                    DriverBuffer(
                        address: SplitRingRig.buffers + UInt64(used.head) * 4096,
                        length: bufferSize,
                        isWritable: true
                    )
                )
            }
            to.receive.publish()
        }
        let allocations = allocation_count() - before
        #expect(allocations == 0)
        #expect(moved == Self.packets)
        #expect(source.counters.receivedPackets == UInt64(moved))
        #expect(sink.counters.transmittedBytes == UInt64(moved) * UInt64(frame))
        #expect(sink.counters.copies == UInt64(moved))
        #expect(source.counters.copies == 0)
        let buffers = (Int(frame) + 12 + Int(bufferSize) - 1) / Int(bufferSize)
        #expect(merged == moved * buffers)
        #expect(source.error == nil)
        #expect(sink.error == nil)
    }
}
