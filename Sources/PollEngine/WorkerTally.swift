internal import Synchronization

/// What a worker counts of its own turns, with the cycles they took.
///
/// A turn that moved packets is busy, any other idle. The clock is read behind every idle turn and
/// behind the first of several busy ones, so that a single busy turn among idle ones is booked by
/// itself; while one busy turn follows the other it is read every 64 turns only, and the idle turn
/// that ends such a run counts as part of it.
struct WorkerTally {
    private(set) var busyCycles: UInt64 = 0
    private(set) var idleCycles: UInt64 = 0
    private(set) var turns: UInt64 = 0
    private(set) var emptyPolls: UInt64 = 0
    private var lastReading = CycleClock.now
    private var isBusy = false
    /// Busy turns ended since the last reading.
    private var hasUnread = false

    /// Books one turn that moved `packets`. True when counters are due for publication.
    @_noLocks @inline(__always)
    mutating func book(_ packets: Int) -> Bool {
        turns &+= 1
        let isDue = turns & 63 == 0
        if packets > 0 {
            guard !isBusy || isDue else {
                hasUnread = true
                return false
            }
            isBusy = true
            hasUnread = true
            read()
            return isDue
        }
        emptyPolls &+= 1
        read()
        let hasBecomeIdle = isBusy
        isBusy = false
        return hasBecomeIdle || isDue
    }

    /// Books the time since the last reading, to the busy turns that ended since, else as idle.
    @_noLocks @inline(__always)
    mutating func read() {
        let now = CycleClock.now
        if hasUnread {
            busyCycles &+= now &- lastReading
        } else {
            idleCycles &+= now &- lastReading
        }
        hasUnread = false
        lastReading = now
    }

    /// Shows the counters to the control thread.
    @_noLocks @inline(__always)
    func publish(_ control: WorkerControl) {
        control.busyCycles.store(busyCycles, ordering: .relaxed)
        control.idleCycles.store(idleCycles, ordering: .relaxed)
        control.turns.store(turns, ordering: .relaxed)
        control.emptyPolls.store(emptyPolls, ordering: .relaxed)
    }
}
