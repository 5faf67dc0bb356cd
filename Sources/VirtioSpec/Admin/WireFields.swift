/// Little-endian fields at fixed offsets of a byte run that may be shorter than its layout: what is
/// not there reads as zero, so one layout serves complete and cut messages.
public struct WireFields {
    private let bytes: [UInt8]

    /// Reads from these bytes.
    public init(_ bytes: some Collection<UInt8>) {
        self.bytes = Array(bytes)
    }

    /// The integer at `offset`, least significant byte first, nothing assumed of its alignment.
    public subscript<Value: FixedWidthInteger>(offset: Int) -> Value {
        let size = MemoryLayout<Value>.size
        guard offset >= 0, offset < bytes.count else { return 0 }
        var value: Value = 0
        for (index, byte) in bytes[offset...].prefix(size).enumerated() {
            value |= Value(truncatingIfNeeded: byte) << Value(truncatingIfNeeded: 8 * index)
        }
        return value
    }

    /// The bytes from `offset` to the end.
    public func tail(from offset: Int) -> [UInt8] {
        Array(bytes.dropFirst(max(0, offset)))
    }
}
