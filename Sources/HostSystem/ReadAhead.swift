/// What one read brought and nobody has taken yet: bytes, and the descriptors that came with the last
/// of the messages among them.
///
/// The kernel ends a read behind whatever brought descriptors, so they belong to the message that the
/// read's last byte is part of: whoever takes that byte has them. That holds for senders that send each
/// message by a call of its own, which all known ones do: of several in one call, nothing tells whose
/// descriptors they are. Descriptors that came with later bytes of a message than its first one, where
/// none belong, look no different when the whole message was read at once.
struct ReadAhead {
    private var bytes: [UInt8]
    private var position = 0
    private var end = 0
    private var descriptors: [FileDescriptor] = []
    private var isTruncated = false

    /// Makes room for `capacity` bytes.
    init(capacity: Int) {
        bytes = [UInt8](repeating: 0, count: capacity)
    }

    /// Bytes that are left.
    var count: Int { end - position }

    /// True when all is taken.
    var isEmpty: Bool { position == end }

    /// What comes with the last byte.
    struct Rest {
        var descriptors: [FileDescriptor]
        /// The kernel could not deliver all of them.
        var isTruncated: Bool
    }

    /// Reads at most `limit` bytes, and no more than there is room for, into the place of what was
    /// taken; the number of bytes, or `nil` when nothing is there.
    mutating func fill(from socket: UnixSocket, limit: Int) throws(SystemError) -> Int? {
        let limit = min(limit, bytes.count)
        guard let arrival = try socket.receive(into: &bytes, limit: limit) else { return nil }
        position = 0
        end = arrival.count
        descriptors = arrival.descriptors
        isTruncated = arrival.isTruncated
        return arrival.count
    }

    /// Moves at most `limit` bytes to the end of `target`; what came with the last one, once it is
    /// among them.
    mutating func take(_ limit: Int, into target: inout [UInt8]) -> Rest? {
        let stop = position + min(limit, count)
        target += bytes[position..<stop]
        position = stop
        guard position == end, isTruncated || !descriptors.isEmpty else { return nil }
        defer {
            descriptors = []
            isTruncated = false
        }
        return Rest(descriptors: descriptors, isTruncated: isTruncated)
    }
}
