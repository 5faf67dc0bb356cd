import Glibc
import HostSystem
import Testing

@testable import vhost_pci

/// A machine with a network device, a machine that owns the vhost-pci-net device of it, and the
/// daemon between them: three processes, two sockets.
@Suite(.serialized) struct TwoMachinesTests {
    private let folder = "/tmp/vhost-pci-machines-\(getpid())-\(MonotonicClock.now)"
    private var front: String { folder + "/front.sock" }
    private var back: String { folder + "/back.sock" }
    private var log: String { folder + "/log" }

    init() {
        _ = unsafe mkdir(folder, 0o700)
    }

    private func daemon() throws -> Program {
        let daemon = try Program(
            ["serve", "--device", "vhost-pci-net", "--peer", front, "--socket-path", back],
            prelude: "",
            output: log
        )
        try expect("the first socket") { unsafe access(front, F_OK) == 0 }
        return daemon
    }

    /// A machine that sends for so long and expects each frame back.
    private func first(seconds: Double) throws -> Program {
        // The socket may be there still from an earlier machine; who connects then sees that one's memory.
        let earlier = listenings
        let machine = try Program(["peer", "--socket", front, "--duration", "\(seconds)"])
        try expect("the second socket for this machine") { listenings > earlier }
        return machine
    }

    /// How often the daemon said that the second socket shows a machine's memory.
    private var listenings: Int {
        guard let file = try? FileDescriptor.open(log, writable: false),
            let bytes = try? file.read(at: 0, count: 1 << 16)
        else { return 0 }
        return String(decoding: bytes, as: UTF8.self).split(separator: "\n").count {
            $0.hasSuffix("listening on \(back)")
        }
    }

    /// A machine whose driver sends back what comes through the BAR.
    private func second() throws -> Program {
        try Program([
            "run", "--device", "vfio-user:\(back)", "--mode", "echo", "--duration", "60",
            "--idle", "pause",
        ])
    }

    private func expect(
        _ what: String,
        location: SourceLocation = #_sourceLocation,
        _ condition: () -> Bool
    ) throws {
        let deadline = Deadline(milliseconds: 20_000)
        while !condition() {
            guard !deadline.hasPassed else {
                Issue.record("no \(what)", sourceLocation: location)
                return
            }
            usleep(10_000)
        }
    }

    private func end(_ programs: Program...) {
        for program in programs { program.kill() }
        for path in [front, back] {
            unsafe unlink(path)
            unsafe unlink(path + ".lock")
        }
        unsafe unlink(log)
        unsafe rmdir(folder)
    }

    @Test func `VPN-D-27, VFU-S-23: every frame comes back through the file that is the BAR`()
        throws
    {
        let daemon = try daemon()
        let first = try first(seconds: 1)
        let second = try second()
        try expect("the end of the first machine") { first.exitStatus != nil }
        #expect(first.exitStatus == 0)
        #expect(second.exitStatus == nil)
        #expect(daemon.exitStatus == nil)
        end(daemon, second)
    }

    @Test func `VPN-D-24, VPN-D-29: the second machine is killed, and both come again`() throws {
        let daemon = try daemon()
        for _ in 0..<3 {
            let first = try first(seconds: 30)
            let second = try second()
            usleep(500_000)
            second.kill()
            // Its link goes down, which this front-end takes for the end.
            try expect("the end of the first machine") { first.exitStatus != nil }
            #expect(first.exitStatus == 1)
        }
        let first = try first(seconds: 1)
        let second = try second()
        try expect("the end of the first machine") { first.exitStatus != nil }
        #expect(first.exitStatus == 0)
        #expect(daemon.exitStatus == nil)
        end(daemon, second)
    }
}
