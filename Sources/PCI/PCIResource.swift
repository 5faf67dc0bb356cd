/// One address range of a function, as sysfs's `resource` lists it.
public struct PCIResource: Hashable, Sendable {
    /// BAR 0 … 5, or 6 for the expansion ROM.
    public let number: Int
    /// First address.
    public let start: UInt64
    /// Length in bytes.
    public let size: UInt64
    /// Bits of linux's `IORESOURCE_*`.
    public let flags: UInt64

    /// In I/O space.
    public var isPortIO: Bool { flags & 0x100 != 0 }
    /// In memory space.
    public var isMemory: Bool { flags & 0x200 != 0 }
    /// Reads have no side effects.
    public var isPrefetchable: Bool { flags & 0x2000 != 0 }
    /// The address has 64 bits.
    public var is64Bit: Bool { flags & 0x10_0000 != 0 }
    /// Firmware or kernel found no address for it.
    public var isUnassigned: Bool { flags & 0x2000_0000 != 0 || start == 0 }

    /// Describes a range.
    public init(number: Int, start: UInt64, size: UInt64, flags: UInt64) {
        self.number = number
        self.start = start
        self.size = size
        self.flags = flags
    }

    /// Reads the lines of the file; lines that are not three numbers, and empty ranges, are left out.
    static func list(_ text: String) -> [PCIResource] {
        var resources: [PCIResource] = []
        for (number, line) in text.split(separator: "\n").prefix(7).enumerated() {
            let values = line.split(separator: " ").map { UInt64($0.dropFirst(2), radix: 16) }
            guard values.count == 3, let start = values[0], let end = values[1],
                let flags = values[2], flags != 0, end >= start, end - start < .max
            else { continue }
            resources.append(
                PCIResource(number: number, start: start, size: end - start + 1, flags: flags)
            )
        }
        return resources
    }
}

/// A PCI Express link as sysfs shows it.
public struct PCIeLink: Hashable, Sendable {
    /// As `8.0 GT/s PCIe`.
    public let speed: String
    /// Lanes in use.
    public let width: Int
    /// The best that this function could do.
    public let maximumSpeed: String?
    /// Most lanes that it has.
    public let maximumWidth: Int?

    /// The link runs below what the function could do.
    public var isDegraded: Bool {
        (maximumSpeed.map { $0 != speed } ?? false) || (maximumWidth.map { $0 > width } ?? false)
    }

    init?(speed: String?, width: String?, maximumSpeed: String?, maximumWidth: String?) {
        guard let speed, let width = width.flatMap({ Int($0) }), width > 0, speed != "Unknown"
        else { return nil }
        self.speed = speed
        self.width = width
        self.maximumSpeed = maximumSpeed
        // 255 stands for "not known".
        self.maximumWidth = maximumWidth.flatMap { Int($0) }.flatMap { $0 < 255 ? $0 : nil }
    }
}
