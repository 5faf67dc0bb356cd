/// Sizes, offsets and flags of a split virtqueue (virtio 1.3 §2.7). All fields are little-endian,
/// as is every machine this project runs on.
public enum SplitRingLayout {
    /// Most descriptors of a queue.
    @inlinable public static var maximumSize: UInt16 { 32768 }
    /// Bytes of one descriptor: address 8, length 4, flags 2, next 2.
    @inlinable public static var descriptorSize: Int { 16 }
    /// Bytes of one used element: id 4, length 4.
    @inlinable public static var usedElementSize: Int { 8 }
    /// Offset of the first element in the available and in the used ring, behind flags and index.
    @inlinable public static var ringOffset: Int { 4 }
    /// Offset of the index in either ring.
    @inlinable public static var indexOffset: Int { 2 }

    /// Alignment of the descriptor table.
    @inlinable public static var descriptorAlignment: UInt64 { 16 }
    /// Alignment of the available ring.
    @inlinable public static var driverAlignment: UInt64 { 2 }
    /// Alignment of the used ring.
    @inlinable public static var deviceAlignment: UInt64 { 4 }

    /// Available ring flag: the driver wants no used-buffer notifications.
    @inlinable public static var noInterrupt: UInt16 { 1 }
    /// Used ring flag: the device wants no available-buffer notifications.
    @inlinable public static var noNotify: UInt16 { 1 }

    /// Bytes of the descriptor table.
    @inlinable
    public static func descriptorAreaSize(_ size: UInt16) -> Int {
        descriptorSize * Int(size)
    }

    /// Bytes of the available ring, `used_event` included.
    @inlinable
    public static func driverAreaSize(_ size: UInt16) -> Int {
        ringOffset + 2 * Int(size) + 2
    }

    /// Bytes of the used ring, `avail_event` included.
    @inlinable
    public static func deviceAreaSize(_ size: UInt16) -> Int {
        ringOffset + usedElementSize * Int(size) + 2
    }

    /// Offset of `used_event` in the available ring.
    @inlinable
    public static func usedEventOffset(_ size: UInt16) -> Int {
        ringOffset + 2 * Int(size)
    }

    /// Offset of `avail_event` in the used ring.
    @inlinable
    public static func availableEventOffset(_ size: UInt16) -> Int {
        ringOffset + usedElementSize * Int(size)
    }

    /// True when an index that moves from `old` to `new` passes the event index, so that the other
    /// side asked to be told (virtio 1.3 §2.7.10).
    @inlinable
    @inline(__always)
    public static func isEventPassed(_ event: UInt16, from old: UInt16, to new: UInt16) -> Bool {
        new &- event &- 1 < new &- old
    }
}

/// One descriptor, copied out of shared memory as two words (virtio 1.3 §2.7.5).
@frozen
public struct SplitDescriptor: BitwiseCopyable, Sendable, Equatable {
    /// Address in the driver's space.
    public var address: UInt64
    /// Length in bytes.
    public var length: UInt32
    /// NEXT, WRITE, INDIRECT.
    public var flags: UInt16
    /// Index of the chain's next descriptor, when NEXT is set.
    public var next: UInt16

    /// The chain goes on at `next`.
    @inlinable public static var nextFlag: UInt16 { 1 }
    /// The device writes the buffer, otherwise it reads it.
    @inlinable public static var writeFlag: UInt16 { 2 }
    /// The buffer holds a table of descriptors.
    @inlinable public static var indirectFlag: UInt16 { 4 }

    /// NEXT, WRITE and INDIRECT where they stand in the second word.
    @inlinable public static var kindMask: UInt64 { 7 << 32 }

    /// A writable buffer alone, as `kindMask` shows it.
    @inlinable public static var writeKind: UInt64 { 2 << 32 }

    /// Describes a buffer.
    @inlinable
    public init(address: UInt64, length: UInt32, flags: UInt16 = 0, next: UInt16 = 0) {
        self.address = address
        self.length = length
        self.flags = flags
        self.next = next
    }

    /// Takes the two words as they lie in memory.
    @inlinable
    @inline(__always)
    public init(low: UInt64, high: UInt64) {
        address = low
        length = UInt32(truncatingIfNeeded: high)
        flags = UInt16(truncatingIfNeeded: high >> 32)
        next = UInt16(truncatingIfNeeded: high >> 48)
    }

    /// The second word: length, flags, next.
    @inlinable
    public var high: UInt64 {
        UInt64(length) | UInt64(flags) << 32 | UInt64(next) << 48
    }

    /// The chain goes on.
    @inlinable
    public var hasNext: Bool { flags & Self.nextFlag != 0 }
    /// The device writes here.
    @inlinable
    public var isWritable: Bool { flags & Self.writeFlag != 0 }
    /// The buffer is a table.
    @inlinable
    public var isIndirect: Bool { flags & Self.indirectFlag != 0 }
}
