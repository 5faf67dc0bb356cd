import Testing
import VirtioSpec

@testable import AdminQueue

@Suite struct EventBacklogTests {
    private func subscribed() throws -> EventBacklog {
        var backlog = EventBacklog()
        try backlog.subscribe(.all)
        return backlog
    }

    @Test func `without a subscription nothing is wanted and nothing is lost`() {
        var backlog = EventBacklog()
        backlog.keepOrCount(AdminEvent(.mmuFault, virtualDeviceID: 1))
        backlog.keepOrCount(AdminEvent(.usedBuffer, virtualDeviceID: 1))
        #expect(backlog == EventBacklog())
    }

    @Test func `AVQ-D-324: used-buffer events of one queue merge while they wait`() throws {
        var backlog = try subscribed()
        for queue in [1, 0, 1, 1] as [UInt16] {
            backlog.keepOrCount(AdminEvent(.usedBuffer, virtualDeviceID: 5, index: queue))
        }
        backlog.keepOrCount(AdminEvent(.usedBuffer, virtualDeviceID: 6, index: 1))
        #expect(backlog.held.map(\.index) == [1, 0, 1])
        #expect(backlog.held.map(\.virtualDeviceID) == [5, 5, 6])
        #expect(backlog.lostCount == 0)
        #expect(backlog.takeHeld()?.index == 1)
        #expect(backlog.held.count == 2)
    }

    @Test func `AVQ-D-324: other events without a buffer are counted, the next one tells`() throws {
        var backlog = try subscribed()
        for type in [AdminEventType.mmuFault, .needsReset, .deviceAdded] {
            backlog.keepOrCount(AdminEvent(type, virtualDeviceID: 1))
        }
        #expect(backlog.held.isEmpty)
        #expect(backlog.stamp(AdminEvent(.usedBuffer, virtualDeviceID: 1)).lostCount == 3)
        #expect(backlog.stamp(AdminEvent(.usedBuffer, virtualDeviceID: 1)).lostCount == 0)
    }

    @Test func `AVQ-D-324: a held event tells the count too`() throws {
        var backlog = try subscribed()
        backlog.keepOrCount(AdminEvent(.usedBuffer, virtualDeviceID: 1))
        backlog.keepOrCount(AdminEvent(.configurationChange, virtualDeviceID: 1))
        #expect(backlog.takeHeld()?.lostCount == 1)
        #expect(backlog.takeHeld() == nil)
    }

    @Test func `AVQ-D-310: nothing more comes from a device that is gone`() throws {
        var backlog = try subscribed()
        backlog.keepOrCount(AdminEvent(.usedBuffer, virtualDeviceID: 1))
        backlog.keepOrCount(AdminEvent(.usedBuffer, virtualDeviceID: 2))
        backlog.forget(1)
        #expect(backlog.held.map(\.virtualDeviceID) == [2])
    }

    @Test(arguments: [1, 0x80, 0x8000_0000] as [UInt32])
    func `a subscription to events that do not exist is refused`(_ bits: UInt32) throws {
        var backlog = try subscribed()
        let before = backlog
        #expect(throws: AdminError(.invalidField)) {
            try backlog.subscribe(AdminEventMask(rawValue: bits))
        }
        #expect(backlog == before)
    }

    @Test func `ending a subscription drops what waits for it`() throws {
        var backlog = try subscribed()
        backlog.keepOrCount(AdminEvent(.usedBuffer, virtualDeviceID: 1))
        try backlog.subscribe(AdminEventMask(.mmuFault))
        #expect(backlog.takeHeld() == nil)
    }
}
