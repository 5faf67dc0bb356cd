internal import GuestMemory
internal import VirtioSpec

extension SplitDeviceQueue {
    /// Takes chains whose device-readable part is wanted (a peer's transmit ring) and appends them
    /// to the burst. Returns how many.
    ///
    /// Ends early at `limit`, when the burst is full, after about a ring's worth of descriptors
    /// (HI-A20, HI-C14), and at a violation, which breaks the queue; chains before it are good.
    /// A chain in more pieces than any burst can hold is marked dropped, with no segments.
    @_noLocks
    public mutating func takeReadable(into burst: inout ChainBurst, limit: Int) -> Int {
        let count = availableChains(min(limit, ChainBurst.capacity &- burst.count))
        var taken = 0
        var budget = Swift.max(Int(size), 8 &* ChainBurst.capacity)
        while taken < count, budget > 0 {
            guard burst.segmentCount < burst.segmentCapacity else { break }
            let head = fetchHead(nextAvailable)
            guard takeReadableChain(head, into: &burst, &budget) else { break }
            nextAvailable = nextAvailable &+ 1
            taken &+= 1
        }
        return taken
    }

    /// Returns the chains of a burst that came from this queue, all of them, in order, with nothing
    /// written, and shows them to the driver.
    @_noLocks
    public mutating func releaseTaken(_ burst: borrowing ChainBurst) {
        guard !isBroken else { return }
        var index = 0
        while index < burst.count {
            unsafe writeUsed(head: burst.entries[index].head, written: 0)
            index &+= 1
        }
        publishUsed()
    }

    /// False when nothing was taken: the queue broke, or the burst has no room for this chain.
    @_noLocks
    private mutating func takeReadableChain(
        _ head: UInt16,
        into burst: inout ChainBurst,
        _ budget: inout Int
    ) -> Bool {
        let first = burst.segmentCount
        let capacity = burst.segmentCapacity
        let segments = unsafe burst.segments
        var used = first
        var bytes: UInt32 = 0
        var cursor = unsafe walk(from: head)
        while let descriptor = unsafe next(&cursor) {
            var offset: UInt32 = 0
            repeat {
                guard let piece = unsafe piece(descriptor, offset, &cursor) else { break }
                unsafe offset &+= piece.length
                if descriptor.isWritable { continue }
                if unsafe piece.length == 0 {
                    skippedSegments &+= 1
                } else {
                    if used < capacity { unsafe segments[used] = unsafe piece }
                    unsafe bytes &+= piece.length
                    used &+= 1
                }
            } while offset < descriptor.length
        }
        if unsafe cursor.isFaulty {
            unsafe breakQueue(cursor)
            return false
        }
        unsafe budget &-= Int(cursor.visited)
        var entry = BurstEntry(
            firstSegment: UInt32(truncatingIfNeeded: first),
            segmentCount: UInt32(truncatingIfNeeded: used &- first),
            byteCount: bytes,
            head: head
        )
        if used > capacity {
            guard burst.count == 0 else { return false }
            entry.segmentCount = 0
            entry.byteCount = 0
            entry.isDropped = 1
            used = first
        }
        unsafe burst.entries[burst.count] = entry
        burst.count &+= 1
        burst.segmentCount = used
        return true
    }
}
