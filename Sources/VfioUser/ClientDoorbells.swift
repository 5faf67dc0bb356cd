internal import HostSystem
internal import PCI

/// The eventfds that a server offers for stores to a region (vfio-user: region io fds): one that is
/// signalled does what the store would do, without a message.
struct RegionEvents: Sendable {
    private struct Entry {
        let event: RegionEvent
        let descriptor: FileDescriptor
    }

    private var entries: [Entry] = []

    /// Asks the server; one that does not know the command has none. A list that makes no sense is
    /// refused, and none of it used (HI-E45).
    init(_ index: Int, size: UInt64, of channel: ClientChannel) throws(PCIError) {
        var room = RegionDescriptors.size
        for _ in 0..<3 {
            let frame: Frame
            do throws(PCIError) {
                frame = try channel.exchange(
                    ClientRequest(
                        command: .deviceGetRegionIOFDs,
                        fixed: RegionDescriptors(
                            argumentSize: UInt32(room),
                            index: UInt32(index)
                        ).encoded,
                        reply: RegionDescriptors.size...room,
                        replyDescriptors: 32
                    ),
                    "the io descriptors of region \(index)"
                )
            } catch {
                if case .system = error { return }
                throw error
            }
            guard let answer = RegionDescriptors(frame.payload), answer.index == UInt32(index),
                let needed = Int(exactly: answer.argumentSize),
                (RegionDescriptors.size...ClientRegion.largestAnswer).contains(needed)
            else { throw Self.refusal(index, "its header is wrong") }
            if needed > room {
                room = needed
                continue
            }
            try read(answer, frame, size, index)
            return
        }
        throw Self.refusal(index, "it needs more room each time")
    }

    /// The eventfd that stands for a 16-bit store of `value` at `offset`.
    func descriptor(at offset: UInt64, value: UInt16) -> FileDescriptor? {
        entries.first {
            $0.event.offset == offset && ($0.event.length == 2 || $0.event.length == 0)
                && (!$0.event.flags.contains(.dataMatch) || $0.event.dataMatch == UInt64(value))
        }?.descriptor
    }

    private mutating func read(
        _ answer: RegionDescriptors,
        _ frame: Frame,
        _ size: UInt64,
        _ index: Int
    ) throws(PCIError) {
        let bytes = Array(frame.payload.dropFirst(RegionDescriptors.size))
        guard answer.count > 0 else { return }
        // Two layouts are about, told apart by their length only: the longer one has 8 bytes more
        // before the value that must match.
        guard let count = Int(exactly: answer.count), bytes.count % count == 0,
            [RegionEvent.size, Self.longEntry].contains(bytes.count / count)
        else { throw Self.refusal(index, "\(answer.count) entries in \(bytes.count) bytes") }
        let stride = bytes.count / count
        for position in 0..<count {
            var entry = Array(bytes[(position * stride)..<((position + 1) * stride)])
            if stride == Self.longEntry { entry.removeSubrange(32..<40) }
            guard let event = RegionEvent(entry) else { continue }
            let (end, wraps) = event.offset.addingReportingOverflow(max(1, event.length))
            guard !wraps, end <= size else {
                throw Self.refusal(
                    index,
                    "\(event.length) bytes at \(event.offset) are outside the region"
                )
            }
            let at = Int(event.descriptorIndex)
            guard frame.descriptors.indices.contains(at) else {
                throw Self.refusal(
                    index,
                    "descriptor \(at) of \(frame.descriptors.count) is named"
                )
            }
            guard !event.flags.contains(.dataMatch) || [1, 2, 4, 8].contains(event.length) else {
                throw Self.refusal(index, "a value to match in \(event.length) bytes")
            }
            // Other kinds need shared memory beside the eventfd, or a protocol of their own.
            guard event.type == RegionEvent.eventType else { continue }
            guard frame.descriptors[at].isEventFD else {
                throw Self.refusal(index, "descriptor \(at) is no eventfd")
            }
            entries.append(Entry(event: event, descriptor: frame.descriptors[at]))
        }
    }

    private static let longEntry = 48

    private static func refusal(_ index: Int, _ detail: String) -> PCIError {
        .refused(
            HostRefusal(
                "region/io-fds",
                "the server's io descriptors of region \(index) cannot be used: \(detail)",
                remedy: "report it to whoever makes the server"
            )
        )
    }
}
