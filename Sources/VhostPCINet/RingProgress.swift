/// How far the rings of a peer were worked on, from the used indices in the peer's own memory.
///
/// Buffers are used in order and none is in flight once the driver let go: the used index is then
/// the next available one (VU-R-02). Entries that somebody before us took and never returned were
/// taken again from the used index on (HI-I7), or skipped where it is out of reach, so that holds
/// whatever the front-end's base was. Only a ring on which nothing was returned keeps that base.
struct RingProgress: Equatable, Sendable {
    private struct Start: Equatable, Sendable {
        var nextAvailable: UInt16
        var used: UInt16
    }

    private var starts: [Int: Start] = [:]
    private var reached: [Int: UInt16] = [:]

    /// Where to go on with a ring; `nil` when it was never worked on.
    func nextAvailable(_ ring: Int) -> UInt16? { reached[ring] }

    /// Work on a ring begins at that entry, with that used index in memory.
    mutating func begin(_ ring: Int, nextAvailable: UInt16, used: UInt16) {
        starts[ring] = Start(nextAvailable: nextAvailable, used: used)
    }

    /// Work on a ring ended with that used index in memory.
    mutating func end(_ ring: Int, used: UInt16) {
        guard let start = starts.removeValue(forKey: ring) else { return }
        reached[ring] = used == start.used ? start.nextAvailable : used
    }

    /// Rings that are being worked on.
    var active: [Int] { starts.keys.sorted() }

    /// The front-end stopped a ring: where it goes on is its own to say, by SET_VRING_BASE.
    mutating func forget(_ ring: Int) {
        starts[ring] = nil
        reached[ring] = nil
    }

    /// The peer went.
    mutating func clear() {
        starts = [:]
        reached = [:]
    }
}
