internal import GuestMemory
internal import VirtioSpec

/// How an attempt to spread a packet ended.
enum SpreadResult {
    case delivered
    /// No chain, or not enough of them; nothing was taken.
    case noBuffer
    /// The chains are there and cannot hold it; nothing was taken.
    case tooBig
}

extension SplitDeviceQueue {
    /// Most pieces of buffers that one packet is spread over.
    static var mostTargets: Int { @_noLocks get { 4096 } }

    /// Descriptors that deliveries walk over between two publications, the chain begun last
    /// included whole: a ring's worth, and never fewer than a burst of large packets in small
    /// buffers needs.
    @_noLocks
    static func mostWalked(_ size: UInt16) -> Int {
        max(Int(size), mostTargets)
    }

    /// Bytes of the longest packet with its header: what lies behind them in a chain is not used.
    static var mostUsed: UInt64 {
        @_noLocks get { UInt64(longestPacket) &+ UInt64(NetHeader.size) }
    }

    /// Delivers a packet into chains of any shape, several when `mergeable`: every chain but the
    /// last is filled to its end (virtio 1.3 §5.1.6.4). Chains are collected and checked first, so
    /// that a packet is either delivered whole or not at all.
    @_noLocks
    mutating func deliverSpread(
        _ entry: BurstEntry,
        _ pieces: UnsafeMutablePointer<Segment>,
        mergeable: Bool,
        _ copies: inout UInt64
    ) -> SpreadResult {
        let needed = UInt32(NetHeader.size) &+ entry.byteCount
        let firstAvailable = nextAvailable
        let firstUsed = nextUsed
        var missing = needed
        var targetCount = 0
        var chains = 0
        var result = SpreadResult.delivered
        while missing > 0, result == .delivered {
            if chains > 0, !mergeable {
                result = .tooBig
            } else if walkBudget <= 0 {
                result = .noBuffer
            } else if availableChains(1) == 0 {
                // A ring that is full of buffers and still too small can never hold the packet.
                result = chains == Int(size) ? .tooBig : .noBuffer
            } else {
                result = collect(&missing, &targetCount)
                chains &+= 1
            }
        }
        guard result == .delivered else {
            nextAvailable = firstAvailable
            nextUsed = firstUsed
            return result
        }
        let header = NetHeader(bufferCount: UInt16(truncatingIfNeeded: chains))
        unsafe scatter(header, entry, pieces, &copies)
        return .delivered
    }

    /// Takes the next chain, adds its writable pieces to `targets`, and notes as used what of it
    /// will be filled.
    @_noLocks
    private mutating func collect(_ missing: inout UInt32, _ count: inout Int) -> SpreadResult {
        let head = fetchHead(nextAvailable)
        var cursor = unsafe walk(from: head)
        var hasWritable = false
        var hasRoom = true
        var filled: UInt32 = 0
        while let descriptor = unsafe next(&cursor) {
            if descriptor.isWritable { hasWritable = true }
            // Pieces are looked up one by one: not for bytes that no packet reaches.
            let isUnused = filled == missing || !descriptor.isWritable
            if isUnused, unsafe cursor.bytes &- UInt64(descriptor.length) >= Self.mostUsed {
                continue
            }
            var offset: UInt32 = 0
            repeat {
                guard let piece = unsafe piece(descriptor, offset, &cursor) else { break }
                unsafe offset &+= piece.length
                let use = unsafe min(piece.length, missing &- filled)
                guard descriptor.isWritable, use > 0 else { continue }
                guard count < Self.mostTargets else {
                    hasRoom = false
                    continue
                }
                unsafe targets[count] = unsafe Segment(pointer: piece.pointer, length: use)
                count &+= 1
                filled &+= use
            } while offset < descriptor.length
        }
        unsafe walkBudget &-= Int(cursor.visited)
        if unsafe cursor.isFaulty {
            unsafe breakQueue(cursor)
            return .noBuffer
        }
        guard hasWritable else {
            setFault(QueueFault(.noWritable, head: head))
            return .noBuffer
        }
        missing &-= filled
        writeUsed(head: head, written: filled)
        nextAvailable = nextAvailable &+ 1
        return hasRoom ? .delivered : .tooBig
    }

    /// Copies header and packet into `targets`, which have room for exactly both; counts
    /// the packet's copies.
    @_noLocks
    private func scatter(
        _ header: NetHeader,
        _ entry: BurstEntry,
        _ pieces: UnsafeMutablePointer<Segment>,
        _ copies: inout UInt64
    ) {
        copies &+= 1 &+ UInt64(entry.copies)
        // The slot behind the targets holds the header while it is spread.
        let bytes = unsafe UnsafeMutableRawPointer(targets + Self.mostTargets)
        unsafe Self.storeHeader(header, bytes)
        var target = 0
        var offset = 0
        unsafe fill(UnsafeRawPointer(bytes), NetHeader.size, &target, &offset)
        var index = 0
        while index < Int(entry.segmentCount) {
            let piece = unsafe pieces[index]
            unsafe fill(UnsafeRawPointer(piece.pointer), Int(piece.length), &target, &offset)
            index &+= 1
        }
    }

    /// Copies one run into the targets, from where the last one ended.
    @_noLocks
    private func fill(
        _ source: UnsafeRawPointer,
        _ count: Int,
        _ target: inout Int,
        _ offset: inout Int
    ) {
        var done = 0
        while done < count {
            let place = unsafe targets[target]
            let room = unsafe Int(place.length) &- offset
            let step = min(room, count &- done)
            unsafe SharedCell.copyPacket(place.pointer + offset, source + done, step)
            done &+= step
            offset &+= step
            if step == room {
                target &+= 1
                offset = 0
            }
        }
    }
}
