internal import GuestMemory
internal import VirtioSpec

extension SplitDriverQueue {
    /// Takes back chains that the device is done with, at most `limit`; returns how many. A device
    /// that breaks the rules breaks the queue (HI-A40 … HI-A42); chains before that are good.
    ///
    /// Safety: `chains` has room for `limit`.
    @_noLocks
    public mutating func reap(into chains: UnsafeMutablePointer<UsedChain>, limit: Int) -> Int {
        guard !isBroken else { return 0 }
        // Acquire: what the device wrote into the buffers is read behind the index.
        let index = unsafe SharedCell.loadAcquire16(areas.used + SplitRingLayout.indexOffset)
        let pending = Int(index &- nextUsed)
        guard pending <= outstanding else {
            setFault(.usedJump, head: 0, UInt64(index))
            return 0
        }
        let count = pending < limit ? pending : limit
        var taken = 0
        while taken < count {
            guard unsafe reapOne(&chains[taken]) else { break }
            nextUsed = nextUsed &+ 1
            taken &+= 1
        }
        return taken
    }

    /// Takes back one chain; `nil` when there is none, or the queue is broken.
    @_noLocks
    public mutating func reap() -> UsedChain? {
        var chain = UsedChain(head: 0, written: 0)
        return unsafe reap(into: &chain, limit: 1) == 1 ? chain : nil
    }

    /// Asks the device not to interrupt: we poll.
    @_noLocks
    public mutating func suppressInterrupts() {
        if usesEventIndex {
            let event = unsafe areas.available + SplitRingLayout.usedEventOffset(size)
            unsafe SharedCell.storeRelaxed16(event, nextUsed &- 1)
        } else {
            unsafe SharedCell.storeRelaxed16(areas.available, SplitRingLayout.noInterrupt)
        }
    }

    /// Asks the device to interrupt at its next used buffer. True: some came meanwhile.
    @_noLocks
    public mutating func requestInterrupts() -> Bool {
        if usesEventIndex {
            let event = unsafe areas.available + SplitRingLayout.usedEventOffset(size)
            unsafe SharedCell.storeRelaxed16(event, nextUsed)
        } else {
            unsafe SharedCell.storeRelaxed16(areas.available, 0)
        }
        unsafe SharedCell.fence()
        let index = unsafe SharedCell.loadRelaxed16(areas.used + SplitRingLayout.indexOffset)
        return !isBroken && index != nextUsed
    }

    /// Fetches one used element, once, and frees its chain by our own notes.
    @_noLocks
    private mutating func reapOne(_ chain: inout UsedChain) -> Bool {
        let slot = Int(nextUsed & (size &- 1))
        let element = unsafe areas.used + (SplitRingLayout.ringOffset + 8 * slot)
        let identifier = unsafe SharedCell.loadRelaxed32(element)
        var written = unsafe SharedCell.loadRelaxed32(element + 4)
        guard identifier < UInt32(size) else {
            setFault(.usedRange, head: 0, UInt64(identifier))
            return false
        }
        let head = UInt16(truncatingIfNeeded: identifier)
        let note = unsafe shadow[Int(head)]
        guard note.count > 0 else {
            setFault(.usedNotHead, head: head, UInt64(identifier))
            return false
        }
        if written > note.writable {
            guard !isStrict else {
                setFault(.usedLength, head: head, UInt64(written))
                return false
            }
            written = note.writable
            cutLengths &+= 1
        }
        var last = head
        var rest = note.count
        while rest > 1 {
            last = unsafe shadow[Int(last)].next
            rest &-= 1
        }
        unsafe shadow[Int(head)].count = 0
        unsafe shadow[Int(last)].next = freeHead
        freeHead = head
        freeCount &+= note.count
        outstanding &-= 1
        chain = UsedChain(head: head, written: written)
        return true
    }
}
