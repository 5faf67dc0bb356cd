internal import GuestMemory
internal import VirtioSpec
internal import Virtqueue

extension DevicePort {
    /// Makes frames of the first `count` chains, and of further ones that belong to the last of
    /// them. Every buffer is noted in `taken`, whatever becomes of its frame.
    @_noLocks @inline(__always)
    mutating func accept(_ burst: inout ChainBurst, _ count: Int) {
        let size = UInt32(NetHeader.size)
        let firstEntry = burst.count
        var bytes: UInt64 = 0
        var index = 0
        while index < count {
            let chain = unsafe chains[index]
            let start = unsafe take(chain)
            index &+= 1
            guard chain.written >= size else {
                counters.shortHeader &+= 1
                continue
            }
            // The header is fetched once and then judged (HI-A19).
            let header = unsafe NetHeader(
                low: SharedCell.loadUnaligned64(start),
                high: SharedCell.loadUnaligned32(start + 8)
            )
            let length = chain.written &- size
            if header.isPlain, header.bufferCount == 1 || !isMergeable, length > 0,
                burst.segmentCount < burst.segmentCapacity,
                length <= SplitDeviceQueue.longestPacket
            {
                unsafe append(&burst, start + NetHeader.size, length)
                bytes &+= UInt64(length)
            } else {
                index = unsafe acceptOther(&burst, start, chain, header, index, count, &bytes)
            }
        }
        counters.receivedPackets &+= UInt64(truncatingIfNeeded: burst.count &- firstEntry)
        counters.receivedBytes &+= bytes
    }

    /// A frame in several buffers, one that asks for something, or one that is none. Returns the
    /// index behind the last chain that was used.
    @_noLocks @inline(never)
    private mutating func acceptOther(
        _ burst: inout ChainBurst,
        _ start: UnsafeMutableRawPointer,
        _ first: UsedChain,
        _ header: NetHeader,
        _ next: Int,
        _ count: Int,
        _ bytes: inout UInt64
    ) -> Int {
        let entry = burst.count
        let segments = burst.segmentCount
        var index = next
        var total = first.written &- UInt32(NetHeader.size)
        var isWhole = unsafe append(&burst, start + NetHeader.size, total)
        var missing = isMergeable ? Int(header.bufferCount) &- 1 : 0
        // What a frame claims and the device has not returned with it was never given (HI-A45).
        while missing > 0 {
            let chain: UsedChain
            if index < count {
                chain = unsafe chains[index]
                index &+= 1
            } else if let more = incoming.reap() {
                chain = more
            } else {
                break
            }
            let part = unsafe take(chain)
            total &+= chain.written
            if !(unsafe extend(&burst, part, chain.written)) { isWhole = false }
            missing &-= 1
        }
        if missing != 0 {
            counters.bufferCount &+= 1
        } else if total == 0 {
            counters.empty &+= 1
        } else if !isWhole || total > SplitDeviceQueue.longestPacket {
            counters.tooBig &+= 1
        } else if isServed(header, total) {
            bytes &+= UInt64(total)
            return index
        }
        burst.count = entry
        burst.segmentCount = segments
        return index
    }

    /// No offload is negotiated: a frame that needs one would arrive damaged.
    @_noLocks
    private mutating func isServed(_ header: NetHeader, _ bytes: UInt32) -> Bool {
        if header.isPlain { return true }
        if header.flags & NetHeader.needsChecksum != 0 {
            let end = UInt32(header.checksumStart) &+ UInt32(header.checksumOffset) &+ 2
            if UInt32(header.checksumStart) > bytes || end > bytes {
                counters.checksumRange &+= 1
                return false
            }
        } else if header.gsoType == 0, UInt32(header.headerLength) <= bytes {
            return true
        }
        counters.gso &+= 1
        return false
    }

    /// Notes the buffer of a chain and says where it is.
    @_noLocks @inline(__always)
    private mutating func take(_ chain: UsedChain) -> UnsafeMutableRawPointer {
        let number = unsafe receiveBufferOfHead[Int(chain.head)]
        unsafe taken[takenCount] = number
        takenCount &+= 1
        return unsafe receiveBase + Int(number) &* receiveSize
    }

    /// Begins a frame with one run of bytes, which may be empty.
    @_noLocks @inline(__always) @discardableResult
    private func append(
        _ burst: inout ChainBurst,
        _ start: UnsafeMutableRawPointer,
        _ length: UInt32
    ) -> Bool {
        unsafe burst.entries[burst.count] = BurstEntry(
            firstSegment: UInt32(truncatingIfNeeded: burst.segmentCount),
            segmentCount: 0,
            byteCount: 0,
            head: 0
        )
        burst.count &+= 1
        return unsafe extend(&burst, start, length)
    }

    /// Adds a run of bytes to the last frame; false when the burst has no room for it.
    @_noLocks @inline(__always)
    private func extend(
        _ burst: inout ChainBurst,
        _ start: UnsafeMutableRawPointer,
        _ length: UInt32
    ) -> Bool {
        guard length > 0 else { return true }
        guard burst.segmentCount < burst.segmentCapacity else { return false }
        unsafe burst.segments[burst.segmentCount] = Segment(pointer: start, length: length)
        burst.segmentCount &+= 1
        let entry = unsafe burst.entries + (burst.count &- 1)
        unsafe entry.pointee.segmentCount &+= 1
        unsafe entry.pointee.byteCount &+= length
        return true
    }
}
