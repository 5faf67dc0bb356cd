internal import HostSystem

/// Which interrupt of which index goes to which eventfd: DEVICE_SET_IRQS, checked in full before
/// anything changes (VFU-S-31).
struct InterruptWiring {
    /// What a request comes down to for a function's own MSI-X table, vector by vector.
    enum Change: Equatable {
        case unmask(Int)
        case mask(Int)
    }

    /// The eventfds of each index, as many as it has interrupts.
    private var events: [InterruptIndex: [FileDescriptor?]]

    /// Nothing is connected. Functions here have no pin and no messages of the older kind; the lines
    /// for errors and requests can be connected as with hardware.
    init(vectorCount: Int) {
        events = [
            .intx: [nil], .msi: [], .msix: Array(repeating: nil, count: vectorCount),
            .error: [nil], .request: [nil],
        ]
    }

    /// Number of interrupts of an index.
    func count(_ index: InterruptIndex) -> Int { events[index]?.count ?? 0 }

    /// Whom MSI-X vector `vector` goes to.
    func event(_ vector: Int) -> FileDescriptor? {
        guard let all = events[.msix], all.indices.contains(vector) else { return nil }
        return all[vector]
    }

    /// Vectors that are connected.
    var connectedVectors: [Int] {
        (events[.msix] ?? []).indices.filter { event($0) != nil }
    }

    /// Connects a vector to nobody.
    mutating func disconnect(_ vector: Int) {
        guard event(vector) != nil else { return }
        events[.msix]?[vector] = nil
    }

    /// What follows from one request.
    struct Outcome {
        /// For the MSI-X table, in order.
        var changes: [Change] = []
        /// To be signalled now.
        var signals: [FileDescriptor] = []
    }

    /// Carries out a request: `payload` is all of it, descriptors came along.
    mutating func apply(
        _ payload: [UInt8],
        _ descriptors: [FileDescriptor]
    ) throws(Refusal) -> Outcome {
        let request = try Request(payload, descriptors) { count($0) }
        switch request.action {
        case .trigger: return trigger(request, descriptors)
        case .mask: return Outcome(changes: mask(request) { .mask($0) })
        default: return Outcome(changes: mask(request) { .unmask($0) })
        }
    }

    private mutating func trigger(
        _ request: Request,
        _ descriptors: [FileDescriptor]
    ) -> Outcome {
        var outcome = Outcome()
        if request.kind == .eventDescriptors {
            for (position, interrupt) in request.range.enumerated() {
                let event = descriptors.isEmpty ? nil : descriptors[position]
                connect(request.index, interrupt, event, &outcome)
            }
        } else if request.range.isEmpty {
            for interrupt in 0..<count(request.index) {
                connect(request.index, interrupt, nil, &outcome)
            }
        } else {
            outcome.signals = request.chosen.compactMap { events[request.index]?[$0] }
        }
        return outcome
    }

    private mutating func connect(
        _ index: InterruptIndex,
        _ interrupt: Int,
        _ event: FileDescriptor?,
        _ outcome: inout Outcome
    ) {
        events[index]?[interrupt] = event
        guard index == .msix else { return }
        outcome.changes.append(event == nil ? .mask(interrupt) : .unmask(interrupt))
    }

    private func mask(_ request: Request, _ change: (Int) -> Change) -> [Change] {
        // The other indices never fire: there is nothing to hold back.
        request.index == .msix ? request.chosen.map(change) : []
    }
}

extension InterruptWiring {
    /// A request that is in order.
    private struct Request {
        let index: InterruptIndex
        let kind: InterruptSet.Flags
        let action: InterruptSet.Flags
        let range: Range<Int>
        /// The interrupts of the range that the action is for.
        let chosen: [Int]

        init(
            _ payload: [UInt8],
            _ descriptors: [FileDescriptor],
            _ count: (InterruptIndex) -> Int
        ) throws(Refusal) {
            guard let set = InterruptSet(payload),
                set.argumentSize >= UInt32(InterruptSet.size)
            else { throw Refusal(.interruptSet, "\(payload.count) bytes") }
            let bools = payload.dropFirst(InterruptSet.size)
            guard let index = InterruptIndex(rawValue: set.index) else {
                throw Refusal(.interruptSet, "index \(set.index)")
            }
            let known = InterruptSet.Flags.dataKinds.union(.actions)
            kind = set.flags.intersection(.dataKinds)
            action = set.flags.intersection(.actions)
            guard set.flags.isSubset(of: known), kind.rawValue.nonzeroBitCount == 1,
                action.rawValue.nonzeroBitCount == 1
            else { throw Refusal(.interruptSet, "flags \(DMATable.hex(set.flags.rawValue))") }
            let end = UInt64(set.start) + UInt64(set.count)
            guard Int(clamping: set.start) < count(index), end <= UInt64(count(index)) else {
                throw Refusal(
                    .interruptSet,
                    "\(set.count) interrupts from \(set.start) of \(count(index))"
                )
            }
            self.index = index
            range = Int(set.start)..<Int(end)
            try Request.check(set, index, kind, action)
            guard kind != .bools || bools.count == range.count else {
                throw Refusal(.interruptSet, "\(bools.count) bytes for \(range.count) interrupts")
            }
            try Request.check(descriptors, kind, range.count)
            chosen =
                kind == .bools
                ? zip(range, bools).filter { $0.1 != 0 }.map(\.0) : Array(range)
        }

        private static func check(
            _ set: InterruptSet,
            _ index: InterruptIndex,
            _ kind: InterruptSet.Flags,
            _ action: InterruptSet.Flags
        ) throws(Refusal) {
            if index == .error || index == .request {
                guard action == .trigger, set.count <= 1 else {
                    throw Refusal(.interruptSet, "index \(set.index) can only be triggered")
                }
            }
            if set.count == 0 {
                guard kind == .none, action == .trigger, set.start == 0 else {
                    throw Refusal(.interruptSet, "no interrupts, from \(set.start)")
                }
            }
        }

        private static func check(
            _ descriptors: [FileDescriptor],
            _ kind: InterruptSet.Flags,
            _ count: Int
        ) throws(Refusal) {
            guard !descriptors.isEmpty else { return }
            guard kind == .eventDescriptors, descriptors.count == count else {
                throw Refusal(
                    .interruptSet,
                    "\(descriptors.count) descriptors for \(count) interrupts"
                )
            }
            guard descriptors.allSatisfy(\.isEventFD) else {
                throw Refusal(.descriptorKind, "an interrupt needs an eventfd")
            }
        }
    }
}
