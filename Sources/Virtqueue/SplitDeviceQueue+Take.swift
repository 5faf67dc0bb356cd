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
        guard count > 0 else { return 0 }
        var taken = takePlain(count, into: &burst)
        var budget = Swift.max(Int(size), 8 &* ChainBurst.capacity)
        while taken < count, budget > 0 {
            guard burst.segmentCount < burst.segmentCapacity else { break }
            let head = fetchHead(nextAvailable)
            guard takeReadableChain(head, into: &burst, &budget) else { break }
            nextAvailable = nextAvailable &+ 1
            taken &+= 1
            taken &+= takePlain(count &- taken, into: &burst)
        }
        return taken
    }

    /// Returns the chains of a burst that came from this queue, all of them, in order, with nothing
    /// written, and shows them to the driver.
    @_noLocks
    public mutating func releaseTaken(_ burst: borrowing ChainBurst) {
        guard !isBroken else { return }
        let elements = unsafe areas.used + SplitRingLayout.ringOffset
        let entries = unsafe burst.entries
        let count = burst.count
        let mask = Int(size &- 1)
        let first = Int(nextUsed)
        var index = 0
        while index < count {
            let element = unsafe elements + 8 &* ((first &+ index) & mask)
            unsafe SharedCell.storeRelaxed32(element, UInt32(entries[index].head))
            unsafe SharedCell.storeRelaxed32(element + 4, 0)
            index &+= 1
        }
        nextUsed = nextUsed &+ UInt16(truncatingIfNeeded: count)
        publishUsed()
    }

    /// The usual case, without detours: takes up to `count` chains for as long as each is one
    /// readable buffer in one region. Returns how many; the next one is of another shape, or bad.
    ///
    /// All state is in locals: through `self` the same loop is more than twice as slow.
    @_noLocks @inline(__always)
    private mutating func takePlain(_ count: Int, into burst: inout ChainBurst) -> Int {
        let heads = unsafe areas.available + SplitRingLayout.ringOffset
        let table = unsafe areas.descriptors
        let size = size
        let mask = Int(size &- 1)
        let first = Int(nextAvailable)
        let segments = unsafe burst.segments + burst.segmentCount
        let entries = unsafe burst.entries + burst.count
        let firstSegment = UInt32(truncatingIfNeeded: burst.segmentCount)
        let most = min(count, burst.segmentCapacity &- burst.segmentCount)
        var region = readRegion
        var index = 0
        while index < most {
            let head = unsafe SharedCell.loadRelaxed16(heads + 2 &* ((first &+ index) & mask))
            guard head < size else { break }
            let at = unsafe table + SplitRingLayout.descriptorSize &* Int(head)
            let address = unsafe SharedCell.loadRelaxed64(at)
            let rest = unsafe SharedCell.loadRelaxed64(at + 8)
            let length = UInt32(truncatingIfNeeded: rest)
            guard rest & SplitDescriptor.kindMask == 0, length != 0 else { break }
            var pointer = unsafe region.translate(address, length)
            if unsafe pointer == nil {
                guard let other = unsafe view.region(of: address, .read) else { break }
                region = other
                unsafe pointer = unsafe region.translate(address, length)
            }
            guard let start = unsafe pointer else { break }
            unsafe SharedCell.prefetch(start)
            unsafe SharedCell.prefetch(start + 64)
            unsafe segments[index] = unsafe Segment(pointer: start, length: length)
            unsafe entries[index] = BurstEntry(
                firstSegment: firstSegment &+ UInt32(truncatingIfNeeded: index),
                segmentCount: 1,
                byteCount: length,
                head: head
            )
            index &+= 1
        }
        readRegion = region
        nextAvailable = nextAvailable &+ UInt16(truncatingIfNeeded: index)
        burst.count &+= index
        burst.segmentCount &+= index
        return index
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
            // Too big already, and going to be dropped: its pieces are not looked up any more.
            if unsafe cursor.bytes &- UInt64(descriptor.length) > Self.mostUsed {
                if !descriptor.isWritable { bytes &+= descriptor.length }
                continue
            }
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
            segmentCount: UInt16(truncatingIfNeeded: used &- first),
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
