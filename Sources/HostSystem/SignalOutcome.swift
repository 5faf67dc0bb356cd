internal import Glibc

/// What became of adding 1 to an eventfd.
@frozen
public enum SignalOutcome: Sendable, BitwiseCopyable {
    /// The counter is one higher.
    case signalled
    /// The counter is full: its reader is awake already, so nothing is lost (HI-D25).
    case full
    /// Whoever shares the eventfd made it blocking and full, so that the write had to be interrupted
    /// after 20 to 40 milliseconds; or it cannot be written at all. Do not signal it again (HI-D25).
    case blocked

    /// From the result of `shim_event_add`.
    @_noLocks
    public init(result: Int32) {
        switch result {
        case 0: self = .signalled
        case -EAGAIN: self = .full
        default: self = .blocked
        }
    }
}
