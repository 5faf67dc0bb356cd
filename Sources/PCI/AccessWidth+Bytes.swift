extension AccessWidth {
    /// The register that these bytes are, least significant first. What is missing reads as ones, as
    /// from a bus where nobody answers.
    public func value(of bytes: [UInt8]) -> UInt32 {
        (0..<rawValue).reduce(0) { value, index in
            value | UInt32(bytes.indices.contains(index) ? bytes[index] : 0xff)
                << UInt32(8 * index)
        }
    }

    /// The bytes of a register, least significant first.
    public func bytes(of value: UInt32) -> [UInt8] {
        (0..<rawValue).map { UInt8(truncatingIfNeeded: value >> UInt32(8 * $0)) }
    }
}
