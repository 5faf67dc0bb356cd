internal import GuestMemory
internal import VirtioSpec

/// What became of packets that were put into a ring.
@frozen
public struct DeliveryTally: BitwiseCopyable, Sendable, Equatable {
    /// Packets copied.
    public var packets: UInt64 = 0
    /// Their bytes, headers of the device not counted.
    public var bytes: UInt64 = 0
    /// Packets that no buffer of this driver can ever hold; skipped.
    public var tooBig: UInt64 = 0

    /// All zero.
    @_noLocks
    @inlinable
    public init() {}
}

extension SplitDeviceQueue {
    /// Longest packet: an IP packet of 65,535 bytes behind an Ethernet header and a VLAN tag.
    public static var longestPacket: UInt32 { @_noLocks get { 65_535 + 18 } }

    /// Most pieces of buffers that one packet is spread over.
    static var mostTargets: Int { @_noLocks get { 4096 } }

    /// Copies packets into the driver's writable chains (a peer's receive ring), each behind a
    /// network header, in one copy from where they lie. Returns how many entries are dealt with;
    /// the rest found no buffer. The driver sees them with `publishDelivered`.
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
        var done = 0
        while done < count {
            let entry = unsafe burst.entries[from &+ done]
            if entry.isDropped != 0 {
                done &+= 1
                continue
            }
            guard entry.byteCount <= Self.longestPacket else {
                tally.tooBig &+= 1
                done &+= 1
                continue
            }
            let pieces = unsafe burst.segments + Int(entry.firstSegment)
            guard availableChains(count &- done) > 0 else { break }
            if unsafe !deliverPlain(entry, pieces) {
                switch unsafe deliverSpread(entry, pieces, mergeable: mergeable) {
                case .delivered: break
                case .tooBig:
                    tally.tooBig &+= 1
                    done &+= 1
                    continue
                case .noBuffer: return done
                }
            }
            tally.packets &+= 1
            tally.bytes &+= UInt64(entry.byteCount)
            done &+= 1
        }
        return done
    }

    /// Shows the driver everything delivered so far, with one release store.
    @_noLocks
    public mutating func publishDelivered() {
        publishUsed()
    }

    /// The usual case: one chain of one buffer in one region has room for the packet. False when it
    /// is not so, and nothing happened.
    @_noLocks @inline(__always)
    private mutating func deliverPlain(
        _ entry: BurstEntry,
        _ pieces: UnsafeMutablePointer<Segment>
    ) -> Bool {
        let head = fetchHead(nextAvailable)
        guard head < size else { return false }
        let buffer = unsafe Self.fetch(UnsafeRawPointer(areas.descriptors), head)
        let needed = UInt32(NetHeader.size) &+ entry.byteCount
        let kind = buffer.flags & 7
        guard kind == SplitDescriptor.writeFlag, buffer.length >= needed,
            let target = unsafe view.translate(buffer.address, UInt64(buffer.length), .write)
        else { return false }
        unsafe Self.storeHeader(NetHeader(bufferCount: 1), target)
        var at = unsafe target + NetHeader.size
        var index = 0
        while index < Int(entry.segmentCount) {
            let piece = unsafe pieces[index]
            unsafe SharedCell.copy(at, piece.pointer, Int(piece.length))
            unsafe at += Int(piece.length)
            index &+= 1
        }
        writeUsed(head: head, written: needed)
        nextAvailable = nextAvailable &+ 1
        return true
    }

    @_noLocks @inline(__always)
    static func storeHeader(_ header: NetHeader, _ target: UnsafeMutableRawPointer) {
        unsafe target.storeBytes(of: header.low, as: UInt64.self)
        unsafe target.storeBytes(of: header.high, toByteOffset: 8, as: UInt32.self)
    }
}
