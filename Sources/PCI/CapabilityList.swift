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
        try self.init { offset, width throws(PCIError) in
            try function.readConfiguration(offset, width)
        }
    }

    /// Walks the list of an emulated function, from the inside.
    init(_ endpoint: any PCIEndpoint) throws(PCIError) {
        try self.init { offset, width throws(PCIError) in
            endpoint.readConfiguration(offset, width)
        }
    }

    private init(
        _ read: (Int, AccessWidth) throws(PCIError) -> UInt32
    ) throws(PCIError) {
        guard try read(ConfigurationHeader.vendor, .word) != 0xffff else { throw .deviceGone }
        let walk = try Self.walk { offset throws(PCIError) in
            UInt8(truncatingIfNeeded: try read(offset, .byte))
        }
        guard walk.ends else { throw .capabilityLoop }
        entries = walk.entries
    }

    /// The entries up to the place where the list breaks; `ends` is false when it does, or where
    /// `byte` says that there is no more.
    static func walk(
        _ byte: (Int) throws(PCIError) -> UInt8?
    ) throws(PCIError) -> (entries: [Entry], ends: Bool) {
        var entries: [Entry] = []
        guard let status = try byte(ConfigurationHeader.status), status & 1 << 4 != 0 else {
            return (entries, true)
        }
        // The two low bits of a pointer are reserved: software masks them (PCI Local Bus 3.0 §6.7).
        var pointer = try byte(ConfigurationHeader.capabilities).map { Int($0 & 0xfc) }
        while let at = pointer, at != 0 {
            guard entries.count < longest, at >= ConfigurationHeader.length,
                let identifier = try byte(at)
            else { return (entries, false) }
            entries.append(Entry(identifier: identifier, offset: at))
            pointer = try byte(at + 1).map { Int($0 & 0xfc) }
        }
        return (entries, pointer != nil)
    }

    /// The first capability with that id.
    public func first(_ identifier: UInt8) -> Entry? {
        entries.first { $0.identifier == identifier }
    }
}
