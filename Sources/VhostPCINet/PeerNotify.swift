internal import HostSystem
internal import Virtio

/// The device's end of the peer-notify structure: which call eventfd each slot rings.
///
/// Slots belong to rings by position, whether a peer is there or not; a slot without a call
/// eventfd, and every slot while not connected, rings nobody (VPN-D-03).
final class PeerNotify {
    private let doorbells: DoorbellTable
    private let first: Int
    private let count: Int
    private var calls: [Int: FileDescriptor] = [:]
    private var isConnected = false

    /// Uses `count` slots from `first` on.
    init(doorbells: DoorbellTable, first: Int, count: Int) {
        precondition(
            first >= 0 && count >= 0 && first + count <= doorbells.count,
            "slots \(first) to \(first + count) of \(doorbells.count)"
        )
        self.doorbells = doorbells
        self.first = first
        self.count = count
    }

    /// The slot of a ring, absolute in the structure.
    func slot(ofRing ring: Int) -> Int { first + ring }

    /// Connects every ring that has a call eventfd.
    func connect(_ calls: [Int: FileDescriptor]) throws(Refusal) {
        self.calls = calls
        isConnected = true
        for ring in 0..<count { try point(ring, to: calls[ring]) }
    }

    /// Points every slot to nobody. What was rung until now was delivered.
    func disconnect() {
        guard isConnected else { return }
        isConnected = false
        // Pointing to nobody duplicates a descriptor of ours onto one of ours: the kernel has no
        // reason to refuse, and if it did, a stray interrupt of the peer would be all.
        for ring in 0..<count { try? point(ring, to: nil) }
    }

    /// The front-end gave another call eventfd. What was used before may be unannounced on the new
    /// one: the back-end signals it once after this (VU-B-14).
    func replace(_ ring: Int, with call: FileDescriptor?) throws(Refusal) {
        guard ring >= 0, ring < count else { return }
        calls[ring] = call
        guard isConnected else { return }
        try point(ring, to: call)
    }

    /// Signals every call eventfd once: doorbells that were rung while disconnected went nowhere.
    /// Refuses with `notify/blocked` the one whose peer made it block, and forgets it (HI-D25).
    func signalAll() throws(Refusal) {
        var blocked: [Int] = []
        for (ring, call) in calls where EventFD.signal(call.rawValue) == .blocked {
            calls[ring] = nil
            blocked.append(ring)
        }
        guard blocked.isEmpty else {
            throw Refusal("notify/blocked", "the call eventfd of rings \(blocked.sorted()) blocks")
        }
    }

    /// Forgets the peer's descriptors.
    func forget() {
        disconnect()
        calls = [:]
    }

    private func point(_ ring: Int, to call: FileDescriptor?) throws(Refusal) {
        do throws(SystemError) {
            try doorbells.connect(first + ring, to: call)
        } catch {
            throw Refusal("limit/nofile", "\(error)")
        }
    }
}
