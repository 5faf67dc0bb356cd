public import HostSystem

/// What a client did wrong, or asked for and cannot have. The raw value is the id that tests,
/// counters and messages share.
public enum FaultID: String, Sendable, CaseIterable {
    /// The first message is no VERSION, or one of another protocol (HI-E1, HI-E2).
    case negotiate = "vfu/negotiate"
    /// Capabilities that cannot be used (HI-E3).
    case json = "vfu/json"
    /// A message that is too short to be one, or too long (HI-E4).
    case size = "vfu/size"
    /// A command that does not exist, is no command, or lacks its payload (HI-E5).
    case command = "vfu/command"
    /// Descriptors where none belong, or too many (HI-E6, HI-E11).
    case descriptors = "vfu/fds"
    /// A descriptor of a kind that cannot serve (HI-E11, HI-E16).
    case descriptorKind = "vfu/fd-kind"
    /// The kernel could not deliver all descriptors (HI-E7).
    case truncated = "vfu/truncated"
    /// A range of memory that cannot be, or is not there (HI-E8, HI-E12).
    case memoryRange = "dma/range"
    /// A range of memory over one that is there (HI-E9).
    case memoryOverlap = "dma/overlap"
    /// More ranges of memory than slots (HI-E10).
    case memorySlots = "dma/slots"
    /// A range of memory that reaches past the end of its file (HI-E11).
    case beyondEndOfFile = "mem/beyond-eof"
    /// Huge pages that do not exist (HI-I14).
    case noPages = "mem/no-pages"
    /// Memory that a client takes away while a thread of ours does not let go of it (HI-E13).
    case memoryInUse = "dma/in-use"
    /// A client whose memory has no files: rings in it cannot be worked on (VFU-Q-11).
    case memoryNotShared = "mem/not-shared"
    /// A question with an argument that it cannot have (HI-E14, HI-E17).
    case argument = "vfu/argument"
    /// A region access outside the region, or too long (HI-E15).
    case regionRange = "region/range"
    /// An interrupt set-up that contradicts itself (HI-E16).
    case interruptSet = "irq/set"
    /// A feature that is not there (HI-E18).
    case feature = "vfu/feature"
    /// An eventfd that makes us wait.
    case blockedEvent = "notify/blocked"
    /// A second client (HI-E23).
    case busy = "vfu/busy"
    /// Half a message, or an unread reply, for longer than the deadline (HI-E24).
    case stall = "vfu/stall"
    /// The stream ended inside a message (HI-E22).
    case cutMessage = "vfu/cut"
    /// A reply to a command of ours that is none (VFU-S-45).
    case reply = "vfu/reply"
    /// The kernel refused to read from or write to the socket.
    case transfer = "vfu/io"
    /// No descriptor is free for another connection.
    case noDescriptors = "limit/nofile"
}

/// A refused message: what was wrong, and the number that its sender gets.
public struct Refusal: Error, Sendable, CustomStringConvertible {
    /// Which rule was broken.
    public let id: FaultID
    /// The error number of the reply.
    public let errno: Errno
    /// What it was, with its values.
    public let detail: String

    /// Describes a refusal.
    public init(_ id: FaultID, _ detail: String, _ errno: Errno = .invalidArgument) {
        self.id = id
        self.errno = errno
        self.detail = detail
    }

    /// One line for people.
    public var description: String { "\(id.rawValue): \(detail)" }
}
