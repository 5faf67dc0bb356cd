internal import Glibc

/// The files in which a kernel tells about its host, below a root directory: `/`, or a made-up tree.
///
/// Every path is absolute as the host sees it, `/sys/bus/pci/devices`; the root goes in front of it.
/// Nothing here waits: a pipe in a made-up tree reads as empty.
public struct HostTree: Hashable, Sendable {
    /// This machine.
    public static let live = HostTree(root: "/")

    /// Most bytes that are taken from one file.
    public static let longestFile = 1 << 23

    /// The directory in front of every path, without a slash at its end.
    private let prefix: String

    /// Takes the tree below a directory.
    public init(root: String) {
        var prefix = Substring(root)
        while prefix.last == "/" { prefix = prefix.dropLast() }
        self.prefix = String(prefix)
    }

    /// This is the machine itself.
    public var isLive: Bool { prefix.isEmpty }

    /// Where a path of the tree lies on this machine.
    public func place(of path: String) -> String { prefix + path }

    /// The bytes of a file, cut at `limit`.
    public func bytes(
        _ path: String,
        limit: Int = HostTree.longestFile
    ) throws(SystemError) -> [UInt8] {
        let file = try open(path, O_RDONLY | O_NONBLOCK)
        var bytes: [UInt8] = []
        var chunk = [UInt8](repeating: 0, count: 4096)
        while bytes.count < limit {
            let wanted = min(chunk.count, limit - bytes.count)
            let count = unsafe chunk.withUnsafeMutableBytes { space in
                unsafe read(file.rawValue, space.baseAddress, wanted)
            }
            if count < 0 {
                if errno == EINTR { continue }
                // What was read so far is what may be read: an unprivileged reader gets 64 bytes of
                // a configuration space.
                if !bytes.isEmpty { break }
                throw failure("read", path)
            }
            guard count > 0 else { break }
            bytes += chunk.prefix(count)
        }
        return bytes
    }

    /// The text of a file without blanks, line ends and zero bytes at its end.
    public func text(_ path: String) throws(SystemError) -> String {
        var bytes = try bytes(path)
        while let last = bytes.last, last <= 0x20 { bytes.removeLast() }
        return String(decoding: bytes, as: UTF8.self)
    }

    /// What a symbolic link says.
    public func link(_ path: String) throws(SystemError) -> String {
        var space = [CChar](repeating: 0, count: 4096)
        let count = unsafe place(of: path).withCString { name in
            unsafe space.withUnsafeMutableBufferPointer { buffer in
                guard let start = buffer.baseAddress else { return 0 }
                return unsafe readlink(name, start, buffer.count)
            }
        }
        guard count >= 0 else { throw failure("read the link", path) }
        return String(decoding: space.prefix(count).map(UInt8.init(bitPattern:)), as: UTF8.self)
    }

    /// The last part of what a symbolic link says; `nil` without the link.
    public func linkName(_ path: String) -> String? {
        guard let target = try? link(path) else { return nil }
        return target.split(separator: "/").last.map(String.init)
    }

    /// Names in a directory, in alphabetical order.
    public func entries(_ path: String) throws(SystemError) -> [String] {
        guard let directory = unsafe opendir(place(of: path)) else {
            throw failure("list", path)
        }
        defer { unsafe closedir(directory) }
        var names: [String] = []
        while let entry = unsafe readdir(directory) {
            let name = unsafe withUnsafeBytes(of: entry.pointee.d_name) { bytes in
                unsafe String(decoding: bytes.prefix { $0 != 0 }, as: UTF8.self)
            }
            if name != ".", name != ".." { names.append(name) }
        }
        return names.sorted()
    }

    /// What kind of file stands at a path, links followed; `nil` when there is none.
    public func attributes(_ path: String) -> HostFileAttributes? {
        var raw = stat()
        guard unsafe stat(place(of: path), &raw) == 0 else { return nil }
        return HostFileAttributes(
            mode: raw.st_mode & 0o7777,
            owner: raw.st_uid,
            group: raw.st_gid,
            size: raw.st_size,
            isDirectory: raw.st_mode & S_IFMT == S_IFDIR
        )
    }

    /// There is something at a path.
    public func exists(_ path: String) -> Bool { attributes(path) != nil }

    /// A directory that exists and can be listed, empty otherwise.
    public func entriesIfAny(_ path: String) -> [String] { (try? entries(path)) ?? [] }

    /// The text of a file, `nil` when it cannot be read.
    public func textIfAny(_ path: String) -> String? { try? text(path) }

    func open(
        _ path: String,
        _ flags: Int32,
        mode: mode_t = 0o644
    ) throws(SystemError) -> FileDescriptor {
        let number = unsafe Glibc.open(place(of: path), flags | O_CLOEXEC, mode)
        guard number >= 0 else { throw failure("open", path) }
        return FileDescriptor(owning: number)
    }

    func failure(_ operation: String, _ path: String) -> SystemError {
        SystemError("\(operation) \(place(of: path))", Errno(errno))
    }
}

/// The part of `struct stat` that says who may use a file.
public struct HostFileAttributes: Hashable, Sendable {
    /// Permission bits.
    public let mode: UInt32
    /// User id of the owner.
    public let owner: UInt32
    /// Group id.
    public let group: UInt32
    /// Length in bytes.
    public let size: Int
    /// A directory.
    public let isDirectory: Bool
}
