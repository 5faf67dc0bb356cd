import ArgumentParser
import CSystemShims
import FoundationEssentials
import Glibc
import HostSystem
import VhostUser
import VirtioSpec

/// `vhost-pci peer`: a virtio-net front-end that sends checkable traffic through any vhost-user
/// back-end and verifies what comes back.
struct PeerCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "peer",
        abstract: "Be a virtio-net machine on a vhost-user socket, send traffic and verify it.",
        discussion: """
            Connects to a back-end's socket (`vhost-pci run --peer PATH`, or another program's) and \
            exchanges numbered frames with the partner of the given address, which runs the same \
            command, or with an echo. Waits up to 10 seconds for the back-end. Prints its counts as \
            JSON when its time is over or it is interrupted; latencies are nanoseconds. Exit status 0 when every packet \
            arrived once, in order and whole.
            """
    )

    @Option(help: "The back-end's socket.")
    var socket: String

    @Option(help: "Our Ethernet address.")
    var mac = MACAddress(local: 1)

    @Option(help: "The other peer's Ethernet address; without it an echo is expected.")
    var partner: MACAddress?

    @Option(parsing: .unconditional, help: "Seconds to send.")
    var duration = 5.0

    @Option(help: "Frame lengths in turn, 60 to 1518 bytes.")
    var lengths = "64,128,256,512,1024,1518"

    @Flag(help: .hidden)
    var withParent = false

    func validate() throws {
        guard (1...SocketPath.longest).contains(socket.utf8.count) else {
            throw ValidationError(
                "socket/path: --socket takes a path of 1 to \(SocketPath.longest) bytes"
            )
        }
        guard duration > 0, duration <= 31_536_000 else {
            throw ValidationError("--duration takes seconds, more than 0 and at most a year")
        }
        guard !mac.isGroup, partner?.isGroup != true else {
            throw ValidationError("--mac and --partner take addresses of one station, no group's")
        }
        guard partner != mac else {
            throw ValidationError("--mac and --partner are the same address")
        }
        guard frameLengths != nil else {
            throw ValidationError("--lengths takes numbers from 60 to 1518 between commas")
        }
    }

    private var frameLengths: [Int]? {
        let parts = lengths.split(separator: ",", omittingEmptySubsequences: false)
        let values = parts.compactMap { Int($0) }.filter { (60...1518).contains($0) }
        return values.count == parts.count ? values : nil
    }

    func run() throws {
        if withParent {
            try checked(shim_die_with_parent(SIGKILL), "follow the parent")
        }
        shim_ignore_broken_pipes()
        // A terminal interrupts our own peers with the run that started them, which ends them itself.
        let signals =
            withParent
            ? nil
            : FileDescriptor(owning: try checked(shim_termination_signals(), "watch for signals"))
        let summary: PeerTraffic.Summary
        do {
            var session = PeerSession(
                socket: socket,
                traffic: PeerTraffic(
                    own: mac,
                    partner: partner.map { .peer($0) } ?? .echo,
                    lengths: frameLengths ?? [],
                    runFor: UInt64(duration * 1e9)
                ),
                signals: signals
            )
            summary = try session.run()
        } catch {
            StepReporter.write("vhost-pci: peer on \(socket): \(error)\n", to: STDERR_FILENO)
            throw ExitCode(1)
        }
        try tell(summary)
        let isWhole =
            summary.confirmed == summary.sent && summary.missing == 0
            && summary.reordered == 0 && summary.damaged == 0 && summary.sent > 0
        if !isWhole { throw ExitCode(1) }
    }

    private func tell(_ summary: PeerTraffic.Summary) throws {
        let encoder = JSONEncoder()
        encoder.outputFormatting = .sortedKeys
        do {
            let text = String(decoding: try encoder.encode(summary), as: UTF8.self)
            try StepReporter.writeResult(text + "\n")
        } catch {
            StepReporter.write("vhost-pci: peer on \(socket): \(error)\n", to: STDERR_FILENO)
            throw ExitCode(1)
        }
    }
}
