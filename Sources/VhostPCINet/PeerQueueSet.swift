internal import VirtioSpec

/// Parts of PEER_VIRTQ_INFO on their way to a whole: each announced index once (VPN-D-14).
struct PeerQueueSet: Equatable, Sendable {
    /// Number of queues announced; `nil` before the first part.
    private(set) var total: UInt32?
    private var byIndex: [UInt16: PeerQueueInformation.Queue] = [:]

    /// The queues known so far, ascending by index.
    var queues: [PeerQueueInformation.Queue] { byIndex.values.sorted { $0.index < $1.index } }

    /// True when every announced queue is described.
    var isComplete: Bool { total.map { Int($0) == byIndex.count } ?? false }

    /// Takes a part in; `maximum` is what we can serve. What is kept grows with what is described,
    /// never with what is announced (HI-G5).
    mutating func add(_ part: PeerQueueInformation, maximum: Int) throws(Refusal) {
        guard part.total >= 1, Int(part.total) <= maximum, part.total == total ?? part.total else {
            throw Refusal(
                "vpci/vq-count",
                "\(part.total) queues announced, we serve \(maximum)"
                    + (total.map { ", \($0) before" } ?? "")
            )
        }
        for queue in part.queues {
            guard UInt32(queue.index) < part.total, byIndex[queue.index] == nil else {
                throw Refusal(
                    "vpci/vq-count",
                    "queue \(queue.index) of \(part.total) described twice or not announced"
                )
            }
            byIndex[queue.index] = queue
        }
        total = part.total
    }
}
