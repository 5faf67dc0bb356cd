/// Numbered frames one way between two stations: which goes next, and what became of each. A value,
/// driven by tests without devices.
///
/// Only so many frames are under way at once that no receive ring can run out of buffers: then every
/// loss is a finding.
struct TrafficFlow {
    /// Frames under way at the most.
    static let window: UInt64 = 64

    /// Frames to be sent altogether.
    let total: UInt64
    private let source: MACAddress
    private let destination: MACAddress
    private let lengths: [Int]
    /// Tells our frames from those of an earlier run that were on the way when it ended.
    private let session: UInt64

    /// Frames made so far.
    private(set) var sent: UInt64 = 0
    /// Different frames that arrived whole.
    private(set) var received: UInt64 = 0
    /// Bytes of `received`.
    private(set) var bytes: UInt64 = 0
    /// Frames that came after a later one, or twice.
    private(set) var reordered: UInt64 = 0
    /// Frames of ours with wrong bytes.
    private(set) var damaged: UInt64 = 0
    /// Frames of others.
    private(set) var foreign: UInt64 = 0

    private var expected: UInt64 = 0
    private var missing: Set<UInt64> = []

    /// `lengths` are used in turn, whole frames without checksum.
    init(
        from source: MACAddress,
        to destination: MACAddress,
        total: UInt64,
        lengths: [Int],
        session: UInt64 = .random(in: .min ... .max)
    ) {
        self.session = session
        self.source = source
        self.destination = destination
        self.total = total
        self.lengths = lengths.isEmpty ? [TrafficFrame.minimumLength] : lengths
    }

    /// Frames that have not arrived.
    var lost: UInt64 { sent - min(sent, received) }

    /// True when every frame arrived.
    var isDone: Bool { received == total }

    /// True when all arrived, each once, whole and in order.
    var isGood: Bool { isDone && reordered == 0 && damaged == 0 }

    /// The next frame, `nil` when all are made or too many are under way.
    mutating func nextFrame(now: UInt64) -> TrafficFrame? {
        guard sent < total, sent - min(sent, received + damaged) < Self.window else { return nil }
        let frame = TrafficFrame(
            destination: destination,
            source: source,
            kind: .payload,
            sequence: sent,
            // Nobody needs to be told what arrived: both ends are here.
            received: session,
            sentAt: now,
            length: lengths[Int(sent % UInt64(lengths.count))]
        )
        sent += 1
        return frame
    }

    /// Takes in a frame that arrived at the destination.
    mutating func accept(_ arrived: UnsafeRawBufferPointer) {
        let frame: TrafficFrame
        do throws(TrafficFrame.Damage) {
            frame = try unsafe TrafficFrame(reading: arrived)
        } catch {
            switch error {
            case .short, .foreign: foreign += 1
            case .length, .checksum, .filler: damaged += 1
            }
            return
        }
        guard frame.source == source, frame.destination == destination, frame.kind == .payload,
            frame.received == session
        else {
            foreign += 1
            return
        }
        guard frame.sequence < sent else {
            damaged += 1
            return
        }
        count(frame)
    }

    private mutating func count(_ frame: TrafficFrame) {
        if frame.sequence == expected {
            expected += 1
        } else if frame.sequence > expected {
            // Those in between may still come, late; at most a window of them is remembered.
            for number in expected..<frame.sequence { missing.insert(number) }
            expected = frame.sequence + 1
        } else {
            reordered += 1
            guard missing.remove(frame.sequence) != nil else { return }
        }
        received += 1
        bytes += UInt64(frame.length)
    }
}
