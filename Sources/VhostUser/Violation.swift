/// What the other end did wrong, or asked for and cannot have. The raw value is the id that tests,
/// counters and messages share.
public enum ViolationID: String, Sendable, CaseIterable {
    /// The stream ended inside a header (HI-D1).
    case shortHeader = "vu/short-header"
    /// The stream ended inside a payload (HI-D41).
    case shortPayload = "vu/short-payload"
    /// Half a message, or an unread reply, for longer than the deadline (HI-D1, HI-D39, HI-D61).
    case stall = "vu/stall"
    /// A stated payload above 4096 bytes (HI-D2, VU-H-02).
    case oversize = "vu/oversize"
    /// A payload of another size than its request has (HI-D3, VU-H-07).
    case size = "vu/size"
    /// Wrong version, reserved flags, or the reply flag on a request (HI-D4, VU-H-01).
    case header = "vu/header"
    /// A request id nobody defined (HI-D5, VU-H-08).
    case request = "vu/request"
    /// A request, or a flag in one, that belongs to a feature which was not negotiated (HI-D6).
    case notNegotiated = "vu/not-negotiated"
    /// Too many descriptors, or too few, or late ones (HI-D7, HI-D8, HI-D23).
    case descriptors = "vu/fds"
    /// The kernel could not deliver all descriptors (HI-D9, VU-H-04).
    case truncated = "vu/truncated"
    /// A descriptor of a kind that cannot serve (HI-D10).
    case descriptorKind = "vu/fd-kind"
    /// A region reaches past the end of its file (HI-D11).
    case beyondEndOfFile = "mem/beyond-eof"
    /// A region is empty, wraps, or does not start and end at its file's pages (HI-D12).
    case memoryRange = "mem/range"
    /// Regions overlap in guest or in user addresses (HI-D13).
    case memoryOverlap = "mem/overlap"
    /// A wrong number of regions, or padding that is not 0 (HI-D14).
    case memoryCount = "mem/count"
    /// More regions than slots (HI-D17, VU-B-09).
    case memorySlots = "mem/slots"
    /// Removal of a region that is not there (HI-D17, VU-B-10).
    case memoryUnknown = "mem/unknown"
    /// A ring index at or above the number of rings (HI-D18, VU-B-16).
    case ringIndex = "vu/ring-index"
    /// A ring size of 0, no power of two, or above the maximum (HI-D19).
    case ringSize = "ring/size"
    /// A ring area that is not aligned (HI-D20).
    case ringAlignment = "ring/align"
    /// A ring area outside memory (HI-D16, HI-D20).
    case ringArea = "ring/area"
    /// A base that the ring cannot have (HI-D21).
    case ringBase = "ring/base"
    /// A request that the present state does not allow (HI-D20, HI-D21, HI-D37).
    case order = "vu/order"
    /// A number that is none of those the request knows.
    case value = "vu/value"
    /// Features that were not offered, lack a required one, or change under traffic (HI-D28, HI-D29).
    case features = "vu/features"
    /// A status that takes bits back (HI-D34).
    case status = "vu/status"
    /// A second connection while one is served (HI-D38).
    case busy = "vu/busy"
    /// The kernel refused to read from or write to the socket.
    case transfer = "vu/io"
    /// The device behind us did not stop its rings in time.
    case quiesce = "vu/quiesce"
    /// The process has no descriptor left for another connection (HI-I19).
    case noDescriptors = "limit/nofile"
    /// A reply to another request, without the reply flag, of a wrong size, or with descriptors
    /// (HI-D60).
    case reply = "vu/reply"
    /// An answer that makes no sense, or promises less than is needed (HI-D62).
    case probe = "vu/probe"
    /// A back-end answers otherwise than it did before, or lacks what is needed (HI-D63).
    case featureLoss = "vu/feature-loss"
}

/// One fault of the other end: which, and the values that gave offence.
public struct Violation: Error, Sendable, Equatable, CustomStringConvertible {
    /// Which rule was broken.
    public let id: ViolationID
    /// The offending values, for people.
    public let detail: String

    /// Names a fault.
    public init(_ id: ViolationID, _ detail: String) {
        self.id = id
        self.detail = detail
    }

    /// One line for people.
    public var description: String { "\(id.rawValue): \(detail)" }
}
