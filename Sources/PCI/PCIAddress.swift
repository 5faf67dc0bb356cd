/// Where a function is: domain, bus, device, function.
public struct PCIAddress: Hashable, Sendable, Comparable, CustomStringConvertible {
    /// Domain (segment), 0 … 0xffffffff.
    public let domain: UInt32
    /// Bus number.
    public let bus: UInt8
    /// Device number, 0 … 31.
    public let device: UInt8
    /// Function number, 0 … 7.
    public let function: UInt8

    /// Reads `0000:03:00.0`, or `03:00.0` for domain 0; `nil` for anything else.
    public init?(_ text: some StringProtocol) {
        let parts = text.split(separator: ":", omittingEmptySubsequences: false)
        guard parts.count == 2 || parts.count == 3, let last = parts.last else { return nil }
        let tail = last.split(separator: ".", omittingEmptySubsequences: false)
        guard tail.count == 2,
            let domain = parts.count == 3 ? Self.number(parts[0], digits: 4...8) : 0,
            let bus = Self.number(parts[parts.count - 2], digits: 2...2),
            let device = Self.number(tail[0], digits: 2...2), device < 32,
            let function = Self.number(tail[1], digits: 1...1), function < 8
        else { return nil }
        self.domain = domain
        self.bus = UInt8(truncatingIfNeeded: bus)
        self.device = UInt8(truncatingIfNeeded: device)
        self.function = UInt8(truncatingIfNeeded: function)
    }

    /// Names a place; of device and function the bits that PCI has count.
    public init(domain: UInt32, bus: UInt8, device: UInt8, function: UInt8) {
        self.domain = domain
        self.bus = bus
        self.device = device & 31
        self.function = function & 7
    }

    /// The order in which a bus is walked.
    public static func < (left: PCIAddress, right: PCIAddress) -> Bool {
        (left.domain, left.bus, left.device, left.function)
            < (right.domain, right.bus, right.device, right.function)
    }

    /// As `lspci -D` writes it.
    public var description: String {
        "\(Self.hex(domain, 4)):\(Self.hex(UInt32(bus), 2)):\(Self.hex(UInt32(device), 2))"
            + ".\(function)"
    }

    private static func number(
        _ text: some StringProtocol,
        digits: ClosedRange<Int>
    ) -> UInt32? {
        guard digits.contains(text.utf8.count), text.allSatisfy(\.isHexDigit) else { return nil }
        return UInt32(text, radix: 16)
    }

    private static func hex(_ value: UInt32, _ digits: Int) -> String {
        let text = String(value, radix: 16)
        return String(repeating: "0", count: max(0, digits - text.count)) + text
    }
}
