import CSystemShims
import FoundationEssentials
import Glibc
import HostSystem

/// One of our own peers, in a process of its own; it dies with this one.
final class PeerProcess {
    /// The process id.
    let pid: Int32
    /// The socket it connects to.
    let path: String

    private let output: FileDescriptor
    private var bytes: [UInt8] = []
    private var status: Int32?

    /// Starts `vhost-pci peer` on a socket.
    init(path: String, own: MACAddress, partner: MACAddress, seconds: Double) throws {
        self.path = path
        var ends: [Int32] = [-1, -1]
        try checked(unsafe shim_pipe(&ends), "create a pipe")
        output = FileDescriptor(owning: ends[0])
        let input = FileDescriptor(owning: ends[1])
        pid = try Self.spawn(
            [
                "vhost-pci", "peer", "--socket", path, "--mac", "\(own)", "--partner", "\(partner)",
                "--duration", "\(seconds)", "--with-parent",
            ],
            output: input.rawValue
        )
    }

    deinit {
        guard status == nil else { return }
        Glibc.kill(pid, SIGKILL)
        var ignored: Int32 = 0
        _ = unsafe waitpid(pid, &ignored, 0)
    }

    private static func spawn(_ arguments: [String], output: Int32) throws -> Int32 {
        var pointers: [UnsafeMutablePointer<CChar>?] = unsafe arguments.map { unsafe strdup($0) }
        defer { unsafe pointers.forEach { unsafe free($0) } }
        unsafe pointers.append(nil)
        return try checked(
            unsafe shim_spawn("/proc/self/exe", &pointers, output),
            "start a peer process"
        )
    }

    /// True once it has ended; reads what it printed so far.
    func hasEnded() -> Bool {
        drain()
        guard status == nil else { return true }
        var code: Int32 = 0
        guard unsafe shim_reap(pid, &code) != 0 else { return false }
        status = code
        drain()
        return true
    }

    /// What it reported at its end; throws when it failed or said nothing.
    func summary() throws -> PeerTraffic.Summary {
        guard hasEnded(), let status = status else {
            throw RunError.peerProcess("process \(pid) at \(path) did not end in time")
        }
        guard let summary = try? JSONDecoder().decode(PeerTraffic.Summary.self, from: Data(bytes))
        else {
            throw RunError.peerProcess(
                "process \(pid) at \(path) ended with status \(status), no report"
            )
        }
        return summary
    }

    /// Ends it at once.
    func kill() {
        guard status == nil else { return }
        Glibc.kill(pid, SIGKILL)
    }

    private func drain() {
        var chunk = [UInt8](repeating: 0, count: 4096)
        while true {
            let count = unsafe shim_read(output.rawValue, &chunk, chunk.count)
            guard count > 0 else { return }
            bytes += chunk.prefix(Int(count))
        }
    }
}
