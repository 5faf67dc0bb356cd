internal import VirtioSpec

/// Messages to the driver that wait for buffers in queue 0, in order.
///
/// It cannot grow without limit: a new announcement takes the old one back first, and there is
/// never more than one OFF (VPN-D-20, HI-G33).
struct ControlOutbox: Sendable {
    /// A message, and what its delivery means; only the last part of several means something.
    struct Entry: Sendable, Equatable {
        let frame: [UInt8]
        let notice: DeviceState.Notice
        let isLast: Bool
    }

    private var entries: [Entry] = []

    /// The next message to go out.
    var first: Entry? { entries.first }

    /// Messages waiting.
    var count: Int { entries.count }

    /// Queues the frames of one notice.
    mutating func post(_ frames: [[UInt8]], as notice: DeviceState.Notice) {
        if notice == .off { entries.removeAll { $0.notice == .off } }
        for (index, frame) in frames.enumerated() {
            let isLast = index == frames.count - 1
            entries.append(Entry(frame: frame, notice: notice, isLast: isLast))
        }
    }

    /// The first message went out.
    mutating func removeFirst() {
        if !entries.isEmpty { entries.removeFirst() }
    }

    /// Takes back what the driver has not seen, but never an OFF.
    mutating func withdraw() {
        entries.removeAll { $0.notice != .off }
    }

    /// Forgets everything: the driver is gone.
    mutating func clear() {
        entries = []
    }
}
