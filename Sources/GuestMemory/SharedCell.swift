public import CSystemShims
public import HostSystem

/// Single-instruction access to memory that another party may write at the same moment.
///
/// This is the one file where `no_performance_analysis` is allowed: the compiler knows nothing of
/// imported C inlines, and each of these is one machine instruction that neither locks nor
/// allocates, so `@_noLocks` callers may use them.
///
/// Safety: every address must be inside memory that the caller holds a live mapping of, and
/// aligned to the width of the access.
@unsafe
public enum SharedCell {
    /// Reads 16 bits; later accesses stay behind it.
    @_semantics("no_performance_analysis") @inlinable @inline(__always)
    public static func loadAcquire16(_ address: UnsafeRawPointer) -> UInt16 {
        unsafe shim_load_acquire_u16(address)
    }

    /// Reads 16 bits once.
    @_semantics("no_performance_analysis") @inlinable @inline(__always)
    public static func loadRelaxed16(_ address: UnsafeRawPointer) -> UInt16 {
        unsafe shim_load_relaxed_u16(address)
    }

    /// Writes 16 bits; earlier accesses stay before it.
    @_semantics("no_performance_analysis") @inlinable @inline(__always)
    public static func storeRelease16(_ address: UnsafeMutableRawPointer, _ value: UInt16) {
        unsafe shim_store_release_u16(address, value)
    }

    /// Writes 16 bits once.
    @_semantics("no_performance_analysis") @inlinable @inline(__always)
    public static func storeRelaxed16(_ address: UnsafeMutableRawPointer, _ value: UInt16) {
        unsafe shim_store_relaxed_u16(address, value)
    }

    /// Reads 32 bits once.
    @_semantics("no_performance_analysis") @inlinable @inline(__always)
    public static func loadRelaxed32(_ address: UnsafeRawPointer) -> UInt32 {
        unsafe shim_load_relaxed_u32(address)
    }

    /// Reads 32 bits; later accesses stay behind it.
    @_semantics("no_performance_analysis") @inlinable @inline(__always)
    public static func loadAcquire32(_ address: UnsafeRawPointer) -> UInt32 {
        unsafe shim_load_acquire_u32(address)
    }

    /// Writes 32 bits once.
    @_semantics("no_performance_analysis") @inlinable @inline(__always)
    public static func storeRelaxed32(_ address: UnsafeMutableRawPointer, _ value: UInt32) {
        unsafe shim_store_relaxed_u32(address, value)
    }

    /// Writes 32 bits; earlier accesses stay before it.
    @_semantics("no_performance_analysis") @inlinable @inline(__always)
    public static func storeRelease32(_ address: UnsafeMutableRawPointer, _ value: UInt32) {
        unsafe shim_store_release_u32(address, value)
    }

    /// Reads 64 bits once.
    @_semantics("no_performance_analysis") @inlinable @inline(__always)
    public static func loadRelaxed64(_ address: UnsafeRawPointer) -> UInt64 {
        unsafe shim_load_relaxed_u64(address)
    }

    /// Reads 64 bits once, at any alignment.
    @_semantics("no_performance_analysis") @inlinable @inline(__always)
    public static func loadUnaligned64(_ address: UnsafeRawPointer) -> UInt64 {
        unsafe shim_load_unaligned_u64(address)
    }

    /// Reads 32 bits once, at any alignment.
    @_semantics("no_performance_analysis") @inlinable @inline(__always)
    public static func loadUnaligned32(_ address: UnsafeRawPointer) -> UInt32 {
        unsafe shim_load_unaligned_u32(address)
    }

    /// Reads 64 bits; later accesses stay behind it.
    @_semantics("no_performance_analysis") @inlinable @inline(__always)
    public static func loadAcquire64(_ address: UnsafeRawPointer) -> UInt64 {
        unsafe shim_load_acquire_u64(address)
    }

    /// Writes 64 bits once.
    @_semantics("no_performance_analysis") @inlinable @inline(__always)
    public static func storeRelaxed64(_ address: UnsafeMutableRawPointer, _ value: UInt64) {
        unsafe shim_store_relaxed_u64(address, value)
    }

    /// Writes 64 bits; earlier accesses stay before it.
    @_semantics("no_performance_analysis") @inlinable @inline(__always)
    public static func storeRelease64(_ address: UnsafeMutableRawPointer, _ value: UInt64) {
        unsafe shim_store_release_u64(address, value)
    }

    /// Keeps an own earlier store before a later load of the other side's word (virtio 1.3 §2.7.10).
    @_semantics("no_performance_analysis") @inlinable @inline(__always)
    public static func fence() {
        shim_fence()
    }

    /// Copies bytes between private and shared memory. What the other side writes meanwhile may
    /// arrive mixed; ranges that overlap leave unspecified bytes in the target, no more.
    @_semantics("no_performance_analysis") @inlinable @inline(__always)
    public static func copy(
        _ target: UnsafeMutableRawPointer,
        _ source: UnsafeRawPointer,
        _ count: Int
    ) {
        unsafe shim_copy(target, source, count)
    }

    /// As `copy`, quick for the sizes of packets: up to 128 bytes by a few wide moves in line.
    @_semantics("no_performance_analysis") @inlinable @inline(__always)
    public static func copyPacket(
        _ target: UnsafeMutableRawPointer,
        _ source: UnsafeRawPointer,
        _ count: Int
    ) {
        unsafe shim_copy_packet(target, source, count)
    }

    /// Asks for a cache line that will be written soon.
    @_semantics("no_performance_analysis") @inlinable @inline(__always)
    public static func prefetchWrite(_ address: UnsafeMutableRawPointer) {
        unsafe shim_prefetch_write(address)
    }

    /// Asks for a cache line that will be read soon.
    @_semantics("no_performance_analysis") @inlinable @inline(__always)
    public static func prefetch(_ address: UnsafeRawPointer) {
        unsafe shim_prefetch(address)
    }

    /// Gives the sibling hyper-thread a turn inside a spin loop.
    @_semantics("no_performance_analysis") @inlinable @inline(__always)
    public static func pause() {
        shim_pause()
    }

    /// The time-stamp counter.
    @_semantics("no_performance_analysis") @inlinable @inline(__always)
    public static func cycles() -> UInt64 {
        shim_cycles()
    }

    /// Adds 1 to an eventfd: the only system call a packet path makes, once a burst at the most and
    /// only when the other side asked for it. Never waits for whoever shares it.
    @_semantics("no_performance_analysis") @inlinable @inline(__always)
    public static func signal(_ eventDescriptor: Int32) -> SignalOutcome {
        SignalOutcome(result: shim_event_add(eventDescriptor))
    }

    /// Reads one frame from a TAP interface: its length, or a negative error number. A system call.
    @_semantics("no_performance_analysis") @inlinable @inline(__always)
    public static func readFrame(
        _ descriptor: Int32,
        into buffer: UnsafeMutableRawPointer,
        capacity: Int
    ) -> Int {
        unsafe Int(shim_read(descriptor, buffer, capacity))
    }

    /// Writes one frame, in `count` pieces given as `struct iovec`, to a TAP interface: its length,
    /// or a negative error number. A system call.
    @_semantics("no_performance_analysis") @inlinable @inline(__always)
    public static func writeFrame(
        _ descriptor: Int32,
        pieces: UnsafeRawPointer,
        count: Int32
    ) -> Int {
        unsafe Int(shim_write_gather(descriptor, pieces, count))
    }

    /// Stores 16 bits to a device register: exactly one access of that width.
    @_semantics("no_performance_analysis") @inlinable @inline(__always)
    public static func storeRegister16(_ address: UnsafeMutableRawPointer, _ value: UInt16) {
        unsafe shim_mmio_write16(address, value)
    }
}
