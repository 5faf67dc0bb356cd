/// The header in front of every packet of a network device (virtio 1.3 §5.1.6), as two words: it is
/// copied out of shared memory once and then judged (HI-A19).
///
/// Offset 0 flags, 1 gso_type, 2 hdr_len, 4 gso_size, 6 csum_start, 8 csum_offset, 10 num_buffers;
/// all little-endian.
@frozen
public struct NetHeader: BitwiseCopyable, Sendable, Equatable {
    /// Bytes 0 … 7.
    public var low: UInt64
    /// Bytes 8 … 11.
    public var high: UInt32

    /// Bytes of the header with VERSION_1 and without the features that lengthen it.
    @inlinable public static var size: Int { @_noLocks get { 12 } }

    /// Flag: the checksum has to be completed.
    @inlinable public static var needsChecksum: UInt8 { @_noLocks get { 1 } }

    /// Length under a negotiated set: the one place that knows (HI-A34). `nil` for sets whose
    /// header this project does not read: legacy ones, hash reports, tunnels.
    public static func length(_ features: FeatureBits) -> Int? {
        let longer: FeatureBits = [
            FeatureBits(bit: 46), FeatureBits(bit: 48), FeatureBits(bit: 57),
        ]
        guard features.contains(.version1), features.isDisjoint(with: longer) else { return nil }
        return size
    }

    /// Takes the words as they lie in memory.
    @_noLocks @inlinable @inline(__always)
    public init(low: UInt64, high: UInt32) {
        self.low = low
        self.high = high
    }

    /// The header of a packet without offloads in so many buffers.
    @_noLocks @inlinable @inline(__always)
    public init(bufferCount: UInt16) {
        low = 0
        high = UInt32(bufferCount) << 16
    }

    /// Flags: NEEDS_CSUM and others.
    public var flags: UInt8 { @_noLocks get { UInt8(truncatingIfNeeded: low) } }
    /// Kind of segmentation asked for; 0 none.
    public var gsoType: UInt8 { @_noLocks get { UInt8(truncatingIfNeeded: low >> 8) } }
    /// Length of the packet's own headers.
    public var headerLength: UInt16 { @_noLocks get { UInt16(truncatingIfNeeded: low >> 16) } }
    /// Payload of a segment.
    public var gsoSize: UInt16 { @_noLocks get { UInt16(truncatingIfNeeded: low >> 32) } }
    /// Where summing starts.
    public var checksumStart: UInt16 { @_noLocks get { UInt16(truncatingIfNeeded: low >> 48) } }
    /// Where the sum goes, from `checksumStart`.
    public var checksumOffset: UInt16 { @_noLocks get { UInt16(truncatingIfNeeded: high) } }
    /// Buffers that a merged packet fills (device to driver).
    public var bufferCount: UInt16 { @_noLocks get { UInt16(truncatingIfNeeded: high >> 16) } }

    /// Nothing in it needs a second look: no checksum to complete, no segmentation, no header
    /// length. What the other fields hold then means nothing.
    @inlinable
    public var isPlain: Bool {
        @_noLocks @inline(__always) get { Self.isPlain(low) }
    }

    /// The same of the first word alone: the second has no part in it.
    @_noLocks @inlinable @inline(__always)
    public static func isPlain(_ low: UInt64) -> Bool {
        low & 0xFFFF_FF01 == 0
    }
}
