internal import VirtioSpec

/// The MSI-X vectors of an emulated function: table, pending bits, and the two bits of the message
/// control register that decide on them (PCI Local Bus 3.0 §6.8.2).
///
/// Address and data of a vector are kept for whoever reads them back; delivery is by vector number.
public struct MSIXTable: Sendable {
    /// Capability id.
    public static let identifier: UInt8 = 0x11
    /// Most vectors this project gives a function.
    public static let maximumCount = 256
    /// Bytes of a table entry.
    public static let entryLength = 16
    /// Message control: MSI-X is enabled.
    public static let enableBit: UInt16 = 1 << 15
    /// Message control: all vectors are masked.
    public static let functionMaskBit: UInt16 = 1 << 14
    /// Offset of the message control register in the capability.
    public static let controlOffset = 2

    private var words: [UInt32]
    private var pending: [Bool]

    /// MSI-X is enabled.
    public private(set) var isEnabled = false
    /// All vectors are masked.
    public private(set) var isFunctionMasked = false

    /// Makes `count` masked vectors, 1 … 256.
    public init(count: Int) {
        precondition((1...Self.maximumCount).contains(count), "\(count) MSI-X vectors")
        words = []
        pending = [Bool](repeating: false, count: count)
        reset()
    }

    /// Number of vectors.
    public var count: Int { pending.count }

    /// The capability: `table` and `pendingBits` are offsets in BAR `bar`, multiples of 8.
    public func capability(bar: Int, table: UInt32, pendingBits: UInt32) -> [UInt8] {
        var writer = WireWriter()
        writer.append([Self.identifier, 0])
        writer.integer(UInt16(count - 1))
        writer.integer(table | UInt32(bar))
        writer.integer(pendingBits | UInt32(bar))
        return writer.bytes
    }

    /// The writable bits of the capability.
    public static let capabilityMask: [UInt8] = [0, 0, 0, 0xc0]

    /// Takes over what was written to message control.
    public mutating func setControl(_ control: UInt16) {
        isEnabled = control & Self.enableBit != 0
        isFunctionMasked = control & Self.functionMaskBit != 0
    }

    /// Reads the table; past its end are zeros.
    public func readTable(_ offset: UInt64, _ width: AccessWidth) -> UInt32 {
        assemble(offset, width) { at in
            let index = at / 4
            guard words.indices.contains(index) else { return 0 }
            return UInt8(truncatingIfNeeded: words[index] >> UInt32(8 * (at % 4)))
        }
    }

    /// Writes the table; each byte on its own (HI-H21), reserved bits and bytes past the end not.
    public mutating func writeTable(_ offset: UInt64, _ width: AccessWidth, _ value: UInt32) {
        for byte in 0..<width.rawValue {
            guard let at = Int(exactly: offset &+ UInt64(byte)), words.indices.contains(at / 4)
            else { continue }
            let shift = UInt32(8 * (at % 4))
            let index = at / 4
            let written = UInt32(UInt8(truncatingIfNeeded: value >> UInt32(8 * byte))) << shift
            let lane = UInt32(0xff) << shift & Self.writableBits(index % 4)
            words[index] = (words[index] & ~lane) | (written & lane)
        }
    }

    /// Reads the pending bits; writes to them have no effect.
    public func readPending(_ offset: UInt64, _ width: AccessWidth) -> UInt32 {
        assemble(offset, width) { at in
            var bits: UInt8 = 0
            for bit in 0..<8 {
                let vector = at.multipliedReportingOverflow(by: 8).partialValue &+ bit
                if pending.indices.contains(vector), pending[vector] { bits |= 1 << UInt8(bit) }
            }
            return bits
        }
    }

    /// A vector has something to say: true when its message goes out now. Otherwise it stays
    /// pending, unless MSI-X is off or there is no such vector (HI-H11).
    public mutating func fire(_ vector: Int, canSend: Bool = true) -> Bool {
        guard isEnabled, pending.indices.contains(vector) else { return false }
        if canSend, !isMasked(vector) { return true }
        pending[vector] = true
        return false
    }

    /// Takes the pending vectors that nothing holds back any more.
    public mutating func takeDeliverable() -> [Int] {
        guard isEnabled else { return [] }
        let ready = pending.indices.filter { pending[$0] && !isMasked($0) }
        for vector in ready { pending[vector] = false }
        return ready
    }

    /// Back to the state after power-on: everything masked, nothing pending, MSI-X off.
    public mutating func reset() {
        words = [UInt32](repeating: 0, count: 4 * count)
        for vector in pending.indices {
            words[4 * vector + 3] = 1
            pending[vector] = false
        }
        isEnabled = false
        isFunctionMasked = false
    }

    private func isMasked(_ vector: Int) -> Bool {
        isFunctionMasked || words[4 * vector + 3] & 1 != 0
    }

    private static func writableBits(_ word: Int) -> UInt32 {
        switch word {
        case 0: ~0b11
        case 3: 1
        default: .max
        }
    }

    private func assemble(
        _ offset: UInt64,
        _ width: AccessWidth,
        _ byte: (Int) -> UInt8
    ) -> UInt32 {
        var value: UInt32 = 0
        for index in 0..<width.rawValue {
            guard let at = Int(exactly: offset &+ UInt64(index)) else { continue }
            value |= UInt32(byte(at)) << UInt32(8 * index)
        }
        return value
    }
}
