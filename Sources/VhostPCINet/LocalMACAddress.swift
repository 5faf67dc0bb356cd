/// An Ethernet address that this machine made up for itself.
public struct LocalMACAddress: Hashable, Sendable, CustomStringConvertible {
    /// The six bytes, in transmission order.
    public let bytes: [UInt8]

    /// Picks a random address: locally administered, for one station (VPN-M-02).
    public init() {
        var generator = SystemRandomNumberGenerator()
        self.init(using: &generator)
    }

    /// Picks an address from a given source of randomness.
    public init(using generator: inout some RandomNumberGenerator) {
        var bytes = (0..<6).map { _ in UInt8.random(in: 0...255, using: &generator) }
        bytes[0] = bytes[0] & 0b1111_1100 | 0b0000_0010
        self.bytes = bytes
    }

    /// Colon-separated hexadecimal.
    public var description: String {
        bytes.map { ($0 < 16 ? "0" : "") + String($0, radix: 16) }.joined(separator: ":")
    }
}
