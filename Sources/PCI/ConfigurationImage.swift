public import HostSystem

/// A copy of a function's configuration space, as much of it as could be read: 4096 bytes of a PCI
/// Express function, 256 of another, 64 for a reader without privilege.
public struct ConfigurationImage: Hashable, Sendable {
    /// Length with extended capabilities.
    public static let extendedLength = 4096

    /// The bytes, from offset 0.
    public let bytes: [UInt8]

    /// Takes a copy as it is; what is beyond 4096 bytes is cut.
    public init(_ bytes: some Sequence<UInt8>) {
        self.bytes = Array(bytes.prefix(Self.extendedLength))
    }

    /// Reads through a function that was opened.
    public init(_ function: any PCIFunction) throws(PCIError) {
        var bytes = try Self.read(function, 0, EmulatedConfigSpace.length)
        // Where there is no extended space the first of its registers reads as ones.
        let first = try function.readConfiguration(EmulatedConfigSpace.length, .long)
        if first != .max {
            bytes += try Self.read(function, EmulatedConfigSpace.length, Self.extendedLength)
        }
        self.init(bytes)
    }

    /// Reads what sysfs gives.
    public init(of address: PCIAddress, in tree: HostTree) throws(PCIError) {
        do {
            let path = "\(PCIBus.directory)/\(address)/config"
            self.init(try tree.bytes(path, limit: Self.extendedLength))
        } catch { throw .system(error) }
    }

    /// The capabilities could not be read: that needs privilege.
    public var isHeaderOnly: Bool { bytes.count <= ConfigurationHeader.length }

    /// Nobody answered: the function is gone, or asleep in D3 (HI-A53).
    public var isAllOnes: Bool {
        bytes.prefix(ConfigurationHeader.length).allSatisfy { $0 == 0xff }
    }

    /// One byte, `nil` when it was not read.
    public func byte(_ offset: Int) -> UInt8? {
        bytes.indices.contains(offset) ? bytes[offset] : nil
    }

    /// 16 bits at any offset, `nil` when not all were read.
    public func word(_ offset: Int) -> UInt16? {
        guard let low = byte(offset), let high = byte(offset + 1) else { return nil }
        return UInt16(high) << 8 | UInt16(low)
    }

    /// 32 bits at any offset, `nil` when not all were read.
    public func long(_ offset: Int) -> UInt32? {
        guard let low = word(offset), let high = word(offset + 2) else { return nil }
        return UInt32(high) << 16 | UInt32(low)
    }

    /// The ids in the header, `nil` when the header was not read.
    public var identity: PCIIdentity? {
        guard let vendor = word(ConfigurationHeader.vendor),
            let device = word(ConfigurationHeader.device),
            let subsystemVendor = word(ConfigurationHeader.subsystemVendor),
            let subsystem = word(ConfigurationHeader.subsystem),
            let revision = long(ConfigurationHeader.revision)
        else { return nil }
        return PCIIdentity(
            vendor: vendor,
            device: device,
            subsystemVendor: subsystemVendor,
            subsystem: subsystem,
            classCode: revision >> 8,
            revision: UInt8(truncatingIfNeeded: revision)
        )
    }

    private static func read(
        _ function: any PCIFunction,
        _ start: Int,
        _ end: Int
    ) throws(PCIError) -> [UInt8] {
        var bytes: [UInt8] = []
        for at in stride(from: start, to: end, by: 4) {
            let value = try function.readConfiguration(at, .long)
            for index in 0..<4 {
                bytes.append(UInt8(truncatingIfNeeded: value >> UInt32(8 * index)))
            }
        }
        return bytes
    }
}
