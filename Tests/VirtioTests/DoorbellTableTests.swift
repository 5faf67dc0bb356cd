import HostSystem
import RingSupport
import Testing

@testable import Virtio

@Suite struct DoorbellTableTests {
    @Test func `VPN-D-02: a connected slot rings its call descriptor and no other`() throws {
        let table = try DoorbellTable(count: 3)
        let calls = [try EventFD(), try EventFD()]
        try table.connect(0, to: calls[0].descriptor)
        try table.connect(2, to: calls[1].descriptor)
        table.ring(2)
        table.ring(1)
        #expect(calls.map { $0.drain() } == [0, 1])
    }

    @Test func `VPN-D-03: a slot that was disconnected rings nobody`() throws {
        let table = try DoorbellTable(count: 1)
        let call = try EventFD()
        try table.connect(0, to: call.descriptor)
        try table.connect(0, to: nil)
        table.ring(0)
        #expect(call.drain() == 0)
    }

    @Test func `VU-B-14: a slot keeps its descriptor number over all changes`() throws {
        let table = try DoorbellTable(count: 1)
        let number = table.descriptor(0)
        for _ in 0..<100 {
            let call = try EventFD()
            try table.connect(0, to: call.descriptor)
            #expect(table.descriptor(0) == number)
            table.ring(0)
            #expect(call.drain() == 1)
        }
        try table.connect(0, to: nil)
        #expect(table.descriptor(0) == number)
    }

    @Test func `HI-D25: a slot whose call eventfd blocks rings nobody from then on`() throws {
        let table = try DoorbellTable(count: 1)
        let blocking = try BlockingEvent()
        try table.connect(0, to: blocking.event.descriptor)
        let start = MonotonicClock.now
        for _ in 0..<1000 { table.ring(0) }
        #expect(MonotonicClock.now - start < 1_000_000_000)
        let call = try EventFD()
        try table.connect(0, to: call.descriptor)
        table.ring(0)
        #expect(call.drain() == 1)
    }

    @Test func `HI-G36: slots that do not exist are ignored`() throws {
        let table = try DoorbellTable(count: 2)
        let call = try EventFD()
        for slot in [2, -1, Int.max, Int.min] {
            try table.connect(slot, to: call.descriptor)
            table.ring(slot)
            #expect(table.descriptor(slot) == nil)
        }
        #expect(call.drain() == 0)
    }

    @Test func `a table without slots is possible`() throws {
        #expect(try DoorbellTable(count: 0).count == 0)
    }
}
