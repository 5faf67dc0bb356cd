/// The capability list of a function, as its driver walks it (PCI Local Bus 3.0 §6.7).
public struct CapabilityList: Sendable {
    /// One capability.
    public struct Entry: Hashable, Sendable {
        /// Capability id.
        public let identifier: UInt8
        /// Offset in configuration space.
        public let offset: Int
    }

    /// The capabilities in list order.
    public let entries: [Entry]

    /// As many capabilities as fit into configuration space: a longer list has a loop (HI-H5).
    public static let longest =
        (EmulatedConfigSpace.length - ConfigurationHeader.length) / 4

    /// Walks the list.
    ///
    /// Throws `capabilityLoop` when it does not end or leaves its place (HI-H5), and `deviceGone`
    /// when nobody answers.
    public init(_ function: any PCIFunction) throws(PCIError) {
        let vendor = try function.readConfiguration(ConfigurationHeader.vendor, .word)
        guard vendor != 0xffff else { throw .deviceGone }
        var entries: [Entry] = []
        let status = try function.readConfiguration(ConfigurationHeader.status, .word)
        if status & (1 << 4) != 0 {
            var at = try Self.pointer(at: ConfigurationHeader.capabilities, function)
            while at != 0 {
                guard entries.count < Self.longest, at >= ConfigurationHeader.length else {
                    throw .capabilityLoop
                }
                let identifier = try function.readConfiguration(at, .byte)
                entries.append(
                    Entry(identifier: UInt8(truncatingIfNeeded: identifier), offset: at)
                )
                at = try Self.pointer(at: at + 1, function)
            }
        }
        self.entries = entries
    }

    /// The first capability with that id.
    public func first(_ identifier: UInt8) -> Entry? {
        entries.first { $0.identifier == identifier }
    }

    // The two low bits are reserved: software masks them (PCI Local Bus 3.0 §6.7).
    private static func pointer(
        at offset: Int,
        _ function: any PCIFunction
    ) throws(PCIError) -> Int {
        Int(try function.readConfiguration(offset, .byte)) & 0xfc
    }
}
