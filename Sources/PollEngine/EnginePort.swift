internal import HostSystem
internal import Virtqueue

/// A port as the control thread knows it: its name, and what it is attached to at present.
final class EnginePort {
    /// Where a port stands.
    enum Link {
        /// No rings.
        case detached
        /// A worker serves it.
        case attached(PortAttachment, Worker)
        /// Taken from the worker, which has not said yet that it follows this command.
        case detaching(PortAttachment, Worker, command: UInt64)
    }

    let id: PortID
    let name: String
    let kind: PortKind
    var link = Link.detached
    /// Times it was attached.
    private(set) var connections = 0
    /// Why the last attempt to attach it failed; `nil` since one succeeded.
    private var failure: String?
    private var failures: UInt64 = 0
    /// Totals of attachments that are over.
    private var past = PortRecord()
    /// Attachments that ended with a broken ring, by error id.
    private var pastErrors: [String: UInt64] = [:]

    init(_ id: PortID, name: String, kind: PortKind) {
        self.id = id
        self.name = name
        self.kind = kind
    }

    /// Notes an attempt that failed.
    func fail(_ error: EngineError) {
        failure = error.description
        failures += 1
    }

    /// Notes a new attachment.
    func begin(_ attachment: PortAttachment, _ worker: Worker) {
        failure = nil
        link = .attached(attachment, worker)
        connections += 1
    }

    /// Keeps the totals of an attachment that no worker uses any more, and lets it go.
    func end(_ attachment: PortAttachment) {
        past.add(attachment.finalRecord)
        if let fault = RingFault.decode(attachment.ledger.fault) {
            pastErrors[fault.error.rawValue, default: 0] += 1
        }
        link = .detached
    }

    /// What the port has done so far.
    func report() -> EngineReport.Port {
        var report = EngineReport.Port(id: id, name: name, kind: kind, isAttached: false)
        report.connections = connections
        report.failure = failure
        report.attachFailures = failures
        report.ringErrors = pastErrors
        var total = past
        switch link {
        case .detached: break
        case .attached(let attachment, let worker), .detaching(let attachment, let worker, _):
            total.add(attachment.ledger.record)
            if case .attached = link { report.isAttached = true }
            report.core = worker.core
            report.memoryNode = attachment.memoryNode
            report.ringError = RingFault.decode(attachment.ledger.fault).map {
                EngineReport.RingError(pair: $0.pair, id: $0.error.rawValue)
            }
            if let id = report.ringError?.id { report.ringErrors[id, default: 0] += 1 }
            let broken = attachment.ledger.brokenPairs
            report.brokenPairs = (0..<PortPairs.limit).filter { broken >> UInt64($0) & 1 != 0 }
            report.stalledNanoseconds = stall(attachment.ledger.stalledSince)
        }
        report.fill(total)
        return report
    }

    private func stall(_ since: UInt64) -> UInt64? {
        guard since != 0 else { return nil }
        let now = CycleClock.now
        return now > since ? CycleClock.nanoseconds(now - since) : 0
    }
}

extension EngineReport.Port {
    /// A port that has done nothing.
    init(id: PortID, name: String, kind: PortKind, isAttached: Bool) {
        self.id = id
        self.name = name
        self.kind = kind
        self.isAttached = isAttached
        connections = 0
    }

    /// Takes over the counters.
    mutating func fill(_ record: PortRecord) {
        let peer = record.peer
        let tap = record.tap
        received.packets = peer.receivedPackets &+ tap.receivedPackets
        received.bytes = peer.receivedBytes &+ tap.receivedBytes
        transmitted.packets = peer.transmittedPackets &+ tap.transmittedPackets
        transmitted.bytes = peer.transmittedBytes &+ tap.transmittedBytes
        isGone = tap.isGone > 0
        consumed = record.engine.consumed
        copies = peer.copies &+ tap.copies &+ record.engine.consumedCopies
        generated = record.engine.generated
        floodCopies = record.engine.floodCopies
        unlearnedAddresses = record.engine.unlearned
        drops = record.engine.drops.merging(tap.drops) { $0 &+ $1 }
        forwardingDrops = drops.values.reduce(peer.bufferSize, &+)
        drops.merge(peer.drops) { $0 &+ $1 }
        kicksSent = peer.kicksSent
        kicksSuppressed = peer.kicksSuppressed
        notifyFull = peer.notifyFull
        cutLengths = peer.cutLengths
        unfinished = peer.unfinished
    }
}
