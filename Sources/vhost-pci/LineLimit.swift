/// How many lines of one kind are shown: a number at once, then one an interval. The rest is counted
/// and told with the next line that is shown. A value without a clock.
struct LineLimit {
    private let burst: UInt64
    private let interval: UInt64
    /// Nanoseconds of credit; a line costs an interval.
    private var credit: UInt64
    private var last: UInt64
    /// Lines left out since the last one shown.
    private(set) var omitted: UInt64 = 0

    /// `burst` lines at once, then one every `interval` nanoseconds.
    init(burst: UInt64, interval: UInt64, now: UInt64) {
        self.burst = burst
        self.interval = interval
        credit = burst * interval
        last = now
    }

    /// For another line: how many were left out before it, or `nil` when it is to be left out too.
    mutating func admit(now: UInt64) -> UInt64? {
        let most = burst * interval
        let gained = now > last ? min(now - last, most) : 0
        last = max(last, now)
        credit = min(most, credit + gained)
        guard credit >= interval else {
            omitted += 1
            return nil
        }
        credit -= interval
        defer { omitted = 0 }
        return omitted
    }
}
