internal import Glibc

/// Sends datagrams to a unix socket of somebody else's, without ever waiting.
public struct DatagramSocket: Sendable {
    /// Where datagrams go: a path, or an abstract name after `@`.
    public let path: String
    private let descriptor: FileDescriptor

    /// Opens a socket for sending to `path`.
    public init(to path: String) throws(SystemError) {
        guard (1..<MemoryLayout<sockaddr_un>.size - 2).contains(path.utf8.count) else {
            throw SystemError("send datagrams to '\(path)'", .nameTooLong)
        }
        self.path = path
        let kind = Int32(SOCK_DGRAM.rawValue | SOCK_CLOEXEC.rawValue | SOCK_NONBLOCK.rawValue)
        let raw = socket(AF_UNIX, kind, 0)
        descriptor = FileDescriptor(
            owning: try checked(raw < 0 ? -Glibc.errno : raw, "open a datagram socket")
        )
    }

    /// Sends one datagram; throws when nobody takes it at once.
    public func send(_ text: String) throws(SystemError) {
        var address = sockaddr_un()
        address.sun_family = sa_family_t(AF_UNIX)
        var name = Array(path.utf8)
        // An abstract name has a zero byte where it is written with a commercial at.
        if name.first == UInt8(ascii: "@") { name[0] = 0 }
        unsafe withUnsafeMutableBytes(of: &address.sun_path) { unsafe $0.copyBytes(from: name) }
        let isAbstract = name.first == 0
        let length =
            MemoryLayout<sa_family_t>.size + name.count + (isAbstract ? 0 : 1)
        let bytes = Array(text.utf8)
        let status = unsafe withUnsafePointer(to: &address) { pointer in
            unsafe pointer.withMemoryRebound(to: sockaddr.self, capacity: 1) { target in
                unsafe sendto(
                    descriptor.rawValue,
                    bytes,
                    bytes.count,
                    Int32(MSG_NOSIGNAL),
                    target,
                    socklen_t(length)
                )
            }
        }
        guard status < 0 else { return }
        throw SystemError("send a datagram to \(path)", Errno(Glibc.errno))
    }
}
