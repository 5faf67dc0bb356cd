internal import VirtioSpec

/// Which events a management device sends, and what becomes of those that find no buffer: a
/// used-buffer event waits, merged with others of its queue; any other is counted as lost and the
/// next event that is sent tells the count (AVQ-D-324). A value; bounded by the number of queues.
struct EventBacklog: Equatable, Sendable {
    /// Types that the driver subscribed to.
    private(set) var mask: AdminEventMask = []
    /// Used-buffer events that wait for a buffer, in the order in which they arose.
    private(set) var held: [AdminEvent] = []
    /// Events lost since the last one that was sent.
    private(set) var lostCount: UInt32 = 0

    /// Starts without a subscription.
    init() {}

    /// Chooses which events are sent from now on.
    mutating func subscribe(_ mask: AdminEventMask) throws(AdminError) {
        guard mask.isSubset(of: .all) else { throw AdminError(.invalidField) }
        self.mask = mask
        held = held.filter { wants($0) }
    }

    /// True when the driver asked for events of that type.
    func wants(_ event: AdminEvent) -> Bool {
        guard let type = event.type else { return false }
        return mask.contains(AdminEventMask(type))
    }

    /// An event that was not asked for, or found no buffer.
    mutating func keepOrCount(_ event: AdminEvent) {
        guard wants(event) else { return }
        guard event.type == .usedBuffer else {
            if lostCount < .max { lostCount += 1 }
            return
        }
        let isHeld = held.contains {
            $0.virtualDeviceID == event.virtualDeviceID && $0.index == event.index
        }
        if !isHeld { held.append(event) }
    }

    /// The event as it is sent, with the count of those that were lost before it.
    mutating func stamp(_ event: AdminEvent) -> AdminEvent {
        var event = event
        event.lostCount = lostCount
        lostCount = 0
        return event
    }

    /// The oldest event that waits for a buffer, stamped.
    mutating func takeHeld() -> AdminEvent? {
        guard !held.isEmpty else { return nil }
        return stamp(held.removeFirst())
    }

    /// Nothing more comes from a virtual device that was reset or destroyed (AVQ-D-310).
    mutating func forget(_ virtualDeviceID: UInt64) {
        held.removeAll { $0.virtualDeviceID == virtualDeviceID }
    }
}
