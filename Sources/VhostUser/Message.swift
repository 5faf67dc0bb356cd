public import HostSystem
internal import VirtioSpec

/// The 12 bytes before every payload (vhost-user: Header): request, flags, payload size, each a
/// 32-bit number in the byte order of the machine, which is little-endian here.
public struct MessageHeader: Sendable, Equatable {
    /// Length on the wire.
    public static let size = 12
    /// Largest payload that is read; the largest one defined has 2056 bytes (VU-H-02).
    public static let largestPayload = 4096

    /// Message id.
    public var request: UInt32
    /// Version and flags.
    public var flags: UInt32
    /// Bytes that follow.
    public var payloadSize: UInt32

    /// Bits 0 and 1 of the flags: the version.
    public static let versionMask: UInt32 = 3
    /// The only version there is.
    public static let version: UInt32 = 1
    /// Bit 2 of the flags: this is a reply.
    public static let replyFlag: UInt32 = 4
    /// Bit 3 of the flags: an acknowledgement is asked for.
    public static let needReplyFlag: UInt32 = 8

    /// Describes a message.
    public init(request: UInt32, flags: UInt32 = MessageHeader.version, payloadSize: UInt32) {
        self.request = request
        self.flags = flags
        self.payloadSize = payloadSize
    }

    /// Decodes the first 12 of `bytes`; `nil` when there are fewer.
    public init?(_ bytes: [UInt8]) {
        var reader = WireReader(bytes)
        guard let request = reader.integer(UInt32.self), let flags = reader.integer(UInt32.self),
            let size = reader.integer(UInt32.self)
        else { return nil }
        self.init(request: request, flags: flags, payloadSize: size)
    }

    /// The bytes on the wire.
    public var encoded: [UInt8] {
        var writer = WireWriter()
        writer.integer(request)
        writer.integer(flags)
        writer.integer(payloadSize)
        return writer.bytes
    }

    /// True for a reply.
    public var isReply: Bool { flags & MessageHeader.replyFlag != 0 }
    /// True when the sender asks for an acknowledgement.
    public var needsReply: Bool { flags & MessageHeader.needReplyFlag != 0 }
    /// True when the version is 1 and no flag is set that has no meaning.
    public var isWellFormed: Bool {
        let known = MessageHeader.versionMask | MessageHeader.replyFlag
        return flags & MessageHeader.versionMask == MessageHeader.version
            && flags & ~(known | MessageHeader.needReplyFlag) == 0
    }
}

/// One message as it came off a socket.
public struct Message: Sendable {
    /// The header as received.
    public var header: MessageHeader
    /// As many bytes as the header states.
    public var payload: [UInt8]
    /// Descriptors that came with the first bytes; closed with the last reference.
    public var descriptors: [FileDescriptor]
    /// Descriptors came with later bytes, where the protocol knows none; they are closed already.
    public var hadLateDescriptors: Bool

    /// Describes a message.
    public init(
        header: MessageHeader,
        payload: [UInt8] = [],
        descriptors: [FileDescriptor] = [],
        hadLateDescriptors: Bool = false
    ) {
        self.header = header
        self.payload = payload
        self.descriptors = descriptors
        self.hadLateDescriptors = hadLateDescriptors
    }

    /// A request of ours.
    public init(
        _ request: Request,
        needsReply: Bool = false,
        payload: [UInt8] = [],
        descriptors: [FileDescriptor] = []
    ) {
        let wish = needsReply ? MessageHeader.needReplyFlag : 0
        self.init(
            header: MessageHeader(
                request: request.rawValue,
                flags: MessageHeader.version | wish,
                payloadSize: UInt32(clamping: payload.count)
            ),
            payload: payload,
            descriptors: descriptors
        )
    }

    /// Header and payload on the wire.
    public var encoded: [UInt8] { header.encoded + payload }

    /// The bytes of a reply: the request's id, version 1, the reply flag and no other (VU-H-06).
    public static func reply(to request: UInt32, payload: [UInt8]) -> [UInt8] {
        let header = MessageHeader(
            request: request,
            flags: MessageHeader.version | MessageHeader.replyFlag,
            payloadSize: UInt32(clamping: payload.count)
        )
        return header.encoded + payload
    }
}
