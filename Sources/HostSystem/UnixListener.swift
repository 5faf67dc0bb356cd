internal import CSystemShims
internal import Glibc
internal import Synchronization

/// Where connections to a unix socket come from: a path of our own, or a socket that somebody made
/// for us. An own path is removed with it, unless something else is there by then.
public final class UnixListener: Sendable {
    /// The descriptor, to register with epoll.
    public let descriptor: FileDescriptor
    /// Where it listens, or what it was adopted as; for messages.
    public let path: String
    /// File system and inode of our socket, so that nothing else at the path is removed.
    private let place: Place?
    /// The only connection, where a connected socket was adopted and nobody took it yet.
    private let connection: Mutex<UnixSocket?>
    private let isConnected: Bool

    /// How long another process may take to bind the same path.
    private static let lockMilliseconds: UInt64 = 1000

    /// Binds `path`, removing a socket that nobody listens on any more. Only processes that `mode`
    /// allows can connect, from the first moment on; without it the umask decides.
    ///
    /// Refuses a path where another process answers, and never removes what is not a socket. Of
    /// several processes that try this at once one succeeds: they take turns at a lock file beside
    /// the path, which is gone afterwards.
    public init(path: String, mode: UInt16? = nil, backlog: Int32 = 16) throws(SystemError) {
        self.path = path
        guard path.utf8.count < shim_socket_path_limit() else {
            throw SystemError(
                "listen at \(path): a socket path has at most \(shim_socket_path_limit() - 1) bytes",
                .nameTooLong
            )
        }
        let lock = try SocketLock.take(path, milliseconds: Self.lockMilliseconds)
        let raw = mode.map { Int32($0 & 0o777) } ?? -1
        var status = unsafe shim_listen(path, backlog, raw)
        if status < 0, Errno(-status) == .addressInUse {
            try UnixListener.removeStale(path)
            status = unsafe shim_listen(path, backlog, raw)
        }
        lock.release()
        descriptor = FileDescriptor(owning: try checked(status, "listen at \(path)"))
        place = Place(of: path)
        connection = Mutex(nil)
        isConnected = false
    }

    /// Takes over a socket that somebody opened for us: a listening one, or a connected one, which
    /// is then the only connection. `name` stands for the path in messages.
    public init(adopting socket: FileDescriptor, name: String) throws(SystemError) {
        path = name
        place = nil
        let kind = try checked(
            shim_socket_kind(socket.rawValue),
            "use descriptor \(socket.rawValue) as a unix stream socket"
        )
        try checked(shim_set_nonblocking(socket.rawValue, 1), "keep \(name) from waiting")
        isConnected = kind == 0
        if isConnected {
            let readable = try EventFD()
            readable.signal()
            descriptor = readable.descriptor
            connection = Mutex(UnixSocket(socket))
        } else {
            descriptor = socket
            connection = Mutex(nil)
        }
    }

    deinit {
        guard let place, Place(of: path) == place else { return }
        unsafe unlink(path)
    }

    /// The next waiting connection; `nil` when there is none.
    public func accept() throws(SystemError) -> UnixSocket? {
        if isConnected {
            EventFD.drain(descriptor.rawValue)
            return connection.withLock { socket in
                defer { socket = nil }
                return socket
            }
        }
        let raw = shim_accept(descriptor.rawValue)
        if raw < 0, Errno(-raw) == .wouldBlock { return nil }
        return UnixSocket(FileDescriptor(owning: try checked(raw, "accept at \(path)")))
    }

    private static func removeStale(_ path: String) throws(SystemError) {
        var information = stat()
        try checked(
            unsafe lstat(path, &information) == 0 ? 0 : -Glibc.errno,
            "read the status of \(path)"
        )
        guard information.st_mode & S_IFMT == S_IFSOCK else {
            throw SystemError("listen at \(path): something that is no socket is there", .exists)
        }
        do throws(SystemError) {
            let other = try UnixSocket.connect(to: path)
            let owner = other.peerProcess.map { " (pid \($0))" } ?? ""
            let who = other.peerProcess == getpid() ? "this process" : "another process"
            throw SystemError("listen at \(path): \(who) answers there\(owner)", .addressInUse)
        } catch  where error.errno == .connectionRefused {
            unsafe unlink(path)
        }
    }
}

/// What a path leads to.
private struct Place: Equatable {
    let device: dev_t
    let inode: ino_t

    init?(of path: String) {
        var information = stat()
        guard unsafe lstat(path, &information) == 0 else { return nil }
        device = information.st_dev
        inode = information.st_ino
    }

    init?(of descriptor: Int32) {
        var information = stat()
        guard unsafe fstat(descriptor, &information) == 0 else { return nil }
        device = information.st_dev
        inode = information.st_ino
    }
}

/// The right to look at a socket path and to bind it. Between the look and the bind another process
/// must not do the same: it would take our new socket, on which nobody listens yet, for a stale one.
private struct SocketLock: ~Copyable {
    private let file: FileDescriptor
    private let path: String

    private init(file: consuming FileDescriptor, path: String) {
        self.file = file
        self.path = path
    }

    /// Not an initialiser: in one that may leave with half of its members set, the optimiser of Swift
    /// 6.3 releases the descriptor as if it were the path's storage.
    static func take(_ socket: String, milliseconds: UInt64) throws(SystemError) -> SocketLock {
        let path = socket + ".lock"
        let deadline = Deadline(milliseconds: milliseconds)
        while true {
            let raw = unsafe open(path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0o600)
            let file = FileDescriptor(
                owning: try checked(
                    raw < 0 ? -Glibc.errno : raw,
                    "listen at \(socket): open \(path)"
                )
            )
            let status = shim_lock_file(file.rawValue)
            // Whoever had the lock removes the file: then ours is another one than the next one's.
            if status == 0, let place = Place(of: file.rawValue), place == Place(of: path) {
                return SocketLock(file: file, path: path)
            }
            guard !deadline.hasPassed else {
                throw SystemError(
                    "listen at \(socket): another process holds \(path)",
                    .addressInUse
                )
            }
            if status < 0 { usleep(1000) }
        }
    }

    /// Lets the next process try.
    consuming func release() {}

    deinit {
        unsafe unlink(path)
        withExtendedLifetime(file) {}
    }
}
