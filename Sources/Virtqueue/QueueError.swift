/// Why a ring cannot be used, or stopped being used. The raw value is the id that tests, counters
/// and messages share.
public enum QueueError: String, Error, Sendable, CaseIterable {
    /// Size 0, no power of two, or above the maximum (HI-A23).
    case size = "ring/size"
    /// An area is not aligned as its layout demands (HI-A24).
    case alignment = "ring/align"
    /// An area lies outside the memory table (HI-A25).
    case area = "ring/area"
    /// An area to be written is in read-only memory (HI-A27).
    case readOnly = "ring/read-only"
    /// `avail.idx` ran ahead of the ring size or backwards (HI-A1, HI-A2).
    case availableJump = "ring/avail-jump"
    /// A head index is not below the ring size (HI-A3).
    case headRange = "ring/head-range"
    /// A `next` index is not below the table size (HI-A4, HI-C10).
    case nextRange = "ring/next-range"
    /// A chain does not end within the ring size (HI-A5).
    case loop = "ring/loop"
    /// A chain adds up to 2^32 bytes or more (HI-A6).
    case chainBytes = "ring/chain-bytes"
    /// A buffer lies outside the memory table (HI-A7, HI-A9, HI-A12).
    case unmapped = "ring/unmapped"
    /// Address plus length wraps (HI-A8).
    case addressWrap = "ring/addr-wrap"
    /// A device-readable descriptor follows a writable one (HI-A13).
    case order = "ring/order"
    /// A chain for device output has nothing writable (HI-A14).
    case noWritable = "ring/no-writable"
    /// More chains are in flight than the ring has entries (HI-A21).
    case inFlight = "ring/in-flight"
    /// One head is in flight twice (HI-A22).
    case duplicateHead = "ring/dup-head"
    /// INDIRECT without the feature (HI-C1).
    case indirectFeature = "ring/indirect-feature"
    /// An indirect table's length is 0, no multiple of 16, or longer than the ring (HI-C2, HI-C3).
    case indirectSize = "ring/indirect-size"
    /// INDIRECT inside an indirect table (HI-C4).
    case indirectNested = "ring/indirect-nested"
    /// INDIRECT together with NEXT (HI-C5).
    case indirectNext = "ring/indirect-next"
    /// A used id is not below the ring size (HI-A40).
    case usedRange = "ring/used-range"
    /// A used id names no outstanding chain (HI-A41).
    case usedNotHead = "ring/used-not-head"
    /// `used.idx` ran ahead of what is outstanding (HI-A42).
    case usedJump = "ring/used-jump"
    /// A used length is above what was posted as writable; only in strict mode (HI-A43).
    case usedLength = "ring/used-len"
    /// The other side made its call eventfd block whoever signals it (HI-D25).
    case notifyBlocked = "notify/blocked"
}
