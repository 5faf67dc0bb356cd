import Glibc
import HostSystem
import Testing

@testable import vhost_pci

/// `vhost-pci serve` in a process of its own, with a folder for its sockets.
final class ServedDaemon {
    let folder: String
    let program: Program
    let control: ControlConnection

    init(_ name: String, _ devices: String) throws {
        folder = "/tmp/vhost-pci-served-\(getpid())-\(name)"
        try #require(unsafe mkdir(folder, 0o700) == 0)
        let file = FileDescriptor(
            owning: unsafe open("\(folder)/f.yaml", O_CREAT | O_WRONLY | O_CLOEXEC, 0o600)
        )
        let text =
            "control: @/c.sock\ndata-plane: {idle: sleep}\ndevices:\n"
            + devices.split(separator: "\n").map { "  - {\($0)}\n" }.joined()
        let parts = text.split(separator: "@", omittingEmptySubsequences: false)
        try file.write(at: 0, Array(parts.joined(separator: folder).utf8))
        program = try Program(["serve", "--config", "\(folder)/f.yaml"])
        control = try ControlConnection("\(folder)/c.sock", waitMilliseconds: 10_000)
        // Answered when all devices are there.
        _ = try call("version")
    }

    deinit {
        program.signal(SIGTERM)
        #expect(program.waitForEnd(milliseconds: 5000) == 0)
        unsafe unlink("\(folder)/f.yaml")
        #expect(unsafe rmdir(folder) == 0, "something is left in \(folder)")
    }

    func target(_ name: String) -> String { "vfio-user:\(folder)/\(name).sock" }

    func call(_ words: String...) throws -> RPCValue {
        try control.call(try #require(ControlRequest(words)))
    }

    /// The member of a socket of a device.
    func socket(_ device: String, _ index: Int, _ key: String) throws -> RPCValue? {
        guard case .list(let sockets)? = try call("device", "show", device).members?["sockets"]
        else { return nil }
        return sockets[index].members?[key]
    }

    /// Waits until a socket is in a state, ten seconds at the most.
    func waits(for device: String, _ index: Int, _ state: String) throws -> Bool {
        let deadline = Deadline(milliseconds: 10_000)
        while try socket(device, index, "state") != .text(state) {
            if deadline.hasPassed { return false }
            usleep(5000)
        }
        return true
    }
}
