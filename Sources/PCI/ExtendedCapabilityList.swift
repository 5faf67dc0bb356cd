/// The list of extended capabilities of a PCI Express function (PCI Express 3.0 §7.9).
public struct ExtendedCapabilityList: Sendable {
    /// One capability.
    public struct Entry: Hashable, Sendable {
        /// Capability id.
        public let identifier: UInt16
        /// Version of its layout.
        public let version: UInt8
        /// Offset in configuration space.
        public let offset: Int
    }

    /// The capabilities in list order, up to the place where the list breaks.
    public let entries: [Entry]
    /// What is wrong with the list.
    public let problem: String?

    /// As many as fit: a longer list has a loop.
    public static let longest =
        (ConfigurationImage.extendedLength - EmulatedConfigSpace.length) / 8

    /// Walks the list; ends on every input (HI-H5).
    public init(_ image: ConfigurationImage) {
        var entries: [Entry] = []
        var problem: String?
        var at = EmulatedConfigSpace.length
        while at != 0 {
            guard at >= EmulatedConfigSpace.length, entries.count < Self.longest else {
                problem = "the list of extended capabilities does not end"
                break
            }
            guard let header = image.long(at) else {
                if !entries.isEmpty { problem = "the list of extended capabilities was cut" }
                break
            }
            // An empty list is a header of zeros; a function without one reads as ones.
            guard header != 0, header != .max else { break }
            entries.append(
                Entry(
                    identifier: UInt16(truncatingIfNeeded: header),
                    version: UInt8(truncatingIfNeeded: header >> 16 & 0xf),
                    offset: at
                )
            )
            at = Int(header >> 20) & ~3
        }
        self.entries = entries
        self.problem = problem
    }
}
