internal import GuestMemory
internal import VirtioSpec

extension SplitDeviceQueue {
    /// Asks the driver not to notify us: we poll. A hint, never relied upon.
    @_noLocks
    public mutating func suppressNotifications() {
        guard !isBroken else { return }
        if usesEventIndex {
            // An index just passed comes up again only after 65,535 more chains.
            let event = unsafe areas.used + SplitRingLayout.availableEventOffset(size)
            unsafe SharedCell.storeRelaxed16(event, nextAvailable &- 1)
        } else {
            unsafe SharedCell.storeRelaxed16(areas.used, SplitRingLayout.noNotify)
        }
    }

    /// Asks the driver to notify us of the next chain. True: chains arrived meanwhile, poll again
    /// instead of sleeping.
    @_noLocks
    public mutating func requestNotifications() -> Bool {
        guard !isBroken else { return false }
        if usesEventIndex {
            let event = unsafe areas.used + SplitRingLayout.availableEventOffset(size)
            unsafe SharedCell.storeRelaxed16(event, nextAvailable)
        } else {
            unsafe SharedCell.storeRelaxed16(areas.used, 0)
        }
        // The driver stores its index and then loads what we just stored; without the fence both
        // sides could miss the other's store.
        unsafe SharedCell.fence()
        let index = unsafe SharedCell.loadRelaxed16(areas.available + SplitRingLayout.indexOffset)
        return index != nextAvailable
    }

    /// Whether the driver wants to be told of what was published since the last call: by its flag,
    /// or under EVENT_IDX by `used_event` alone (VPN-M-12, HI-A28). Call once per publication.
    @_noLocks
    public mutating func shouldNotifyDriver() -> Bool {
        guard !isBroken, notifiedUsed != publishedUsed else { return false }
        let old = notifiedUsed
        notifiedUsed = publishedUsed
        unsafe SharedCell.fence()
        guard usesEventIndex else {
            let flags = unsafe SharedCell.loadRelaxed16(areas.available)
            return flags & SplitRingLayout.noInterrupt == 0
        }
        let event = unsafe SharedCell.loadRelaxed16(
            areas.available + SplitRingLayout.usedEventOffset(size)
        )
        guard hasNotified else {
            hasNotified = true
            return true
        }
        return SplitRingLayout.isEventPassed(event, from: old, to: publishedUsed)
    }
}
