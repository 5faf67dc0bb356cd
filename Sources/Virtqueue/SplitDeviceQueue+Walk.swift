internal import GuestMemory
internal import VirtioSpec

/// Where a walk along one chain stands.
@unsafe
struct ChainCursor {
    // Safety: `table` is the queue's descriptor area or its scratch copy; `limit` is its length.
    fileprivate var table: UnsafeRawPointer
    fileprivate var limit: UInt16
    fileprivate var isInTable = false
    fileprivate var index: UInt16
    fileprivate var isAtEnd = false
    fileprivate var hasWritable = false
    /// Bytes of the buffers seen so far.
    fileprivate(set) var bytes: UInt64 = 0
    /// Head of the chain.
    let head: UInt16
    /// Buffers seen so far.
    private(set) var visited: UInt32 = 0
    /// Why the walk ended, when it was not the chain's end.
    fileprivate(set) var fault: QueueFault?
    /// The walk ended with a fault.
    fileprivate(set) var isFaulty = false

    @_noLocks
    fileprivate init(table: UnsafeRawPointer, limit: UInt16, head: UInt16) {
        unsafe self.table = table
        unsafe self.limit = limit
        unsafe self.head = head
        unsafe index = head
        unsafe fault = nil
    }

    @_noLocks
    fileprivate mutating func count(_ descriptor: SplitDescriptor, atMost most: UInt16) -> Bool {
        unsafe visited &+= 1
        guard unsafe visited <= UInt32(most) else { return unsafe end(.loop) }
        unsafe bytes &+= UInt64(descriptor.length)
        guard unsafe bytes <= UInt64(UInt32.max) else { return unsafe end(.chainBytes, bytes) }
        if descriptor.isWritable {
            unsafe hasWritable = true
        } else if unsafe hasWritable {
            return unsafe end(.order, UInt64(index))
        }
        unsafe isAtEnd = !descriptor.hasNext
        unsafe index = descriptor.next
        return true
    }

    @_noLocks
    fileprivate mutating func end(
        _ error: QueueError,
        _ value: UInt64 = 0,
        _ access: MemoryAccess = MemoryAccess(rawValue: 0)
    ) -> Bool {
        unsafe fault = QueueFault(error, head: head, value: value, access: access)
        unsafe isFaulty = true
        unsafe isAtEnd = true
        return false
    }
}

extension SplitDeviceQueue {
    /// Starts at a head that was fetched from the available ring.
    @_noLocks
    func walk(from head: UInt16) -> ChainCursor {
        var cursor = unsafe ChainCursor(
            table: UnsafeRawPointer(areas.descriptors),
            limit: size,
            head: head
        )
        if head >= size { _ = unsafe cursor.end(.headRange, UInt64(head)) }
        return unsafe cursor
    }

    /// The chain's next buffer; `nil` at its end or at a fault. Every descriptor is fetched once;
    /// at most `size` buffers are visited (HI-A5, R3).
    ///
    /// Checked here: index ranges, loops, total length, order, indirect rules. The caller checks
    /// addresses.
    @_noLocks
    func next(_ cursor: inout ChainCursor) -> SplitDescriptor? {
        while unsafe !cursor.isAtEnd {
            guard unsafe cursor.index < cursor.limit else {
                _ = unsafe cursor.end(.nextRange, UInt64(cursor.index))
                return nil
            }
            let descriptor = unsafe Self.fetch(cursor.table, cursor.index)
            guard descriptor.isIndirect else {
                return unsafe cursor.count(descriptor, atMost: size) ? descriptor : nil
            }
            guard unsafe enterTable(descriptor, &cursor) else { return nil }
        }
        return nil
    }

    /// One descriptor as two single loads: what the driver changes later has no effect (HI-A18).
    @_noLocks
    @inline(__always)
    static func fetch(_ table: UnsafeRawPointer, _ index: UInt16) -> SplitDescriptor {
        let at = unsafe table + SplitRingLayout.descriptorSize * Int(index)
        return unsafe SplitDescriptor(
            low: SharedCell.loadRelaxed64(at),
            high: SharedCell.loadRelaxed64(at + 8)
        )
    }

    /// Copies an indirect table into `scratch`, whatever its alignment and however many regions it
    /// spans (HI-C1 … HI-C9), and walks on there; WRITE on the descriptor that refers to it is
    /// ignored (HI-C7).
    @_noLocks
    private func enterTable(_ descriptor: SplitDescriptor, _ cursor: inout ChainCursor) -> Bool {
        guard unsafe !cursor.isInTable else { return unsafe cursor.end(.indirectNested) }
        guard let scratch = unsafe scratch else { return unsafe cursor.end(.indirectFeature) }
        guard !descriptor.hasNext else { return unsafe cursor.end(.indirectNext) }
        let length = UInt64(descriptor.length)
        guard length > 0, length % 16 == 0, length / 16 <= UInt64(size) else {
            return unsafe cursor.end(.indirectSize, length)
        }
        let start = descriptor.address
        guard !start.addingReportingOverflow(length &- 1).overflow else {
            return unsafe cursor.end(.addressWrap, start, .read)
        }
        var done: UInt64 = 0
        while done < length {
            guard let run = unsafe view.run(start &+ done, length &- done, .read),
                let source = run.baseAddress
            else { return unsafe cursor.end(.unmapped, start &+ done, .read) }
            unsafe SharedCell.copy(scratch + Int(truncatingIfNeeded: done), source, run.count)
            done &+= UInt64(run.count)
        }
        unsafe cursor.table = UnsafeRawPointer(scratch)
        unsafe cursor.limit = UInt16(truncatingIfNeeded: length / 16)
        unsafe cursor.isInTable = true
        unsafe cursor.index = 0
        return true
    }

    /// The piece of a buffer that starts at `offset` and ends with the buffer or its region
    /// (HI-A9); `nil`, and the walk is at a fault, where there is no such memory. A buffer of
    /// length 0 gives an empty piece: its address is checked all the same (HI-A12).
    @_noLocks
    func piece(
        _ descriptor: SplitDescriptor,
        _ offset: UInt32,
        _ cursor: inout ChainCursor
    ) -> Segment? {
        let access = descriptor.isWritable ? MemoryAccess.write : MemoryAccess.read
        let rest = UInt64(descriptor.length &- offset)
        let (address, wraps) = descriptor.address.addingReportingOverflow(UInt64(offset))
        if wraps || (rest > 0 && address.addingReportingOverflow(rest &- 1).overflow) {
            _ = unsafe cursor.end(.addressWrap, address, access)
            return nil
        }
        guard let run = unsafe view.run(address, rest, access), let start = run.baseAddress else {
            _ = unsafe cursor.end(.unmapped, address, access)
            return nil
        }
        return unsafe Segment(pointer: start, length: UInt32(truncatingIfNeeded: run.count))
    }
}
