internal import CSystemShims
internal import Glibc

/// One end of a connected unix stream socket that carries descriptors; non-blocking.
public final class UnixSocket: Sendable {
    /// The descriptor, to register with epoll.
    public let descriptor: FileDescriptor

    /// Takes over a connected socket.
    public init(_ descriptor: FileDescriptor) {
        self.descriptor = descriptor
    }

    /// Connects to a listening socket.
    public static func connect(to path: String) throws(SystemError) -> UnixSocket {
        let raw = try checked(unsafe shim_connect(path), "connect to \(path)")
        return UnixSocket(FileDescriptor(owning: raw))
    }

    /// Two connected ends in this process.
    public static func pair() throws(SystemError) -> (UnixSocket, UnixSocket) {
        var ends: [Int32] = [-1, -1]
        try checked(
            unsafe ends.withUnsafeMutableBufferPointer { unsafe shim_socket_pair($0.baseAddress) },
            "create a socket pair"
        )
        return (
            UnixSocket(FileDescriptor(owning: ends[0])), UnixSocket(FileDescriptor(owning: ends[1]))
        )
    }

    /// What one read brought.
    public struct Received: Sendable {
        /// The bytes; empty at the end of the stream.
        public var bytes: [UInt8]
        /// Descriptors that came with them, owned.
        public var descriptors: [FileDescriptor]
        /// The kernel could not deliver all descriptors.
        public var isTruncated: Bool
    }

    /// Reads at most `limit` bytes; `nil` when nothing is there yet.
    public func receive(limit: Int) throws(SystemError) -> Received? {
        var arrival: Arrival?
        var failure: SystemError?
        let bytes = unsafe [UInt8](unsafeUninitializedCapacity: limit) { buffer, initialized in
            do throws(SystemError) {
                arrival = try unsafe receive(into: UnsafeMutableRawBufferPointer(buffer))
            } catch {
                failure = error
            }
            initialized = arrival?.count ?? 0
        }
        if let failure { throw failure }
        guard let arrival else { return nil }
        return Received(
            bytes: bytes,
            descriptors: arrival.descriptors,
            isTruncated: arrival.isTruncated
        )
    }

    /// What one read brought to a place that was there before.
    struct Arrival {
        /// Number of bytes; 0 at the end of the stream.
        var count: Int
        /// Descriptors that came with them, owned.
        var descriptors: [FileDescriptor]
        /// The kernel could not deliver all descriptors.
        var isTruncated: Bool
    }

    /// Reads at most `limit` bytes to the beginning of `bytes`.
    func receive(into bytes: inout [UInt8], limit: Int) throws(SystemError) -> Arrival? {
        try unsafe bytes.withUnsafeMutableBufferPointer { buffer throws(SystemError) in
            let part = unsafe UnsafeMutableBufferPointer(rebasing: buffer.prefix(limit))
            return try unsafe receive(into: UnsafeMutableRawBufferPointer(part))
        }
    }

    private func receive(
        into buffer: UnsafeMutableRawBufferPointer
    ) throws(SystemError) -> Arrival? {
        var descriptors: [FileDescriptor] = []
        var truncated: Int32 = 0
        let status = unsafe withUnsafeTemporaryAllocation(
            of: Int32.self,
            capacity: Int(SHIM_MAX_DESCRIPTORS)
        ) { raw in
            var count: Int32 = 0
            let status = unsafe shim_receive(
                descriptor.rawValue,
                buffer.baseAddress,
                buffer.count,
                raw.baseAddress,
                &count,
                &truncated
            )
            for index in 0..<Int(count) {
                unsafe descriptors.append(FileDescriptor(owning: raw[index]))
            }
            return status
        }
        if status < 0, Errno(Int32(-status)) == .wouldBlock { return nil }
        let count = Int(try checked(status, "receive from a unix socket"))
        return Arrival(count: count, descriptors: descriptors, isTruncated: truncated != 0)
    }

    /// Sends as many bytes as the socket takes, first those of `bytes`, then those of `more`;
    /// descriptors go with the first byte. 0 when the socket is full.
    public func send(
        _ bytes: ArraySlice<UInt8>,
        _ more: ArraySlice<UInt8> = [],
        descriptors: [FileDescriptor] = []
    ) throws(SystemError) -> Int {
        let raw = descriptors.map(\.rawValue)
        let status: Int64 = unsafe bytes.withUnsafeBufferPointer { first in
            unsafe more.withUnsafeBufferPointer { second in
                unsafe raw.withUnsafeBufferPointer { numbers in
                    unsafe shim_send(
                        descriptor.rawValue,
                        first.baseAddress,
                        first.count,
                        second.baseAddress,
                        second.count,
                        numbers.baseAddress,
                        Int32(clamping: numbers.count)
                    )
                }
            }
        }
        if status < 0, Errno(Int32(-status)) == .wouldBlock { return 0 }
        return Int(try checked(status, "send to a unix socket"))
    }

    /// Takes nothing more from the other end, and returns the first `limit` bytes of what nobody has
    /// read yet.
    ///
    /// To be called before a connection is ended: if anything is unread when a socket is closed, the
    /// other end's next read fails with ECONNRESET, and QEMU 11.1 aborts on that.
    @discardableResult
    public func stopReading(keeping limit: Int = 0) -> [UInt8] {
        // From here on nothing can come: what is left has an end.
        _ = shutdown(descriptor.rawValue, Int32(SHUT_RD))
        var kept: [UInt8] = []
        while let part = try? receive(limit: 1 << 16), !part.bytes.isEmpty {
            kept += part.bytes.prefix(limit - kept.count)
        }
        return kept
    }

    /// Process id of the other end, where the kernel tells.
    public var peerProcess: Int32? {
        let pid = shim_peer_process(descriptor.rawValue)
        return pid > 0 ? pid : nil
    }
}
