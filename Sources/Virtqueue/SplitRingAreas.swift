internal import GuestMemory
internal import VirtioSpec

/// The three areas of a split ring, checked and resolved to where they are mapped.
@unsafe
struct SplitRingAreas: BitwiseCopyable {
    // Safety: each pointer was translated together with the length of its area; the queue that
    // holds this value keeps the table alive.
    let descriptors: UnsafeMutableRawPointer
    let available: UnsafeMutableRawPointer
    let used: UnsafeMutableRawPointer

    /// Which side works on the areas: it decides what must be writable.
    enum Side {
        case device
        case driver
    }

    /// Checks size, alignment and memory (HI-A23, HI-A24, HI-A25, HI-A27). An area must lie in one
    /// region: a ring is not read in pieces.
    init(
        _ configuration: QueueConfiguration,
        memory: MemoryTable,
        maximumSize: UInt16,
        side: Side
    ) throws(QueueError) {
        let size = configuration.size
        guard size > 0, size & (size &- 1) == 0,
            size <= min(maximumSize, SplitRingLayout.maximumSize)
        else { throw .size }
        guard configuration.descriptorArea % SplitRingLayout.descriptorAlignment == 0,
            configuration.driverArea % SplitRingLayout.driverAlignment == 0,
            configuration.deviceArea % SplitRingLayout.deviceAlignment == 0
        else { throw .alignment }
        // Without EVENT_IDX the last word of the two rings is touched by nobody.
        let unused = configuration.features.contains(.eventIndex) ? 0 : 2
        let view = unsafe memory.view
        unsafe descriptors = try Self.resolve(
            view,
            configuration.descriptorArea,
            SplitRingLayout.descriptorAreaSize(size),
            side == .device ? .read : .readWrite
        )
        unsafe available = try Self.resolve(
            view,
            configuration.driverArea,
            SplitRingLayout.driverAreaSize(size) - unused,
            side == .device ? .read : .readWrite
        )
        unsafe used = try Self.resolve(
            view,
            configuration.deviceArea,
            SplitRingLayout.deviceAreaSize(size) - unused,
            side == .device ? .readWrite : .read
        )
    }

    /// The areas of a ring of one entry at `zeroes`: 16, 8 and 16 bytes.
    init(absent zeroes: UnsafeMutableRawPointer) {
        unsafe descriptors = unsafe zeroes
        unsafe available = unsafe zeroes + 16
        unsafe used = unsafe zeroes + 32
    }

    private static func resolve(
        _ view: MemoryView,
        _ address: UInt64,
        _ length: Int,
        _ access: MemoryAccess
    ) throws(QueueError) -> UnsafeMutableRawPointer {
        if let pointer = unsafe view.translate(address, UInt64(length), access) {
            return unsafe pointer
        }
        if unsafe view.translate(address, UInt64(length), .read) != nil { throw .readOnly }
        throw .area
    }
}
