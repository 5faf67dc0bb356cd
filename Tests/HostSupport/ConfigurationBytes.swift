/// A configuration space put together by hand.
public struct ConfigurationBytes {
    /// All of it: 256 bytes, or 4096 once something was placed behind them.
    public private(set) var bytes = [UInt8](repeating: 0, count: 256)

    private var last: Int?
    private var lastExtended: Int?

    /// A header with ids and nothing else.
    public init(vendor: UInt16 = 0x1af4, device: UInt16 = 0x1041) {
        set(0, vendor)
        set(2, device)
        set(8, UInt32(0x0200_0001))
        set(0x2c, vendor)
        set(0x2e, device)
    }

    /// Stores a number, least significant byte first.
    public mutating func set(_ offset: Int, _ value: some FixedWidthInteger) {
        for index in 0..<(value.bitWidth / 8) {
            let byte = UInt8(truncatingIfNeeded: value >> (8 * index))
            bytes[offset + index] = byte
        }
    }

    /// Appends a capability at `offset`; `body` follows the id and the next pointer.
    public mutating func capability(_ identifier: UInt8, at offset: Int, _ body: [UInt8]) {
        bytes[6] |= 0x10
        bytes[last.map { $0 + 1 } ?? 0x34] = UInt8(truncatingIfNeeded: offset)
        bytes[offset] = identifier
        bytes.replaceSubrange((offset + 2)..<(offset + 2 + body.count), with: body)
        last = offset
    }

    /// Appends a virtio structure.
    public mutating func virtio(
        _ type: UInt8,
        at place: Int,
        bar: UInt8 = 0,
        offset: UInt32 = 0,
        length: UInt32 = 0x1000,
        stated: UInt8 = 16,
        tail: [UInt8] = []
    ) {
        var body: [UInt8] = [stated, type, bar, 0, 0, 0]
        for value in [offset, length] {
            for shift in stride(from: 0, to: 32, by: 8) {
                body.append(UInt8(truncatingIfNeeded: value >> UInt32(shift)))
            }
        }
        capability(9, at: place, body + tail)
    }

    /// Appends an extended capability at `offset`, from 0x100 on.
    public mutating func extended(
        _ identifier: UInt16,
        version: UInt8 = 1,
        at offset: Int,
        _ body: [UInt8]
    ) {
        if bytes.count == 256 { bytes += [UInt8](repeating: 0, count: 4096 - 256) }
        if let lastExtended {
            let header = UInt32(offset) << 4 | UInt32(bytes[lastExtended + 2] & 0xf)
            set(lastExtended + 2, UInt16(truncatingIfNeeded: header))
        }
        set(offset, UInt32(identifier) | UInt32(version) << 16)
        bytes.replaceSubrange((offset + 4)..<(offset + 4 + body.count), with: body)
        lastExtended = offset
    }

    /// A virtio-net function as a hypervisor shows it: five structures and MSI-X in a BAR of 512 KiB.
    public static func net(vectors: UInt8 = 3) -> ConfigurationBytes {
        var space = ConfigurationBytes()
        space.virtio(1, at: 0x40, length: 0x38)
        space.virtio(3, at: 0x50, offset: 0x2000, length: 1)
        space.virtio(4, at: 0x60, offset: 0x4000)
        space.virtio(2, at: 0x70, offset: 0x6000, stated: 20, tail: [4, 0, 0, 0])
        space.virtio(5, at: 0x84, length: 0, stated: 20, tail: [0, 0, 0, 0])
        space.capability(0x11, at: 0x98, [vectors - 1, 0x80, 0, 0x80, 0, 0, 0, 0x80, 4, 0])
        return space
    }
}
