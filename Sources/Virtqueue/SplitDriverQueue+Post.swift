internal import GuestMemory
internal import VirtioSpec

extension SplitDriverQueue {
    /// Posts one buffer as a chain of its own; the device sees it with the next `publish`.
    /// `nil` when no descriptor is free, or the queue is broken.
    @_noLocks
    public mutating func post(_ buffer: DriverBuffer) -> UInt16? {
        guard freeCount > 0, !isBroken else { return nil }
        let head = freeHead
        freeHead = unsafe shadow[Int(head)].next
        freeCount &-= 1
        writeDescriptor(head, buffer, next: nil)
        announce(head, count: 1, writable: buffer.isWritable ? buffer.length : 0)
        return head
    }

    /// Posts `count` buffers, each as a chain of its own, and notes the head of each in `heads`;
    /// returns how many found a free descriptor. The device sees them with the next `publish`.
    ///
    /// Safety: both arrays have `count` elements.
    @_noLocks
    public mutating func postEach(
        _ buffers: UnsafePointer<DriverBuffer>,
        count: Int,
        heads: UnsafeMutablePointer<UInt16>
    ) -> Int {
        guard !isBroken else { return 0 }
        let most = count < Int(freeCount) ? count : Int(freeCount)
        let shadow = unsafe self.shadow
        let table = unsafe areas.descriptors
        let ring = unsafe areas.available + SplitRingLayout.ringOffset
        let mask = size &- 1
        var next = freeHead
        var available = nextAvailable
        var position = 0
        while position < most {
            let buffer = unsafe buffers[position]
            let head = next
            next = unsafe shadow[Int(head)].next
            let descriptor = SplitDescriptor(
                address: buffer.address,
                length: buffer.length,
                flags: buffer.isWritable ? SplitDescriptor.writeFlag : 0
            )
            unsafe Self.store(descriptor, table + SplitRingLayout.descriptorSize &* Int(head))
            unsafe shadow[Int(head)].count = 1
            unsafe shadow[Int(head)].writable = buffer.isWritable ? buffer.length : 0
            unsafe SharedCell.storeRelaxed16(ring + 2 &* Int(available & mask), head)
            unsafe heads[position] = head
            available = available &+ 1
            position &+= 1
        }
        freeHead = next
        freeCount &-= UInt16(truncatingIfNeeded: most)
        nextAvailable = available
        outstanding &+= most
        return most
    }

    /// Posts buffers as one chain, readable ones first (virtio 1.3 §2.7.4.2). `nil` when there are
    /// none, not as many descriptors free, or the queue is broken.
    @_noLocks
    public mutating func post(_ buffers: Span<DriverBuffer>) -> UInt16? {
        let count = buffers.count
        guard count > 0, count <= Int(freeCount), !isBroken else { return nil }
        let head = freeHead
        var index = head
        var writable: UInt32 = 0
        var position = 0
        while position < count {
            let buffer = buffers[position]
            let next = unsafe shadow[Int(index)].next
            position &+= 1
            writeDescriptor(index, buffer, next: position < count ? next : nil)
            if buffer.isWritable { writable &+= buffer.length }
            if position == count { freeHead = next } else { index = next }
        }
        freeCount &-= UInt16(truncatingIfNeeded: count)
        announce(head, count: UInt16(truncatingIfNeeded: count), writable: writable)
        return head
    }

    /// Posts buffers through an indirect table that the caller owns and lends with the chain:
    /// `table` must have room for them. One descriptor of the ring is used. `nil` as above, or
    /// without the feature.
    @_noLocks
    public mutating func postIndirect(
        _ buffers: Span<DriverBuffer>,
        table: UnsafeMutableRawPointer,
        deviceAddress: UInt64
    ) -> UInt16? {
        let count = buffers.count
        guard count > 0, count <= Int(size), freeCount > 0, !isBroken, usesIndirect else {
            return nil
        }
        var writable: UInt32 = 0
        var position = 0
        while position < count {
            let buffer = buffers[position]
            var descriptor = SplitDescriptor(
                address: buffer.address,
                length: buffer.length,
                flags: buffer.isWritable ? SplitDescriptor.writeFlag : 0,
                next: UInt16(truncatingIfNeeded: position &+ 1)
            )
            if position &+ 1 < count { descriptor.flags |= SplitDescriptor.nextFlag }
            if buffer.isWritable { writable &+= buffer.length }
            unsafe Self.store(descriptor, table + SplitRingLayout.descriptorSize * position)
            position &+= 1
        }
        let head = freeHead
        freeHead = unsafe shadow[Int(head)].next
        freeCount &-= 1
        let reference = SplitDescriptor(
            address: deviceAddress,
            length: UInt32(truncatingIfNeeded: SplitRingLayout.descriptorSize * count),
            flags: SplitDescriptor.indirectFlag
        )
        unsafe Self.store(
            reference,
            areas.descriptors + SplitRingLayout.descriptorSize * Int(head)
        )
        announce(head, count: 1, writable: writable)
        return head
    }

    /// Shows the device all chains posted so far, with one release store.
    @_noLocks
    public mutating func publish() {
        guard !isBroken, nextAvailable != publishedAvailable else { return }
        unsafe SharedCell.storeRelease16(
            areas.available + SplitRingLayout.indexOffset,
            nextAvailable
        )
        publishedAvailable = nextAvailable
    }

    /// Whether the device wants to be told of what was published since the last call: by its flag,
    /// or under EVENT_IDX by `avail_event` (virtio 1.3 §2.7.10).
    @_noLocks
    public mutating func shouldNotifyDevice() -> Bool {
        guard !isBroken, notifiedAvailable != publishedAvailable else { return false }
        let old = notifiedAvailable
        notifiedAvailable = publishedAvailable
        unsafe SharedCell.fence()
        guard usesEventIndex else {
            return unsafe SharedCell.loadRelaxed16(areas.used) & SplitRingLayout.noNotify == 0
        }
        let event = unsafe SharedCell.loadRelaxed16(
            areas.used + SplitRingLayout.availableEventOffset(size)
        )
        return SplitRingLayout.isEventPassed(event, from: old, to: publishedAvailable)
    }

    @_noLocks
    private func writeDescriptor(_ index: UInt16, _ buffer: DriverBuffer, next: UInt16?) {
        var descriptor = SplitDescriptor(
            address: buffer.address,
            length: buffer.length,
            flags: buffer.isWritable ? SplitDescriptor.writeFlag : 0
        )
        if let next {
            descriptor.flags |= SplitDescriptor.nextFlag
            descriptor.next = next
        }
        unsafe Self.store(
            descriptor,
            areas.descriptors + SplitRingLayout.descriptorSize * Int(index)
        )
    }

    @_noLocks
    private static func store(_ descriptor: SplitDescriptor, _ at: UnsafeMutableRawPointer) {
        unsafe SharedCell.storeRelaxed64(at, descriptor.address)
        unsafe SharedCell.storeRelaxed64(at + 8, descriptor.high)
    }

    @_noLocks
    private mutating func announce(_ head: UInt16, count: UInt16, writable: UInt32) {
        unsafe shadow[Int(head)].count = count
        unsafe shadow[Int(head)].writable = writable
        let slot = Int(nextAvailable & (size &- 1))
        unsafe SharedCell.storeRelaxed16(
            areas.available + (SplitRingLayout.ringOffset + 2 * slot),
            head
        )
        nextAvailable = nextAvailable &+ 1
        outstanding &+= 1
    }
}
