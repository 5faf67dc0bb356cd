/// Numbers and layouts of `linux/vfio.h`, as far as Swift reads and writes them.
enum VFIOLayout {
    static let apiVersion = 0
    static let type1v2: UInt32 = 3

    static let groupIsViable: UInt32 = 1 << 0

    static let deviceLength = 16
    static let deviceFlags = 4
    static let deviceRegionCount = 8
    static let deviceInterruptCount = 12
    static let deviceCanReset: UInt32 = 1 << 0
    static let deviceIsPCI: UInt32 = 1 << 1

    static let regionLength = 32
    static let regionFlags = 4
    static let regionCapabilities = 12
    static let regionSize = 16
    static let regionOffset = 24
    static let regionCanBeMapped: UInt32 = 1 << 2
    static let regionHasCapabilities: UInt32 = 1 << 3
    static let sparseCapability: UInt16 = 1
    static let messageMappableCapability: UInt16 = 3
    static let configurationRegion = 7

    static let interruptLength = 16
    static let interruptFlags = 4
    static let interruptCount = 12
    static let interruptTakesEvents: UInt32 = 1 << 0
    static let interruptHasFixedSize: UInt32 = 1 << 3

    static let dataNone: UInt32 = 1 << 0
    static let dataEvents: UInt32 = 1 << 2
    static let actionMask: UInt32 = 1 << 3
    static let actionUnmask: UInt32 = 1 << 4
    static let actionTrigger: UInt32 = 1 << 5

    static let iommuLength = 24
    static let iommuFlags = 4
    static let iommuPageSizes = 8
    static let iommuCapabilities = 16
    static let iommuHasPageSizes: UInt32 = 1 << 0
    static let iommuHasCapabilities: UInt32 = 1 << 1
    static let rangeCapability: UInt16 = 1
    static let mappingsCapability: UInt16 = 3

    static let hotResetLength = 12
    static let hotResetCount = 8
    static let hotResetEntry = 8

    static let capabilityLength = 8
}

/// Little-endian fields of an answer; `nil` past its end.
struct AnswerBytes {
    let bytes: [UInt8]

    func field16(_ offset: Int) -> UInt16? { field(offset).map { UInt16(truncatingIfNeeded: $0) } }

    func field32(_ offset: Int) -> UInt32? {
        guard offset >= 0, offset <= bytes.count - 4 else { return nil }
        return (0..<4).reduce(0) { $0 | UInt32(bytes[offset + $1]) << UInt32(8 * $1) }
    }

    func field64(_ offset: Int) -> UInt64? {
        guard let low = field32(offset), let high = field32(offset + 4) else { return nil }
        return UInt64(low) | UInt64(high) << 32
    }

    private func field(_ offset: Int) -> UInt32? {
        guard offset >= 0, offset <= bytes.count - 2 else { return nil }
        return UInt32(bytes[offset]) | UInt32(bytes[offset + 1]) << 8
    }
}
