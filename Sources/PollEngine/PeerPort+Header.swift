internal import GuestMemory
internal import VirtioSpec
internal import Virtqueue

extension PeerPort {
    /// Takes the network header off an entry and judges it. False when the packet is dropped, which
    /// is then marked and counted.
    @_noLocks @inline(__always)
    mutating func stripHeader(_ burst: inout ChainBurst, _ index: Int) -> Bool {
        var entry = unsafe burst.entries[index]
        let first = unsafe burst.segments + Int(entry.firstSegment)
        let size = UInt32(NetHeader.size)
        guard entry.segmentCount > 0, unsafe first.pointee.length > size,
            entry.byteCount <= SplitDeviceQueue.longestPacket
        else { return stripSpreadHeader(&burst, index) }
        let source = unsafe UnsafeRawPointer(first.pointee.pointer)
        let header = unsafe NetHeader(
            low: SharedCell.loadUnaligned64(source),
            high: SharedCell.loadUnaligned32(source + 8)
        )
        unsafe first.pointee.pointer += NetHeader.size
        unsafe first.pointee.length &-= size
        entry.byteCount &-= size
        unsafe burst.entries[index] = entry
        return header.isPlain || judge(header, &burst, index)
    }

    /// The header lies in several segments, is not there, or nothing follows it.
    @_noLocks
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
