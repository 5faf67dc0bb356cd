/// How the messages of a protocol lie in a stream: a header of fixed length, then a payload whose
/// length the header tells.
public struct FrameFormat: Sendable {
    /// Length of every header in bytes.
    public let headerSize: Int
    /// Length of the payload behind a header of `headerSize` bytes; `nil` when the header states one
    /// that nobody may ask for, which ends the stream before a byte of it is read.
    public let payloadSize: @Sendable ([UInt8]) -> Int?
    /// Most bytes that wait to be sent.
    public let unsentLimit: Int
    /// Most bytes that are read at once, whatever they belong to; 0: never more than the present
    /// message. Whoever lets a stream read ahead asks `FramedStream.hasAhead` before it waits.
    public let readAhead: Int

    /// Describes a protocol.
    public init(
        headerSize: Int,
        unsentLimit: Int,
        readAhead: Int = 0,
        payloadSize: @escaping @Sendable ([UInt8]) -> Int?
    ) {
        self.headerSize = headerSize
        self.unsentLimit = unsentLimit
        self.readAhead = readAhead
        self.payloadSize = payloadSize
    }
}

/// One message as it came off a socket.
public struct Frame: Sendable {
    /// The header's bytes.
    public var header: [UInt8] = []
    /// As many bytes as the header states.
    public var payload: [UInt8] = []
    /// Descriptors that came with the first byte; closed with the last reference.
    public var descriptors: [FileDescriptor] = []
    /// Descriptors came with later bytes, where none belong; they are closed already.
    public var hadLateDescriptors = false

    /// Without bytes.
    public init() {}
}

/// Why a stream of messages cannot be continued.
public enum FrameFault: Error, Sendable {
    /// The stream ended after that many bytes of a header.
    case shortHeader(Int)
    /// The stream ended after that many bytes of a payload.
    case shortPayload(Int, of: Int)
    /// The header states a payload that is not read.
    case refused(header: [UInt8])
    /// The kernel could deliver only so many of the descriptors; `header` is as much as came of it.
    case truncated(descriptors: Int, header: [UInt8])
    /// That many bytes of a message came, and no more in time.
    case stalled(Int)
    /// That many bytes of ours are not read.
    case unread(Int)
    /// The kernel refused to read from or write to the socket.
    case transfer(SystemError)
}
