/// A base address register in memory space: how large the BAR is and how it is addressed
/// (PCI Local Bus 3.0 §6.2.5.1).
public struct BaseAddressRegister: Hashable, Sendable {
    /// Length of the BAR in bytes, a power of two.
    public let size: UInt64
    /// The address has 64 bits and takes the next register too.
    public let is64Bit: Bool
    /// Reads have no side effects.
    public let isPrefetchable: Bool

    /// Describes a BAR; `nil` unless `size` is a power of two of at least 16 bytes that the width
    /// of the address can express.
    public init?(size: UInt64, is64Bit: Bool = false, isPrefetchable: Bool = false) {
        guard size >= 16, size & (size - 1) == 0, is64Bit || size <= 1 << 31 else { return nil }
        self.size = size
        self.is64Bit = is64Bit
        self.isPrefetchable = isPrefetchable
    }

    /// The read-only low bits of the register.
    public var typeBits: UInt32 {
        (is64Bit ? 0b0100 : 0) | (isPrefetchable ? 0b1000 : 0)
    }

    /// The bits that a write can change, over both registers.
    public var addressMask: UInt64 {
        ~(size - 1) & (is64Bit ? .max : 0xffff_ffff)
    }

    /// Takes apart what the register, and its successor when it has 64 bits, read after all ones
    /// were written; `nil` when there is no memory BAR.
    public init?(sizing low: UInt32, _ high: UInt32) {
        guard low & 1 == 0, low & ~0xf != 0 || low & 0b0110 == 0b0100 else { return nil }
        let wide = low & 0b0110 == 0b0100
        let mask = UInt64(low & ~0xf) | (wide ? UInt64(high) << 32 : 0xffff_ffff << 32)
        guard mask != 0 else { return nil }
        self.init(size: ~mask &+ 1, is64Bit: wide, isPrefetchable: low & 0b1000 != 0)
    }

    /// Sizes BAR `bar` of a function the way a system does: all ones in, mask out, address back.
    ///
    /// Memory decoding must be off meanwhile. `nil` when the BAR is absent or no memory BAR.
    public static func size(
        _ bar: Int,
        of function: any PCIFunction
    ) throws(PCIError) -> BaseAddressRegister? {
        guard (0..<ConfigurationHeader.baseAddressCount).contains(bar) else { return nil }
        let at = ConfigurationHeader.baseAddress(bar)
        let low = try sizingValue(at, of: function)
        guard bar + 1 < ConfigurationHeader.baseAddressCount, low & 0b0111 == 0b0100 else {
            return BaseAddressRegister(sizing: low, 0)
        }
        return BaseAddressRegister(sizing: low, try sizingValue(at + 4, of: function))
    }

    private static func sizingValue(
        _ offset: Int,
        of function: any PCIFunction
    ) throws(PCIError) -> UInt32 {
        let address = try function.readConfiguration(offset, .long)
        try function.writeConfiguration(offset, .long, .max)
        let value = try function.readConfiguration(offset, .long)
        try function.writeConfiguration(offset, .long, address)
        return value
    }
}
