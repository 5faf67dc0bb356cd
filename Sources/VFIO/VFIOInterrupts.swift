internal import HostSystem
internal import PCI

/// The interrupts of one kind of a VFIO device, each with the eventfd that it goes to.
///
/// MSI-X vectors come one by one. Some kernels (`NORESIZE`) fix their number when the first is set:
/// there as many as may be needed are enabled at once, and growing beyond means off and on again.
/// What was signalled meanwhile is lost, so that everybody connected is woken once.
struct VFIOInterrupts {
    /// Vectors enabled at once where their number cannot change, if the device has them.
    static let firstBatch = 64

    /// Number of vectors.
    let count: Int
    private let index: VFIOInterruptIndex
    private let isFixed: Bool
    private let device: FileDescriptor
    private let kernel: any VFIOKernel
    private var events: [EventFD?] = []

    /// Asks the kernel; a kind that it does not know has no vectors.
    init(
        _ index: VFIOInterruptIndex,
        device: FileDescriptor,
        kernel: any VFIOKernel
    ) throws(PCIError) {
        self.index = index
        self.device = device
        self.kernel = kernel
        let bytes: [UInt8]
        do throws(SystemError) {
            bytes = try kernel.interruptAnswer(device, index.rawValue)
        } catch {
            guard error.errno == .invalidArgument else { throw .system(error) }
            count = 0
            isFixed = false
            return
        }
        let answer = AnswerBytes(bytes: bytes)
        guard let flags = answer.field32(VFIOLayout.interruptFlags),
            let claimed = answer.field32(VFIOLayout.interruptCount)
        else { throw VFIOCapabilityChain.refusal("the answer for interrupts is too short") }
        // PCI has at most 2048 vectors; nothing is reserved after what is claimed (HI-A54).
        let takesEvents = flags & VFIOLayout.interruptTakesEvents != 0
        count = takesEvents ? min(Int(claimed), 2048) : 0
        isFixed = flags & VFIOLayout.interruptHasFixedSize != 0
    }

    /// Something is connected.
    var isEnabled: Bool { !events.isEmpty }

    /// Lets a vector signal an eventfd; `nil` takes it away.
    mutating func connect(_ vector: Int, to event: EventFD?) throws(PCIError) {
        guard (0..<count).contains(vector) else { throw .vector(vector) }
        if vector < events.count {
            guard event != nil || events.indices.contains(where: { $0 != vector && has($0) })
            else { return try disable() }
            try set(vector, [event])
            events[vector] = event
        } else if event != nil {
            try enlarge(to: vector, event)
        }
    }

    /// Switches all of them off.
    mutating func disable() throws(PCIError) {
        guard isEnabled else { return }
        try change(VFIOLayout.dataNone | VFIOLayout.actionTrigger, 0, 0, [])
        events = []
    }

    /// Lets a line or a masked vector signal again, or keeps it from doing so.
    func setMasked(_ vector: Int, _ isMasked: Bool) throws(PCIError) {
        guard (0..<count).contains(vector) else { throw .vector(vector) }
        let action = isMasked ? VFIOLayout.actionMask : VFIOLayout.actionUnmask
        try change(VFIOLayout.dataNone | action, vector, 1, [])
    }

    private func has(_ vector: Int) -> Bool { events[vector] != nil }

    private mutating func enlarge(to vector: Int, _ event: EventFD?) throws(PCIError) {
        if isEnabled, !isFixed {
            do {
                try set(vector, [event])
                events += [EventFD?](repeating: nil, count: vector + 1 - events.count)
                events[vector] = event
                return
            } catch {
                // A device whose vectors cannot be had one by one: the long way.
                guard case .system(let cause) = error, cause.errno == .invalidArgument else {
                    throw error
                }
            }
        }
        let before = events
        try disable()
        let wanted = isFixed ? min(count, max(vector + 1, Self.firstBatch)) : vector + 1
        var next = before + [EventFD?](repeating: nil, count: max(0, wanted - before.count))
        next[vector] = event
        do {
            try enable(&next, atLeast: vector + 1)
        } catch {
            // The earlier ones could be had before.
            var previous = before
            if !previous.isEmpty { try? enable(&previous, atLeast: previous.count) }
            wake(before)
            throw error
        }
        wake(before)
    }

    private mutating func enable(_ wanted: inout [EventFD?], atLeast least: Int) throws(PCIError) {
        var granted = try set(0, wanted)
        if granted > 0 {
            guard granted >= least else { throw .refused(Self.shortage(least, granted)) }
            wanted.removeLast(max(0, wanted.count - granted))
            granted = try set(0, wanted)
            guard granted == 0 else { throw .refused(Self.shortage(least, granted)) }
        }
        events = wanted
    }

    private func wake(_ events: [EventFD?]) {
        for event in events { event?.signal() }
    }

    @discardableResult
    private func set(_ start: Int, _ events: [EventFD?]) throws(PCIError) -> Int {
        try change(
            VFIOLayout.dataEvents | VFIOLayout.actionTrigger,
            start,
            events.count,
            events.map { $0?.descriptor.rawValue ?? -1 }
        )
    }

    @discardableResult
    private func change(
        _ flags: UInt32,
        _ start: Int,
        _ count: Int,
        _ events: [Int32]
    ) throws(PCIError) -> Int {
        try presenting { () throws(SystemError) in
            try kernel.setInterrupts(
                device,
                VFIOInterruptChange(
                    flags: flags,
                    index: index,
                    start: start,
                    count: count,
                    events: events
                )
            )
        }
    }

    private static func shortage(_ wanted: Int, _ granted: Int) -> HostRefusal {
        HostRefusal(
            "irq/vectors",
            "\(wanted) interrupt vectors are needed and the host has \(granted)",
            remedy: "use fewer queues"
        )
    }
}
