internal import GuestMemory
internal import VirtioSpec

/// What became of packets that were put into a ring.
@frozen
public struct DeliveryTally: BitwiseCopyable, Sendable, Equatable {
    /// Packets copied.
    public var packets: UInt64 = 0
    /// Their bytes, headers of the device not counted.
    public var bytes: UInt64 = 0
    /// Copies of these packets' bytes on their way, the one into the buffers included.
    public var copies: UInt64 = 0
    /// Packets that no buffer of this driver can ever hold; skipped.
    public var tooBig: UInt64 = 0

    /// All zero.
    @_noLocks
    @inlinable
    public init() {}
}

/// A chain of one writable buffer, looked at and not taken yet.
@unsafe
struct PlainTarget: BitwiseCopyable {
    // Safety: `length` bytes at `pointer` were translated from the chain at `head`.
    let pointer: UnsafeMutableRawPointer
    let length: UInt32
    let head: UInt16
}

extension SplitDeviceQueue {
    /// Longest packet: an IP packet of 65,535 bytes behind an Ethernet header and a VLAN tag.
    public static var longestPacket: UInt32 { @_noLocks get { 65_535 + 18 } }

    /// Copies packets into the driver's writable chains (a peer's receive ring), each behind a
    /// network header, in one copy from where they lie. Returns how many entries are dealt with;
    /// the rest found no buffer, or none within the descriptors that are looked at between two
    /// publications. The driver sees them with `publishDelivered`.
    ///
    /// With `mergeable` a packet takes as many chains as it needs, otherwise one. Entries marked as
    /// dropped are passed over.
    @_noLocks
    public mutating func deliver(
        _ burst: borrowing ChainBurst,
        from: Int,
        count: Int,
        mergeable: Bool,
        tally: inout DeliveryTally
    ) -> Int {
        if count == 1, deliverOne(burst, from, &tally) { return 1 }
        var done = 0
        while true {
            let chains = gatherPlain(availableChains(min(count &- done, ChainBurst.capacity)))
            done &+= fillPlain(chains, burst, from &+ done, count &- done, &tally)
            guard done < count else { return count }
            // The packet at `done` wants a chain of another shape, several, or one that is not there.
            guard availableChains(1) > 0 else { return done }
            let entry = unsafe burst.entries[from &+ done]
            let pieces = unsafe burst.segments + Int(entry.firstSegment)
            switch unsafe deliverSpread(entry, pieces, mergeable: mergeable, &tally.copies) {
            case .delivered:
                tally.packets &+= 1
                tally.bytes &+= UInt64(entry.byteCount)
            case .tooBig: tally.tooBig &+= 1
            case .noBuffer: return done
            }
            done &+= 1
        }
    }

    /// Shows the driver everything delivered so far, with one release store. Deliveries may then
    /// walk over as many descriptors again.
    @_noLocks
    public mutating func publishDelivered() {
        walkBudget = Self.mostWalked(size)
        publishUsed()
    }

    /// One packet into one chain of one writable buffer, without the notes that a burst needs: what
    /// counts for a packet alone is how soon it is there. False when it is not as simple as that,
    /// and nothing happened.
    @_noLocks @inline(__always)
    private mutating func deliverOne(
        _ burst: borrowing ChainBurst,
        _ index: Int,
        _ tally: inout DeliveryTally
    ) -> Bool {
        let entry = unsafe burst.entries[index]
        guard entry.isDropped == 0, entry.byteCount <= Self.longestPacket,
            availableChains(1) > 0
        else { return false }
        let head = fetchHead(nextAvailable)
        guard head < size else { return false }
        let at = unsafe areas.descriptors + SplitRingLayout.descriptorSize &* Int(head)
        let address = unsafe SharedCell.loadRelaxed64(at)
        let rest = unsafe SharedCell.loadRelaxed64(at + 8)
        let length = UInt32(truncatingIfNeeded: rest)
        let needed = entry.byteCount &+ UInt32(NetHeader.size)
        guard rest & SplitDescriptor.kindMask == SplitDescriptor.writeKind, needed <= length,
            let target = unsafe writeRegion.translate(address, length)
        else { return false }
        unsafe Self.fill(target, entry, burst.segments, &tally.copies)
        writeUsed(head: head, written: needed)
        nextAvailable = nextAvailable &+ 1
        tally.packets &+= 1
        tally.bytes &+= UInt64(entry.byteCount)
        return true
    }

    /// Looks at the next `count` chains, as far as each is one writable buffer in one region, and
    /// notes them in `plain`; asks for their first lines on the way. Takes none. Returns how many.
    @_noLocks @inline(__always)
    private mutating func gatherPlain(_ count: Int) -> Int {
        let heads = unsafe areas.available + SplitRingLayout.ringOffset
        let table = unsafe areas.descriptors
        let size = size
        let mask = Int(size &- 1)
        let first = Int(nextAvailable)
        let plain = unsafe plain
        var region = writeRegion
        var index = 0
        while index < count {
            let head = unsafe SharedCell.loadRelaxed16(heads + 2 &* ((first &+ index) & mask))
            guard head < size else { break }
            let at = unsafe table + SplitRingLayout.descriptorSize &* Int(head)
            let address = unsafe SharedCell.loadRelaxed64(at)
            let rest = unsafe SharedCell.loadRelaxed64(at + 8)
            let length = UInt32(truncatingIfNeeded: rest)
            guard rest & SplitDescriptor.kindMask == SplitDescriptor.writeKind else { break }
            var pointer = unsafe region.translate(address, length)
            if unsafe pointer == nil {
                guard let other = unsafe view.region(of: address, .write) else { break }
                region = other
                unsafe pointer = unsafe region.translate(address, length)
            }
            guard let start = unsafe pointer else { break }
            unsafe SharedCell.prefetchWrite(start)
            unsafe SharedCell.prefetchWrite(start + 64)
            unsafe plain[index] = unsafe PlainTarget(pointer: start, length: length, head: head)
            index &+= 1
        }
        writeRegion = region
        return index
    }

    /// Copies packets into the first chains of `plain`, one each, and takes these; stops at a packet
    /// that finds none left or does not fit. Returns how many entries were dealt with.
    @_noLocks @inline(__always)
    private mutating func fillPlain(
        _ chains: Int,
        _ burst: borrowing ChainBurst,
        _ from: Int,
        _ count: Int,
        _ tally: inout DeliveryTally
    ) -> Int {
        let elements = unsafe areas.used + SplitRingLayout.ringOffset
        let entries = unsafe burst.entries + from
        let segments = unsafe burst.segments
        let plain = unsafe plain
        let mask = Int(size &- 1)
        let first = Int(nextUsed)
        var done = 0
        var taken = 0
        var bytes: UInt64 = 0
        var copies: UInt64 = 0
        while done < count {
            let entry = unsafe entries[done]
            let length = entry.byteCount
            if entry.isDropped == 0, length <= Self.longestPacket {
                guard taken < chains else { break }
                let target = unsafe plain[taken]
                let needed = length &+ UInt32(NetHeader.size)
                guard needed <= (unsafe target.length) else { break }
                unsafe Self.fill(target.pointer, entry, segments, &copies)
                let element = unsafe elements + 8 &* ((first &+ taken) & mask)
                unsafe SharedCell.storeRelaxed32(element, UInt32(target.head))
                unsafe SharedCell.storeRelaxed32(element + 4, needed)
                bytes &+= UInt64(length)
                taken &+= 1
            } else if entry.isDropped == 0 {
                tally.tooBig &+= 1
            }
            done &+= 1
        }
        nextAvailable = nextAvailable &+ UInt16(truncatingIfNeeded: taken)
        nextUsed = nextUsed &+ UInt16(truncatingIfNeeded: taken)
        tally.packets &+= UInt64(truncatingIfNeeded: taken)
        tally.bytes &+= bytes
        tally.copies &+= copies
        return done
    }

    /// Header and packet, one behind the other; counts the packet's copies.
    @_noLocks @inline(__always)
    private static func fill(
        _ target: UnsafeMutableRawPointer,
        _ entry: BurstEntry,
        _ segments: UnsafeMutablePointer<Segment>,
        _ copies: inout UInt64
    ) {
        copies &+= 1 &+ UInt64(entry.copies)
        unsafe storeHeader(NetHeader(bufferCount: 1), target)
        let at = unsafe target + NetHeader.size
        let piece = unsafe segments + Int(entry.firstSegment)
        if entry.segmentCount == 1 {
            unsafe SharedCell.copyPacket(at, piece.pointee.pointer, Int(entry.byteCount))
        } else {
            unsafe fillPieces(at, piece, Int(entry.segmentCount))
        }
    }

    @_noLocks
    private static func fillPieces(
        _ target: UnsafeMutableRawPointer,
        _ pieces: UnsafeMutablePointer<Segment>,
        _ count: Int
    ) {
        var at = unsafe target
        var index = 0
        while index < count {
            let piece = unsafe pieces[index]
            unsafe SharedCell.copyPacket(at, piece.pointer, Int(piece.length))
            unsafe at += Int(piece.length)
            index &+= 1
        }
    }

    @_noLocks @inline(__always)
    static func storeHeader(_ header: NetHeader, _ target: UnsafeMutableRawPointer) {
        unsafe target.storeBytes(of: header.low, as: UInt64.self)
        unsafe target.storeBytes(of: header.high, toByteOffset: 8, as: UInt32.self)
    }
}
