internal import CSystemShims

/// The clock for every deadline: it neither jumps nor stops with the wall clock.
public enum MonotonicClock {
    /// Nanoseconds since some fixed point.
    public static var now: UInt64 { shim_monotonic_nanoseconds() }
}

/// A point on the monotonic clock at which a wait gives up.
public struct Deadline: Sendable {
    /// Nanoseconds of `MonotonicClock.now`.
    public let nanoseconds: UInt64

    /// A deadline `milliseconds` from now.
    public init(milliseconds: UInt64) {
        nanoseconds = MonotonicClock.now &+ milliseconds &* 1_000_000
    }

    /// The earlier one of two that may be.
    public static func first(_ one: Deadline?, _ other: Deadline?) -> Deadline? {
        guard let one, let other else { return one ?? other }
        return one.nanoseconds < other.nanoseconds ? one : other
    }

    /// True once the time has come.
    public var hasPassed: Bool { MonotonicClock.now >= nanoseconds }

    /// Milliseconds left, rounded up; 0 when it has passed.
    public var remainingMilliseconds: Int32 {
        let now = MonotonicClock.now
        guard nanoseconds > now else { return 0 }
        return Int32(clamping: (nanoseconds - now + 999_999) / 1_000_000)
    }
}
