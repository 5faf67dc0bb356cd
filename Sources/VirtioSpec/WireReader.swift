/// Takes little-endian fields off the front of a byte run; `nil` once the bytes do not suffice.
///
/// Nothing is assumed of alignment, so a field may stand at an odd offset.
public struct WireReader {
    private var rest: ArraySlice<UInt8>

    /// Reads from the first of `bytes`.
    public init(_ bytes: some Collection<UInt8>) {
        rest = Array(bytes)[...]
    }

    /// Bytes not taken yet.
    public var remaining: Int { rest.count }

    /// Takes one integer, least significant byte first.
    public mutating func integer<Value: FixedWidthInteger>(_ type: Value.Type) -> Value? {
        let size = MemoryLayout<Value>.size
        guard rest.count >= size else { return nil }
        var value: Value = 0
        for byte in rest.prefix(size).reversed() {
            value = (size == 1 ? 0 : value << 8) | Value(truncatingIfNeeded: byte)
        }
        rest = rest.dropFirst(size)
        return value
    }

    /// Takes `count` bytes.
    public mutating func bytes(_ count: Int) -> [UInt8]? {
        guard count >= 0, rest.count >= count else { return nil }
        defer { rest = rest.dropFirst(count) }
        return Array(rest.prefix(count))
    }

    /// Passes over `count` bytes; false when there are not as many.
    public mutating func skip(_ count: Int) -> Bool {
        bytes(count) != nil
    }

    /// Takes all that is left.
    public mutating func tail() -> [UInt8] {
        defer { rest = [] }
        return Array(rest)
    }
}

/// Appends little-endian fields to a byte array.
public struct WireWriter {
    /// What was written so far.
    public private(set) var bytes: [UInt8] = []

    /// Starts empty.
    public init() {}

    /// Appends one integer, least significant byte first.
    public mutating func integer<Value: FixedWidthInteger>(_ value: Value) {
        for shift in stride(from: 0, to: Value.bitWidth, by: 8) {
            bytes.append(UInt8(truncatingIfNeeded: value >> Value(shift)))
        }
    }

    /// Appends bytes as they are.
    public mutating func append(_ more: some Sequence<UInt8>) {
        bytes.append(contentsOf: more)
    }

    /// Appends `count` zero bytes.
    public mutating func zeros(_ count: Int) {
        bytes.append(contentsOf: repeatElement(0, count: count))
    }
}
