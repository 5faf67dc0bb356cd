internal import PCI

extension AccessWidth {
    /// How many bytes at `offset` are taken as one access when `left` are to be moved.
    ///
    /// A whole access of 1, 2 or 4 bytes stays one wherever it begins: what an unaligned one means is
    /// for the function to say. Longer runs are cut at natural boundaries.
    static func first(at offset: UInt64, of left: Int, isWhole: Bool) -> AccessWidth {
        if isWhole, let width = AccessWidth(rawValue: left) { return width }
        if left >= 4, offset % 4 == 0 { return .long }
        if left >= 2, offset % 2 == 0 { return .word }
        return .byte
    }
}

/// A run of bytes of a function, moved by accesses that it knows.
enum RegionRun {
    /// Appends `count` bytes, read one access after the other.
    static func read(
        _ offset: UInt64,
        _ count: Int,
        into bytes: inout [UInt8],
        _ access: (UInt64, AccessWidth) -> UInt32
    ) {
        var done = 0
        while done < count {
            let at = offset + UInt64(done)
            let width = AccessWidth.first(at: at, of: count - done, isWhole: done == 0)
            let value = access(at, width)
            for byte in 0..<width.rawValue {
                bytes.append(UInt8(truncatingIfNeeded: value >> UInt32(8 * byte)))
            }
            done += width.rawValue
        }
    }

    /// Writes bytes, one access after the other.
    static func write(
        _ offset: UInt64,
        _ bytes: ArraySlice<UInt8>,
        _ access: (UInt64, AccessWidth, UInt32) -> Void
    ) {
        var done = 0
        while done < bytes.count {
            let at = offset + UInt64(done)
            let width = AccessWidth.first(at: at, of: bytes.count - done, isWhole: done == 0)
            var value: UInt32 = 0
            for byte in 0..<width.rawValue {
                value |= UInt32(bytes[bytes.startIndex + done + byte]) << UInt32(8 * byte)
            }
            access(at, width, value)
            done += width.rawValue
        }
    }
}
