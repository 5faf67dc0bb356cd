internal import GuestMemory
internal import VirtioSpec
internal import Virtqueue

extension PeerPort {
    /// Takes the network headers off the entries from `first` on, and judges them; bad packets are
    /// marked dropped and counted. Good ones are counted as received.
    @_noLocks @inline(__always)
    mutating func stripHeaders(_ burst: inout ChainBurst, from first: Int) {
        let entries = unsafe burst.entries
        let segments = unsafe burst.segments
        let count = burst.count
        let size = UInt32(NetHeader.size)
        var good = 0
        var bytes: UInt64 = 0
        var index = first
        while index < count {
            let entry = unsafe entries + index
            let length = unsafe entry.pointee.byteCount
            let segment = unsafe segments + Int(entry.pointee.firstSegment)
            // One segment with a plain header and something behind it; all else is looked at apart.
            if unsafe entry.pointee.segmentCount == 1, length > size,
                length <= SplitDeviceQueue.longestPacket
            {
                let start = unsafe segment.pointee.pointer
                if unsafe NetHeader.isPlain(SharedCell.loadUnaligned64(start)) {
                    unsafe segment.pointee.pointer = start + NetHeader.size
                    unsafe segment.pointee.length = length &- size
                    unsafe entry.pointee.byteCount = length &- size
                    good &+= 1
                    bytes &+= UInt64(length &- size)
                    index &+= 1
                    continue
                }
            }
            if stripSpreadHeader(&burst, index) {
                good &+= 1
                bytes &+= unsafe UInt64(entry.pointee.byteCount)
            }
            index &+= 1
        }
        counters.receivedPackets &+= UInt64(truncatingIfNeeded: good)
        counters.receivedBytes &+= bytes
    }

    /// The header lies in several segments, asks for something, is not there, or nothing follows it:
    /// it is collected byte by byte into a private copy (HI-A17, HI-A19).
    @_noLocks @inline(never)
    private mutating func stripSpreadHeader(_ burst: inout ChainBurst, _ index: Int) -> Bool {
        var entry = unsafe burst.entries[index]
        let size = UInt32(NetHeader.size)
        if entry.isDropped != 0 || entry.byteCount > SplitDeviceQueue.longestPacket &+ size {
            counters.tooBig &+= 1
            return drop(&burst, index)
        }
        guard entry.byteCount >= size, entry.byteCount > 0 else {
            if entry.byteCount == 0 { counters.empty &+= 1 } else { counters.shortHeader &+= 1 }
            return drop(&burst, index)
        }
        guard entry.byteCount > size else {
            counters.empty &+= 1
            return drop(&burst, index)
        }
        var low: UInt64 = 0
        var high: UInt32 = 0
        var taken: UInt32 = 0
        while taken < size {
            let at = unsafe burst.segments + Int(entry.firstSegment)
            let byte = unsafe at.pointee.pointer.load(as: UInt8.self)
            if taken < 8 {
                low |= UInt64(byte) &<< UInt64(taken &* 8)
            } else {
                high |= UInt32(byte) &<< ((taken &- 8) &* 8)
            }
            taken &+= 1
            unsafe at.pointee.pointer += 1
            unsafe at.pointee.length &-= 1
            if unsafe at.pointee.length == 0 {
                entry.firstSegment &+= 1
                entry.segmentCount &-= 1
            }
        }
        entry.byteCount &-= size
        unsafe burst.entries[index] = entry
        let header = NetHeader(low: low, high: high)
        return header.isPlain || judge(header, &burst, index)
    }

    /// No offload is negotiated on these rings: a packet that needs one would arrive damaged.
    @_noLocks
    private mutating func judge(
        _ header: NetHeader,
        _ burst: inout ChainBurst,
        _ index: Int
    ) -> Bool {
        let bytes = unsafe burst.entries[index].byteCount
        if header.flags & NetHeader.needsChecksum != 0 {
            let end = UInt32(header.checksumStart) &+ UInt32(header.checksumOffset) &+ 2
            if UInt32(header.checksumStart) > bytes || end > bytes {
                counters.checksumRange &+= 1
                return drop(&burst, index)
            }
        } else if header.gsoType == 0, UInt32(header.headerLength) <= bytes {
            return true
        }
        counters.gso &+= 1
        return drop(&burst, index)
    }

    @_noLocks
    private func drop(_ burst: inout ChainBurst, _ index: Int) -> Bool {
        unsafe burst.entries[index].isDropped = 1
        return false
    }
}
