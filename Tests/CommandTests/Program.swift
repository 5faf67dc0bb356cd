import Glibc
import HostSystem
import Testing

/// `vhost-pci` in a process of its own, killed with this object.
final class Program {
    private let pid: pid_t
    private var status: Int32?

    /// Where the program is.
    private static func path() throws -> String {
        let folder = try #require(
            CommandLine.arguments.first { $0.contains(".xctest") }
                .map { $0.split(separator: "/").dropLast().joined(separator: "/") }
        )
        return "/" + folder + "/vhost-pci"
    }

    /// Starts it by a shell, which knows what will be its process id as `$$`, after `prelude`; what it
    /// prints goes to a file.
    convenience init(
        _ arguments: [String],
        prelude: String,
        output: String,
        descriptors: [Int32: Int32] = [:]
    ) throws {
        let words = ([try Self.path()] + arguments).map { "'\($0)'" }.joined(separator: " ")
        try self.init(
            command: ["/bin/sh", "-c", "\(prelude) exec \(words) >'\(output)' 2>&1"],
            descriptors: descriptors
        )
    }

    /// Starts it; what it prints is thrown away.
    convenience init(_ arguments: [String]) throws {
        try self.init(command: [try Self.path()] + arguments, descriptors: [:])
    }

    private init(command arguments: [String], descriptors: [Int32: Int32]) throws {
        var pointers: [UnsafeMutablePointer<CChar>?] =
            unsafe arguments.map { unsafe strdup($0) }
        defer { unsafe pointers.forEach { unsafe free($0) } }
        unsafe pointers.append(nil)
        var actions = unsafe posix_spawn_file_actions_t()
        unsafe posix_spawn_file_actions_init(&actions)
        defer { unsafe posix_spawn_file_actions_destroy(&actions) }
        unsafe posix_spawn_file_actions_addopen(&actions, 1, "/dev/null", O_WRONLY, 0)
        for (number, own) in descriptors {
            unsafe posix_spawn_file_actions_adddup2(&actions, own, number)
        }
        var number: pid_t = 0
        let status = unsafe posix_spawn(&number, arguments[0], &actions, nil, pointers, environ)
        #expect(status == 0)
        pid = number
    }

    deinit {
        guard status == nil else { return }
        kill()
        _ = wait(0)
    }

    /// Its exit status once it has ended by itself, 256 and the signal when one killed it.
    var exitStatus: Int32? {
        if status == nil { status = wait(WNOHANG) }
        return status
    }

    /// How many descriptors it has open.
    var descriptorCount: Int { HostTree.live.entriesIfAny("/proc/\(pid)/fd").count }

    /// Milliseconds of a CPU that it has used, in steps of ten.
    var cpuMilliseconds: Int {
        guard let file = try? FileDescriptor.open("/proc/\(pid)/stat", writable: false),
            let bytes = try? file.read(at: 0, count: 4096)
        else { return 0 }
        // The name of the program, which may have blanks, ends with the last bracket.
        let text = String(decoding: bytes, as: UTF8.self)
        let words = text.split(separator: ")").last?.split(separator: " ") ?? []
        return words.dropFirst(11).prefix(2).compactMap { Int($0) }.reduce(0, +) * 10
    }

    /// How many mappings it has.
    var mappingCount: Int {
        guard let file = try? FileDescriptor.open("/proc/\(pid)/maps", writable: false) else {
            return 0
        }
        var lines = 0
        var offset = 0
        while let piece = try? file.read(at: UInt64(offset), count: 1 << 16),
            !piece.isEmpty
        {
            lines += piece.count { $0 == UInt8(ascii: "\n") }
            offset += piece.count
        }
        return lines
    }

    /// Sends it a signal.
    func signal(_ number: Int32) { _ = Glibc.kill(pid, number) }

    /// Waits until it has ended by itself, at most so many milliseconds.
    func waitForEnd(milliseconds: UInt64) -> Int32? {
        let deadline = Deadline(milliseconds: milliseconds)
        while exitStatus == nil, !deadline.hasPassed { usleep(2000) }
        return exitStatus
    }

    /// Kills it in the middle of whatever it does.
    func kill() { _ = Glibc.kill(pid, SIGKILL) }

    private func wait(_ options: Int32) -> Int32? {
        var code: Int32 = 0
        guard unsafe waitpid(pid, &code, options) == pid else { return nil }
        return code & 0x7f == 0 ? code >> 8 & 0xff : 256 + code & 0x7f
    }
}
