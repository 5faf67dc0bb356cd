/// Fixed-size fields of a payload: how a structure reads itself from its first bytes, and how it is
/// written. Integers are little-endian.
public protocol Payload: Sendable, Equatable {
    /// Bytes of the fixed part.
    static var size: Int { get }
    /// Reads the fixed part; `nil` when there are fewer bytes.
    init?(_ bytes: [UInt8])
    /// The fixed part, `size` bytes.
    var encoded: [UInt8] { get }
}

extension [UInt8] {
    /// The integer at `offset`; `nil` where the bytes end. Reads in place: the way of a trapped
    /// access has no room for copies.
    func field<Value: FixedWidthInteger & UnsignedInteger>(
        _ type: Value.Type,
        at offset: Int
    ) -> Value? {
        let size = MemoryLayout<Value>.size
        guard offset >= 0, offset <= count, size <= count - offset else { return nil }
        var value: Value = 0
        for index in 0..<size {
            value |= Value(truncatingIfNeeded: self[offset + index]) << Value(8 * index)
        }
        return value
    }

    /// Appends an integer.
    mutating func appendField<Value: FixedWidthInteger & UnsignedInteger>(_ value: Value) {
        for index in 0..<MemoryLayout<Value>.size {
            append(UInt8(truncatingIfNeeded: value >> Value(8 * index)))
        }
    }
}
