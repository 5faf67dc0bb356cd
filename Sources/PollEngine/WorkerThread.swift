internal import HostSystem
internal import Synchronization

/// The worker's side of its life: goes to its CPU, makes its memory there, polls, sleeps where the
/// strategy says so, follows commands, ends.
///
/// Only the `poll` of a forwarder is packet path; what is here happens at commands and before sleep.
@safe
struct WorkerThread: ~Copyable {
    // Safety: `ports` and `bySlot` have room for every slot until deinit. They hold pointers to
    // states that the control thread keeps until the command that took them out is acknowledged.
    /// Empty turns before a worker with strategy `sleep` asks for notifications and sleeps.
    private static let emptyTurnsBeforeSleep = 4096
    /// Longest sleep: bounds the harm of a notification that a peer never sent.
    private static let sleepMilliseconds: Int32 = 50

    private let control: WorkerControl
    private let plan: WorkerPlan
    private let mode: ForwardingMode
    private let ports: UnsafeMutablePointer<UnsafeMutablePointer<PortState>>
    private let bySlot: UnsafeMutablePointer<UnsafeMutablePointer<PortState>?>
    /// The port that each slot last belonged to; 0 before the first.
    private let serials: UnsafeMutablePointer<UInt64>
    private var count = 0
    private var command: UInt64 = 0
    private var tally = WorkerTally()

    private init(_ control: WorkerControl, _ plan: WorkerPlan, _ mode: ForwardingMode) {
        self.control = control
        self.plan = plan
        self.mode = mode
        unsafe ports = .allocate(capacity: WorkerControl.capacity)
        unsafe bySlot = .allocate(capacity: WorkerControl.capacity)
        unsafe bySlot.initialize(repeating: nil, count: WorkerControl.capacity)
        unsafe serials = .allocate(capacity: WorkerControl.capacity)
        unsafe serials.initialize(repeating: 0, count: WorkerControl.capacity)
    }

    deinit {
        unsafe ports.deallocate()
        unsafe bySlot.deallocate()
        unsafe serials.deallocate()
    }

    /// The body of a worker's thread.
    static func run(_ control: WorkerControl, _ plan: WorkerPlan, _ mode: ForwardingMode) {
        do throws(SystemError) {
            try Topology.pinThread(to: plan.core)
        } catch {
            control.startError.store(error.errno.rawValue, ordering: .relaxed)
            control.phase.store(WorkerControl.Phase.failed.rawValue, ordering: .releasing)
            return
        }
        var thread = WorkerThread(control, plan, mode)
        switch mode {
        case .sink: thread.work(SinkForwarder(plan))
        case .source: thread.work(SourceForwarder(plan))
        case .echo: thread.work(EchoForwarder(plan))
        case .switch: thread.work(SwitchForwarder(plan))
        }
        control.phase.store(WorkerControl.Phase.ended.rawValue, ordering: .releasing)
    }

    private mutating func work<F: Forwarder & ~Copyable>(_ forwarder: consuming F) {
        control.phase.store(WorkerControl.Phase.running.rawValue, ordering: .releasing)
        var isIdle = false
        while true {
            follow(&forwarder)
            if control.isStopping.load(ordering: .acquiring) { break }
            if count == 0 || isIdle { rest() }
            let watch = PollWatch(
                command: command,
                emptyTurns: patience,
                pauses: plan.idle != .spin
            )
            let exit = unsafe F.poll(&forwarder, list, control, &tally, watch)
            isIdle = exit == .idle
        }
        publish()
    }

    /// Empty turns before `rest`; 0 for never. A source has something to send at any time, and no
    /// kick tells it of new receive buffers.
    private var patience: Int {
        if count == 0 { return 1 }
        return plan.idle == .sleep && mode != .source ? Self.emptyTurnsBeforeSleep : 0
    }

    private var list: PortList {
        unsafe PortList(ports: ports, count: count, bySlot: bySlot)
    }

    /// Reads all slots anew if the control thread says so, and acknowledges.
    private mutating func follow<F: Forwarder & ~Copyable>(_ forwarder: inout F) {
        let number = control.command.load(ordering: .acquiring)
        guard number != command else { return }
        publish()
        count = 0
        let slots = min(control.slotCount.load(ordering: .acquiring), WorkerControl.capacity)
        for slot in 0..<slots {
            let state = unsafe control.state(at: slot)
            unsafe bySlot[slot] = state
            guard let state = unsafe state else { continue }
            let serial = unsafe state.pointee.serial
            if unsafe serials[slot] != serial {
                if unsafe serials[slot] != 0 { forwarder.forget(slot: slot) }
                unsafe serials[slot] = serial
            }
            unsafe ports[count] = state
            count += 1
            unsafe state.pointee.followMemory()
            unsafe state.pointee.suppressNotifications()
        }
        command = number
        control.acknowledged.store(number, ordering: .releasing)
    }

    /// Asks every peer for notifications, looks once more, and sleeps when nothing has come.
    private mutating func rest() {
        publish()
        var arrived = false
        for index in 0..<count where unsafe ports[index].pointee.requestNotifications() {
            arrived = true
        }
        if !arrived { control.sleep(milliseconds: Self.sleepMilliseconds) }
        for index in 0..<count { unsafe ports[index].pointee.suppressNotifications() }
    }

    private mutating func publish() {
        tally.read()
        unsafe publishCounters(list)
        tally.publish(control)
    }
}
