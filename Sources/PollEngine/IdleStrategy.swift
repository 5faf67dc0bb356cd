/// What a worker does when a turn over all its ports found nothing.
public enum IdleStrategy: String, Sendable, CaseIterable {
    /// Polls on at once: lowest latency, and a sibling hyper-thread loses half its speed.
    case spin
    /// Polls on after a pause instruction.
    case pause
    /// Sleeps on an eventfd after many empty turns; peers are then asked for kicks.
    case sleep
}
