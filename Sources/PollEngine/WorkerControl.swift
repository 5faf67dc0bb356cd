internal import CSystemShims
internal import HostSystem
internal import Synchronization

/// What the control thread and one worker tell each other: words with one writer each.
///
/// The control thread changes `slots`, then raises `command`; the worker sees it at the next turn,
/// reads all slots anew and repeats the number in `acknowledged`. From then on it touches nothing
/// that was in a slot before.
@safe
final class WorkerControl: @unchecked Sendable {
    // Safety: `slots` holds `capacity` initialised atomics until deinit; both sides hold this object.
    /// Where a worker stands.
    enum Phase: UInt8 {
        /// Not on its CPU yet.
        case starting
        /// Polling.
        case running
        /// It could not start; `startError` tells why.
        case failed
        /// It touches nothing any more.
        case ended
    }

    /// Most ports of an engine.
    static var capacity: Int { @_noLocks get { 512 } }

    /// Number of the last change; written by the control thread.
    let command = Atomic<UInt64>(0)
    /// The worker is to end at the next change; written by the control thread.
    let isStopping = Atomic<Bool>(false)
    /// One more than the highest slot in use; written by the control thread.
    let slotCount = Atomic<Int>(0)
    /// Number of the last change that the worker follows.
    let acknowledged = Atomic<UInt64>(0)
    /// `Phase` of the worker.
    let phase = Atomic<UInt8>(Phase.starting.rawValue)
    /// Error number of a worker that could not start.
    let startError = Atomic<Int32>(0)

    /// Cycles of turns that moved packets.
    let busyCycles = Atomic<UInt64>(0)
    /// Cycles of turns that moved none, sleep included.
    let idleCycles = Atomic<UInt64>(0)
    /// Turns.
    let turns = Atomic<UInt64>(0)
    /// Turns that moved no packet.
    let emptyPolls = Atomic<UInt64>(0)
    /// Times the worker slept.
    let sleeps = Atomic<UInt64>(0)

    /// Wakes a worker that sleeps.
    let wake: EventFD
    /// What a sleeping worker waits for: `wake` and the TAP interfaces.
    let epoll: FileDescriptor

    private let slots: UnsafeMutablePointer<Atomic<UnsafeMutablePointer<PortState>?>>

    /// Makes a block with empty slots.
    init() throws(SystemError) {
        wake = try EventFD()
        epoll = FileDescriptor(owning: try checked(shim_epoll_create(), "create an epoll set"))
        unsafe slots = .allocate(capacity: WorkerControl.capacity)
        for slot in 0..<WorkerControl.capacity {
            unsafe (slots + slot).initialize(to: Atomic<UnsafeMutablePointer<PortState>?>(nil))
        }
        try watch(wake.descriptor, hasCount: true)
    }

    deinit {
        unsafe slots.deinitialize(count: WorkerControl.capacity)
        unsafe slots.deallocate()
    }

    /// Puts a port into a slot or takes it out, and tells the worker. Control thread.
    @unsafe
    func publish(_ state: UnsafeMutablePointer<PortState>?, at slot: Int) -> UInt64 {
        precondition((0..<WorkerControl.capacity).contains(slot), "the engine hands out the slots")
        unsafe slots[slot].store(state, ordering: .releasing)
        if slot >= slotCount.load(ordering: .relaxed) {
            slotCount.store(slot + 1, ordering: .releasing)
        }
        return raiseCommand()
    }

    /// Makes the worker look at the slots and the stop flag. Control thread.
    func raiseCommand() -> UInt64 {
        let number = command.load(ordering: .relaxed) + 1
        command.store(number, ordering: .releasing)
        wake.signal()
        return number
    }

    /// The port in a slot. Worker.
    @unsafe
    func state(at slot: Int) -> UnsafeMutablePointer<PortState>? {
        unsafe slots[slot].load(ordering: .acquiring)
    }

    /// Lets a sleeping worker wake when the descriptor is readable. One that `hasCount` is an
    /// eventfd whose count the worker takes, so that it does not wake for it twice.
    func watch(_ descriptor: FileDescriptor, hasCount: Bool) throws(SystemError) {
        let token = hasCount ? UInt64(descriptor.rawValue) : WorkerControl.countless
        try checked(
            shim_epoll_add(epoll.rawValue, descriptor.rawValue, token),
            "watch descriptor \(descriptor.rawValue)"
        )
    }

    /// Ends `watch`.
    func unwatch(_ descriptor: FileDescriptor) {
        _ = shim_epoll_remove(epoll.rawValue, descriptor.rawValue)
    }

    /// Sleeps until something readable is there, at most `milliseconds`. Worker.
    func sleep(milliseconds: Int32) {
        var tokens: (UInt64, UInt64, UInt64, UInt64) = (0, 0, 0, 0)
        unsafe withUnsafeMutableBytes(of: &tokens) { raw in
            let tokens = unsafe raw.assumingMemoryBound(to: UInt64.self)
            let count = unsafe shim_epoll_wait(
                epoll.rawValue,
                tokens.baseAddress,
                Int32(tokens.count),
                milliseconds
            )
            for index in 0..<Int(max(0, count)) {
                let token = unsafe tokens[index]
                if token != WorkerControl.countless {
                    EventFD.drain(Int32(truncatingIfNeeded: token))
                }
            }
        }
        sleeps.store(sleeps.load(ordering: .relaxed) &+ 1, ordering: .relaxed)
    }

    /// Token of a descriptor that has no count to take.
    private static let countless = UInt64.max
}
