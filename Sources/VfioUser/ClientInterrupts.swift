internal import HostSystem
internal import PCI

/// The MSI-X vectors of a server's device, each with the eventfd that it signals.
///
/// Some servers (`NORESIZE`) fix the number of vectors when the first is connected: there all are
/// taken away and connected anew, with an eventfd nobody hears for those that nobody wants. What
/// was signalled meanwhile is lost, so that everybody connected is woken once.
struct ClientInterrupts {
    /// PCI has at most that many (HI-A54).
    static let largest = 2048

    /// Number of vectors.
    let count: Int
    private let isFixed: Bool
    private var events: [EventFD?] = []

    /// Asks the server.
    init(_ channel: ClientChannel) throws(PCIError) {
        let index = InterruptIndex.msix.rawValue
        let frame = try channel.exchange(
            ClientRequest(
                command: .deviceGetIRQInfo,
                fixed: InterruptInfo(index: index).encoded,
                reply: InterruptInfo.size...InterruptInfo.size
            ),
            "the description of the MSI-X interrupts"
        )
        guard let info = InterruptInfo(frame.payload), info.index == index else {
            throw channel.fail("vfu/reply", "interrupts of another kind were described")
        }
        let takesEvents = info.flags.contains(.eventDescriptor)
        count = takesEvents ? min(Int(info.count), Self.largest) : 0
        isFixed = info.flags.contains(.noResize)
    }

    /// Something is connected.
    var isEnabled: Bool { events.contains { $0 != nil } }

    /// Lets a vector signal an eventfd; `nil` takes it away.
    mutating func connect(
        _ vector: Int,
        to event: EventFD?,
        _ channel: ClientChannel
    ) throws(PCIError) {
        guard (0..<count).contains(vector) else { throw .vector(vector) }
        var wanted = events
        if vector >= wanted.count {
            wanted += [EventFD?](repeating: nil, count: vector + 1 - wanted.count)
        }
        wanted[vector] = event
        let isLarger = wanted.count > events.count
        if isFixed, isLarger {
            // Nobody could hear of it so far.
            guard event != nil else { return }
            try replaceAll(wanted, channel)
        } else {
            try Self.set(vector, [event].compactMap(\.self), count: 1, channel)
        }
        if event != nil || !isLarger { events = wanted }
    }

    private func replaceAll(_ wanted: [EventFD?], _ channel: ClientChannel) throws(PCIError) {
        try Self.set(0, [], count: 0, channel)
        var all: [EventFD] = []
        for event in wanted {
            if let event {
                all.append(event)
            } else {
                all.append(try presenting { () throws(SystemError) in try EventFD() })
            }
        }
        // As many at a time as the server takes with one message (VFU-C-04).
        let step = max(1, channel.server.messageDescriptors)
        for start in stride(from: 0, to: all.count, by: step) {
            let part = Array(all[start..<min(start + step, all.count)])
            try Self.set(start, part, count: part.count, channel)
        }
        for event in events { event?.signal() }
    }

    /// Connects `events`, or, without any, takes `count` vectors away, all of them with 0.
    private static func set(
        _ start: Int,
        _ events: [EventFD],
        count: Int,
        _ channel: ClientChannel
    ) throws(PCIError) {
        guard events.isEmpty || channel.server.messageDescriptors > 0 else {
            throw .notSupported("interrupts of a server that takes no descriptors")
        }
        let kind: InterruptSet.Flags = count == 0 ? .none : .eventDescriptors
        let change = InterruptSet(
            flags: [kind, .trigger],
            index: .msix,
            start: UInt32(start),
            count: UInt32(count)
        )
        _ = try channel.exchange(
            ClientRequest(
                command: .deviceSetIRQs,
                fixed: change.encoded,
                descriptors: events.map(\.descriptor)
            ),
            "connecting \(count) interrupts from \(start)"
        )
    }
}
