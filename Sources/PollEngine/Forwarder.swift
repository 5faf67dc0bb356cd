internal import GuestMemory
internal import HostSystem
internal import Synchronization

/// One way of forwarding, with the memory it works in. Made on the worker's own CPU, so that this
/// memory lies on the worker's node; lives on the worker's stack.
///
/// Used as a generic constraint only: every conformer has a concrete, `@_noLocks` entry `poll`, so
/// one indirect call is made when polling begins and none for a burst or a packet.
protocol Forwarder: ~Copyable {
    init(_ plan: WorkerPlan)

    /// Serves every port once; returns how many packets were moved.
    mutating func turn(_ ports: PortList) -> Int

    /// Another port has this slot from now on: whatever is known of the one before is forgotten.
    mutating func forget(slot: Int)

    /// Takes turns until something else is to be done.
    static func poll(
        _ forwarder: inout Self,
        _ ports: PortList,
        _ control: WorkerControl,
        _ tally: inout WorkerTally,
        _ watch: PollWatch
    ) -> PollExit
}

extension Forwarder where Self: ~Copyable {
    /// Nothing is known of ports.
    mutating func forget(slot: Int) {}
}

/// When to leave the polling loop.
struct PollWatch: BitwiseCopyable {
    /// The command that the loop already follows.
    var command: UInt64
    /// Turns in a row without a packet, after which it ends; 0 for never.
    var emptyTurns: Int
    /// Gives way to a sibling thread after an empty turn.
    var pauses: Bool
}

/// Why the polling loop ended.
enum PollExit {
    /// The control thread changed something.
    case command
    /// There was nothing to do for a while.
    case idle
}

/// The frame of the polling loop that all forwarders share: what happens before and after a turn.
struct PollLoop {
    private let watch: PollWatch
    private var empty = 0

    @_noLocks @inline(__always)
    init(_ watch: PollWatch) {
        self.watch = watch
    }

    /// Why to leave the loop now, between two turns; `nil` to take another turn.
    @_noLocks @inline(__always)
    func exit(_ control: WorkerControl) -> PollExit? {
        if control.command.load(ordering: .acquiring) != watch.command { return .command }
        return watch.emptyTurns != 0 && empty >= watch.emptyTurns ? .idle : nil
    }

    /// Books a turn that moved so many packets.
    @_noLocks @inline(__always)
    mutating func book(
        _ moved: Int,
        _ ports: PortList,
        _ control: WorkerControl,
        _ tally: inout WorkerTally
    ) {
        if tally.book(moved) {
            unsafe publishCounters(ports)
            tally.publish(control)
        }
        if moved > 0 {
            empty = 0
        } else {
            empty &+= 1
            if watch.pauses { unsafe SharedCell.pause() }
        }
    }
}

/// Shows the counters of all ports to the control thread.
@_noLocks func publishCounters(_ ports: PortList) {
    var index = 0
    while index < (unsafe ports.count) {
        unsafe ports.ports[index].pointee.publish()
        index &+= 1
    }
}
