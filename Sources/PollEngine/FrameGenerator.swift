internal import Virtqueue

/// The frames that a source sends: Ethernet, a local experimental type, a sequence number, filler.
///
/// | offset | bytes | content |
/// |---|---|---|
/// | 0 | 6 | destination 02:56:50:pp:pp:01, `pp:pp` the port's number |
/// | 6 | 6 | source 02:56:50:pp:pp:00 |
/// | 12 | 2 | type 0x88B5 (IEEE 802 local experimental 1) |
/// | 14 | 2 | zero |
/// | 16 | 8 | sequence number of the port, from 0, little-endian |
/// | 24 | … | byte `i` is the low byte of `i` |
@safe
struct FrameGenerator: ~Copyable {
    // Safety: `frames` holds one frame of `stride` bytes for each entry of a burst until deinit.
    /// Sizes of a frame, without its check sequence.
    static var sizes: ClosedRange<Int> { 60...65_535 }
    /// Where the sequence number stands.
    static var sequenceOffset: Int { @_noLocks get { 16 } }

    /// All frames, as a full burst.
    let burst: ChainBurst

    private let frames: UnsafeMutableRawPointer
    private let stride: Int

    /// Lays out frames of `size` bytes, one of `sizes`.
    init(size: Int) {
        precondition(FrameGenerator.sizes.contains(size), "the engine checks the size")
        stride = (size + 63) & ~63
        unsafe frames = .allocate(byteCount: stride * ChainBurst.capacity, alignment: 4096)
        var chains = ChainBurst(longestChain: ChainBurst.capacity)
        for number in 0..<ChainBurst.capacity {
            let frame = unsafe frames + number * stride
            for offset in 0..<stride {
                let byte = UInt8(truncatingIfNeeded: offset)
                unsafe frame.storeBytes(of: byte, toByteOffset: offset, as: UInt8.self)
            }
            unsafe frame.storeBytes(of: 0x0000_B588, toByteOffset: 12, as: UInt32.self)
            unsafe chains.segments[number] = Segment(pointer: frame, length: UInt32(size))
            unsafe chains.entries[number] = BurstEntry(
                firstSegment: UInt32(number),
                segmentCount: 1,
                byteCount: UInt32(size),
                head: 0
            )
        }
        chains.count = ChainBurst.capacity
        chains.segmentCount = ChainBurst.capacity
        burst = chains
    }

    deinit {
        unsafe frames.deallocate()
    }

    /// Numbers the first `count` frames from `sequence` on and addresses them for a port.
    @_noLocks @inline(__always)
    func prepare(_ count: Int, sequence: UInt64, port: Int) {
        let number = UInt64(truncatingIfNeeded: port)
        let address = 0x0000_0050_5602 | (number >> 8 & 0xFF) &<< 24 | (number & 0xFF) &<< 32
        let low = address | 0x0100_0000_0000 | address &<< 48
        let high = UInt32(truncatingIfNeeded: address &>> 16)
        var index = 0
        while index < count {
            let frame = unsafe frames + index &* stride
            unsafe frame.storeBytes(of: low, as: UInt64.self)
            unsafe frame.storeBytes(of: high, toByteOffset: 8, as: UInt32.self)
            unsafe frame.storeBytes(
                of: sequence &+ UInt64(truncatingIfNeeded: index),
                toByteOffset: FrameGenerator.sequenceOffset,
                as: UInt64.self
            )
            index &+= 1
        }
    }
}
