internal import Glibc
internal import GuestMemory
internal import HostSystem

/// The time-stamp counter, the only clock a polling thread looks at, and how fast it runs.
enum CycleClock {
    /// Cycles since some fixed point; the same on every CPU of a supported machine.
    static var now: UInt64 {
        @_noLocks @inline(__always) get { unsafe SharedCell.cycles() }
    }

    /// Cycles in a second, measured once against the monotonic clock.
    static let hertz: UInt64 = {
        let startTime = MonotonicClock.now
        let startCycles = now
        usleep(5000)
        let elapsed = MonotonicClock.now &- startTime
        let cycles = now &- startCycles
        guard elapsed > 0 else { return 1_000_000_000 }
        return max(1, UInt64(Double(cycles) * 1e9 / Double(elapsed)))
    }()

    /// Turns a number of cycles into nanoseconds.
    static func nanoseconds(_ cycles: UInt64) -> UInt64 {
        UInt64(Double(cycles) * 1e9 / Double(hertz))
    }
}
