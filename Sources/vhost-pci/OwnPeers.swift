import Glibc
import HostSystem

/// The two peers that a run without arguments brings: processes of this program, each a virtio-net
/// front-end on a socket of ours.
final class OwnPeers {
    /// What start-up and the last packets may take beyond the run's time, in seconds.
    static let grace = 8.0

    /// The sockets, in a directory that goes with this object.
    let paths: [String]

    private let directory: String
    private var processes: [PeerProcess] = []

    init() throws {
        var template = Array("/tmp/vhost-pci.XXXXXX".utf8CString)
        let made = unsafe template.withUnsafeMutableBufferPointer { buffer in
            unsafe buffer.baseAddress.map { unsafe mkdtemp($0) != nil } ?? false
        }
        guard made else {
            throw SystemError("make a directory for sockets in /tmp", Errno(errno))
        }
        directory = String(
            decoding: template.dropLast().map { UInt8(bitPattern: $0) },
            as: UTF8.self
        )
        paths = (0..<2).map { [directory] in "\(directory)/peer\($0).sock" }
    }

    deinit {
        processes = []
        for path in paths { unsafe unlink(path) }
        unsafe rmdir(directory)
    }

    /// Starts both; the sockets must listen by now.
    func start(seconds: Double) throws {
        let addresses = [MACAddress(local: 1), MACAddress(local: 2)]
        for (index, path) in paths.enumerated() {
            processes.append(
                try PeerProcess(
                    path: path,
                    own: addresses[index],
                    partner: addresses[1 - index],
                    seconds: seconds
                )
            )
        }
    }

    /// True when both have ended.
    func haveEnded() -> Bool {
        processes.allSatisfy { $0.hasEnded() }
    }

    /// What both counted; throws when one failed.
    func summaries() throws -> [PeerTraffic.Summary] {
        try processes.map { try $0.summary() }
    }

    /// What is wrong with the two counts, one sentence each; empty when every packet arrived once,
    /// in order and whole.
    static func findings(_ summaries: [PeerTraffic.Summary]) -> [String] {
        guard summaries.count == 2 else { return ["\(summaries.count) peers reported, not two"] }
        var findings: [String] = []
        for (index, receiver) in summaries.enumerated() {
            let sender = summaries[1 - index]
            let way = "from peer\(1 - index) to peer\(index)"
            if sender.sent == 0 { findings.append("no packet was sent \(way)") }
            if sender.sent != receiver.received {
                findings.append(
                    "\(sender.sent) packets were sent \(way), \(receiver.received) arrived"
                )
            }
            if receiver.missing > 0 {
                findings.append("\(receiver.missing) packets missing \(way)")
            }
            if receiver.reordered > 0 {
                findings.append("\(receiver.reordered) packets out of order \(way)")
            }
            if receiver.damaged > 0 {
                findings.append("\(receiver.damaged) packets damaged \(way)")
            }
        }
        return findings
    }
}
