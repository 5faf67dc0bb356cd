/// Offsets in the header of configuration space, type 0 (PCI Local Bus 3.0 §6.1).
public enum ConfigurationHeader {
    /// Vendor id, 16 bits.
    public static let vendor = 0x00
    /// Device id, 16 bits.
    public static let device = 0x02
    /// Command register, 16 bits.
    public static let command = 0x04
    /// Status register, 16 bits.
    public static let status = 0x06
    /// Revision id, 8 bits.
    public static let revision = 0x08
    /// Programming interface, subclass, class: 24 bits.
    public static let classCode = 0x09
    /// Header type, 8 bits.
    public static let headerType = 0x0e
    /// First of six base address registers, 32 bits each.
    public static let baseAddress = 0x10
    /// Subsystem vendor id, 16 bits.
    public static let subsystemVendor = 0x2c
    /// Subsystem id, 16 bits.
    public static let subsystem = 0x2e
    /// First capability, 8 bits.
    public static let capabilities = 0x34
    /// Interrupt line, 8 bits.
    public static let interruptLine = 0x3c
    /// Length of the header; capabilities stand behind it.
    public static let length = 0x40
    /// Number of base address registers.
    public static let baseAddressCount = 6

    /// Offset of base address register `bar`.
    public static func baseAddress(_ bar: Int) -> Int { baseAddress + 4 * bar }
}

/// Bits of the command register.
public struct CommandRegister: OptionSet, Sendable {
    /// The register.
    public let rawValue: UInt16

    /// Takes the bits as they are.
    public init(rawValue: UInt16) {
        self.rawValue = rawValue
    }

    /// BARs in memory space answer.
    public static let memorySpace = CommandRegister(rawValue: 1 << 1)
    /// The function may reach memory, which includes sending MSI-X messages.
    public static let busMaster = CommandRegister(rawValue: 1 << 2)
    /// INTx is not asserted.
    public static let interruptDisable = CommandRegister(rawValue: 1 << 10)
}

/// Who a function says it is.
public struct PCIIdentity: Hashable, Sendable {
    /// Vendor id.
    public var vendor: UInt16
    /// Device id.
    public var device: UInt16
    /// Subsystem vendor id.
    public var subsystemVendor: UInt16
    /// Subsystem id.
    public var subsystem: UInt16
    /// Class, subclass and programming interface, 24 bits.
    public var classCode: UInt32
    /// Revision id.
    public var revision: UInt8

    /// Collects the ids; the subsystem repeats them unless told otherwise.
    public init(
        vendor: UInt16,
        device: UInt16,
        subsystemVendor: UInt16? = nil,
        subsystem: UInt16? = nil,
        classCode: UInt32,
        revision: UInt8 = 1
    ) {
        self.vendor = vendor
        self.device = device
        self.subsystemVendor = subsystemVendor ?? vendor
        self.subsystem = subsystem ?? device
        self.classCode = classCode
        self.revision = revision
    }
}
