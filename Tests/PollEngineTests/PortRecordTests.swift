import Synchronization
import Testing
import Virtqueue

@testable import PollEngine

@Suite struct PortRecordTests {
    @Test func `a record is words and nothing else`() {
        #expect(MemoryLayout<PortRecord>.size == PortRecord.words * 8)
        #expect(MemoryLayout<PortRecord>.stride == MemoryLayout<PortRecord>.size)
        #expect(MemoryLayout<PortCounters>.size % 8 == 0)
        #expect(MemoryLayout<TapCounters>.size % 8 == 0)
        #expect(MemoryLayout<EngineCounters>.size % 8 == 0)
    }

    @Test func `records add word by word and wrap instead of trapping`() {
        var sum = PortRecord()
        sum.peer.receivedPackets = 5
        sum.engine.noPort = UInt64.max
        var other = PortRecord()
        other.peer.receivedPackets = 7
        other.peer.bufferSize = 3
        other.tap.refused = 2
        other.engine.noPort = 2
        sum.add(other)
        #expect(sum.peer.receivedPackets == 12)
        #expect(sum.peer.bufferSize == 3)
        #expect(sum.tap.refused == 2)
        #expect(sum.engine.noPort == 1)
        #expect(sum.engine.consumed == 0)
    }

    @Test func `what a worker publishes is what the control thread reads`() {
        let words = UnsafeMutablePointer<Atomic<UInt64>>.allocate(capacity: PortLedger.count)
        for index in 0..<PortLedger.count {
            unsafe (words + index).initialize(to: Atomic<UInt64>(0))
        }
        defer { unsafe words.deallocate() }
        let ledger = unsafe PortLedger(words)
        #expect(ledger.stalledSince == 0)
        var record = PortRecord()
        record.peer.receivedPackets = 1
        record.tap.down = 2
        record.engine.noPort = 3
        unsafe ledger.publish(&record, stalledSince: 4, fault: 5, brokenPairs: 6)
        #expect(ledger.record.peer == record.peer)
        #expect(ledger.record.tap.drops == ["tap/down": 2])
        #expect(ledger.record.engine.drops == ["switch/no-port": 3])
        #expect(ledger.stalledSince == 4)
        #expect(ledger.fault == 5)
        #expect(ledger.brokenPairs == 6)
    }

    @Test(arguments: QueueError.allCases)
    func `a ring error survives its way through a word, with its pair`(error: QueueError) throws {
        for pair in [0, 1, 63] {
            let back = try #require(RingFault.decode(RingFault.code(error, pair: pair)))
            #expect(back.error == error)
            #expect(back.pair == pair)
        }
    }

    @Test func `no error is no word, and a strange word is no error`() {
        #expect(RingFault.code(nil, pair: 3) == 0)
        #expect(RingFault.decode(0) == nil)
        #expect(RingFault.decode(0xFFFF) == nil)
    }
}
