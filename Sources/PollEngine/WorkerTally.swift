internal import Synchronization

/// What a worker counts of its own turns, with the cycles they took.
///
/// The clock is read when the worker turns from busy to idle or back, and every 64 turns: all
/// cycles since the last reading belong to the state it was in.
struct WorkerTally {
    private var busyCycles: UInt64 = 0
    private var idleCycles: UInt64 = 0
    private var turns: UInt64 = 0
    private var emptyPolls: UInt64 = 0
    private var lastReading = CycleClock.now
    private var isBusy = false

    /// Books one turn that moved `packets`. True when counters are due for publication.
    @_noLocks @inline(__always)
    mutating func book(_ packets: Int) -> Bool {
        turns &+= 1
        if packets == 0 { emptyPolls &+= 1 }
        let nowBusy = packets > 0
        guard nowBusy != isBusy || turns & 63 == 0 else { return false }
        read()
        let hasBecomeIdle = isBusy && !nowBusy
        isBusy = nowBusy
        return hasBecomeIdle || turns & 63 == 0
    }

    /// Books the time since the last reading.
    @_noLocks @inline(__always)
    mutating func read() {
        let now = CycleClock.now
        if isBusy {
            busyCycles &+= now &- lastReading
        } else {
            idleCycles &+= now &- lastReading
        }
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
