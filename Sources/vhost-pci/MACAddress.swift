import ArgumentParser

/// An Ethernet address.
struct MACAddress: Hashable, Sendable, ExpressibleByArgument, CustomStringConvertible {
    /// Six bytes, as on the wire.
    let bytes: [UInt8]

    /// Takes six bytes.
    init?(bytes: [UInt8]) {
        guard bytes.count == 6 else { return nil }
        self.bytes = bytes
    }

    /// A locally administered unicast address numbered by its last byte.
    init(local number: UInt8) {
        bytes = [2, 0, 0, 0, 0, number]
    }

    /// Parses six hexadecimal pairs between colons.
    init?(argument: String) {
        let parts = argument.split(separator: ":", omittingEmptySubsequences: false)
        let values = parts.compactMap { $0.count == 2 ? UInt8($0, radix: 16) : nil }
        guard parts.count == 6, values.count == 6 else { return nil }
        bytes = values
    }

    /// A multicast address, or broadcast.
    var isGroup: Bool { bytes[0] & 1 == 1 }

    /// Six hexadecimal pairs between colons.
    var description: String {
        bytes.map { byte in
            let text = String(byte, radix: 16)
            return text.count == 1 ? "0" + text : text
        }.joined(separator: ":")
    }
}
