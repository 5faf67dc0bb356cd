internal import CSystemShims
public import HostSystem

/// The peer-notify structure's other end: slot k signals the peer's call eventfd of one queue.
///
/// Each slot owns one descriptor number for its whole life. Connecting a call eventfd duplicates it
/// onto that number, which is atomic: a polling thread that rings at that moment hits either the old
/// or the new file, never a number that was closed and given to somebody else (VU-B-14). A slot
/// without a call eventfd points to one that nobody reads (VPN-D-03).
public final class DoorbellTable: @unchecked Sendable {
    // Safety: `slots` and `nowhere` are set in init only; descriptors are changed by dup3 alone.
    private let slots: [FileDescriptor]
    private let nowhere: EventFD

    /// Makes `count` unconnected slots.
    public init(count: Int) throws(SystemError) {
        let nowhere = try EventFD()
        var slots: [FileDescriptor] = []
        for _ in 0..<count {
            slots.append(try nowhere.descriptor.duplicate())
        }
        self.nowhere = nowhere
        self.slots = slots
    }

    /// Number of slots.
    public var count: Int { slots.count }

    /// Connects a slot to a call eventfd, or to nobody.
    public func connect(_ slot: Int, to call: FileDescriptor?) throws(SystemError) {
        guard slots.indices.contains(slot) else { return }
        try checked(
            shim_duplicate_onto((call ?? nowhere.descriptor).rawValue, slots[slot].rawValue),
            "connect doorbell \(slot)"
        )
    }

    /// The descriptor that rings a slot, `nil` for a slot that does not exist (HI-G36).
    public func descriptor(_ slot: Int) -> Int32? {
        slots.indices.contains(slot) ? slots[slot].rawValue : nil
    }

    /// Rings a slot; one that does not exist is ignored (HI-G36). One whose peer made the eventfd
    /// block rings nobody from then on (HI-D25).
    public func ring(_ slot: Int) {
        guard slots.indices.contains(slot) else { return }
        guard EventFD.signal(slots[slot].rawValue) == .blocked else { return }
        // A duplicate of a descriptor of ours onto one of ours: the kernel has no reason to refuse,
        // and if it does, the next ring is interrupted again.
        try? connect(slot, to: nil)
    }
}
