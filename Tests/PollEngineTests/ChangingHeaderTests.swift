import GuestMemory
import HostSystem
import RingSupport
import Synchronization
import Testing
import VirtioSpec
import Virtqueue

@testable import PollEngine

/// A driver that rewrites a packet's network header while we read it.
@Suite struct ChangingHeaderTests {
    @safe
    private final class Changer: @unchecked Sendable {
        // Safety: the rig outlives the thread, which is joined; torn bytes are the point.
        private let byte: UnsafeMutableRawPointer
        private let isOver = Atomic<Bool>(false)

        init(_ byte: UnsafeMutableRawPointer) {
            unsafe self.byte = byte
        }

        func run() {
            var value: UInt8 = 0
            while !isOver.load(ordering: .relaxed) {
                value ^= 1
                unsafe byte.storeBytes(of: value, as: UInt8.self)
            }
        }

        func stop() {
            isOver.store(true, ordering: .relaxed)
        }
    }

    /// Each packet is judged by one reading: delivered whole, or dropped and counted once.
    @Test(arguments: [[76], [1, 1, 1, 9, 64], [12, 64]])
    func `HI-A19: a header that changes under way leads to one judgement`(lengths: [Int]) throws {
        let frame = (0..<64).map { UInt8($0) }
        let rig = try SplitRingRig()
        let empty = try SplitRingRig()
        rig.write([UInt8](repeating: 0, count: 12) + frame, at: SplitRingRig.buffers)
        // Byte 1: the kind of segmentation.
        let changer = unsafe Changer(rig.pointer(SplitRingRig.buffers + 1))
        let thread = try PollingThread(name: "changer") { changer.run() }
        defer {
            changer.stop()
            thread.join()
        }
        var port = PeerPort(
            receive: try SplitDeviceQueue(rig.configuration, memory: rig.table),
            transmit: try SplitDeviceQueue(empty.configuration, memory: empty.table),
            mergeable: false,
            receiveDoorbell: .none,
            transmitDoorbell: .none
        )
        var good: UInt64 = 0
        for round in 1...3000 as ClosedRange<UInt64> {
            var at = SplitRingRig.buffers
            var chain: [SplitDescriptor] = []
            for length in lengths {
                chain.append(SplitDescriptor(address: at, length: UInt32(length)))
                at += UInt64(length)
            }
            rig.offerChain(0, chain)
            var burst = ChainBurst()
            #expect(port.receive(into: &burst, limit: 32) == 1)
            if unsafe burst.entries[0].isDropped == 0 {
                good += 1
                #expect(bytes(of: burst, 0) == frame)
            }
            port.finishReceive(burst)
            #expect(port.counters.receivedPackets == good)
            #expect(port.counters.gso == round - good)
        }
        #expect(port.error == nil)
    }
}
