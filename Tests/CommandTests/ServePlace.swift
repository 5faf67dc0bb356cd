import Glibc
import HostSystem
import Testing

@testable import vhost_pci

/// A folder for the sockets of a test, and what the program prints.
final class ServePlace {
    let folder: String

    init(_ name: String) throws {
        folder = "/tmp/vhost-pci-serve-\(getpid())-\(name)"
        try #require(unsafe mkdir(folder, 0o700) == 0)
    }

    deinit {
        for name in entries { unsafe unlink("\(folder)/\(name)") }
        unsafe rmdir(folder)
    }

    func path(_ name: String) -> String { "\(folder)/\(name)" }

    var entries: [String] { HostTree.live.entriesIfAny(folder) }

    var sockets: [String] { entries.filter { $0.hasSuffix(".sock") } }

    func serve(
        _ arguments: [String],
        prelude: String = "",
        log: String = "log",
        descriptors: [Int32: Int32] = [:]
    ) throws -> Program {
        try Program(
            ["serve"] + arguments,
            prelude: prelude,
            output: path(log),
            descriptors: descriptors
        )
    }

    /// Another command, whose output goes to `log`.
    func run(_ arguments: [String], log: String = "ctl") throws -> Program {
        try Program(arguments, prelude: "", output: path(log))
    }

    func text(_ name: String = "log") -> String {
        guard let file = try? FileDescriptor.open(path(name), writable: false),
            let bytes = try? file.read(at: 0, count: 1 << 16)
        else { return "" }
        return String(decoding: bytes, as: UTF8.self)
    }

    /// Waits for a line, ten seconds at the most.
    func sees(_ words: String, in log: String = "log") -> Bool {
        let deadline = Deadline(milliseconds: 10_000)
        while !text(log).contains(words), !deadline.hasPassed { usleep(5000) }
        return text(log).contains(words)
    }

    func write(_ text: String, _ name: String) throws {
        let raw = unsafe open(path(name), O_CREAT | O_WRONLY | O_TRUNC | O_CLOEXEC, 0o600)
        let file = FileDescriptor(owning: raw)
        try file.write(at: 0, Array(text.utf8))
    }
}
