internal import Virtqueue

/// The two addresses of a frame, read once from wherever the frame lies (R7): the low 48 bits, the
/// byte that is first on the wire lowest.
struct EthernetHeader: BitwiseCopyable {
    /// Bytes of an Ethernet header: two addresses and a type.
    static var length: Int { 14 }
    /// Whom the frame is for.
    let destination: UInt64
    /// Whom it is from.
    let source: UInt64

    private static var mask: UInt64 { 0xFFFF_FFFF_FFFF }

    /// True for a group address: multicast or broadcast.
    var isGroup: Bool { @_noLocks get { destination & 1 != 0 } }

    /// `nil` when the frame is too short to have a header.
    @_noLocks @inline(__always)
    init?(_ burst: borrowing ChainBurst, _ entry: BurstEntry) {
        guard entry.byteCount >= EthernetHeader.length, entry.segmentCount > 0 else { return nil }
        let first = unsafe burst.segments[Int(entry.firstSegment)]
        if unsafe first.length >= EthernetHeader.length {
            let bytes = unsafe UnsafeRawPointer(first.pointer)
            let low = unsafe bytes.loadUnaligned(as: UInt64.self)
            let high = unsafe bytes.loadUnaligned(fromByteOffset: 6, as: UInt64.self)
            destination = low & EthernetHeader.mask
            source = high & EthernetHeader.mask
        } else {
            let (low, high) = EthernetHeader.gather(burst, entry)
            destination = low
            source = high
        }
    }

    /// Collects both addresses from several segments, byte by byte.
    private static func gather(
        _ burst: borrowing ChainBurst,
        _ entry: BurstEntry
    ) -> (UInt64, UInt64) {
        var low: UInt64 = 0
        var high: UInt64 = 0
        var position: UInt64 = 0
        var piece = 0
        while piece < Int(entry.segmentCount), position < 12 {
            let segment = unsafe burst.segments[Int(entry.firstSegment) &+ piece]
            var offset = 0
            while offset < Int(unsafe segment.length), position < 12 {
                let byte = unsafe UInt64(
                    segment.pointer.load(fromByteOffset: offset, as: UInt8.self)
                )
                if position < 6 {
                    low |= byte &<< (position &* 8)
                } else {
                    high |= byte &<< ((position &- 6) &* 8)
                }
                position &+= 1
                offset &+= 1
            }
            piece &+= 1
        }
        return (low, high)
    }
}
