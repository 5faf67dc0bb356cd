public import VirtioSpec

/// One capability of a function, taken apart for people and programs.
public struct Capability: Hashable, Sendable {
    /// A value of a field.
    public enum Value: Hashable, Sendable {
        /// A count or a size.
        case number(UInt64)
        /// An address, an offset, an id or a set of bits.
        case bits(UInt64)
        /// A single bit.
        case flag(Bool)
        /// A name or a list of names.
        case text(String)
    }

    /// A field by name.
    public struct Field: Hashable, Sendable {
        /// The name, in words with underscores between them.
        public let name: String
        /// What it says.
        public let value: Value

        init(_ name: String, _ value: Value) {
            self.name = name
            self.value = value
        }
    }

    /// The id; two lists have numbers of their own.
    public let identifier: UInt16
    /// In the list of extended capabilities, which starts at 0x100.
    public let isExtended: Bool
    /// Offset in configuration space.
    public let offset: Int
    /// Version of an extended capability.
    public let version: UInt8?
    /// The specification's name, `nil` for ids that this program does not know.
    public let name: String?
    /// What it says, in the order of its registers.
    public internal(set) var fields: [Field] = []
    /// What is wrong with it (HI-H6).
    public internal(set) var problems: [String] = []
    /// The virtio structure that it points to.
    public internal(set) var virtio: VirtioCapability?

    /// A field by name.
    public subscript(_ name: String) -> Value? { fields.first { $0.name == name }?.value }

    init(_ entry: CapabilityList.Entry) {
        identifier = UInt16(entry.identifier)
        isExtended = false
        offset = entry.offset
        version = nil
        name = CapabilityNames.standard[entry.identifier]
    }

    init(_ entry: ExtendedCapabilityList.Entry) {
        identifier = entry.identifier
        isExtended = true
        offset = entry.offset
        version = entry.version
        name = CapabilityNames.extended[entry.identifier]
    }

    mutating func add(_ name: String, _ value: Value) {
        fields.append(Field(name, value))
    }
}

/// Where the BARs of a function are and how long they are, as far as that is known.
public struct BARSizes: Hashable, Sendable {
    private let sizes: [UInt64]?

    /// Nothing is known; ranges are not checked.
    public static let unknown = BARSizes(sizes: nil)

    private init(sizes: [UInt64]?) {
        self.sizes = sizes
    }

    /// From sysfs.
    public init(_ resources: [PCIResource]) {
        sizes = (0..<ConfigurationHeader.baseAddressCount).map { bar in
            resources.first { $0.number == bar }?.size ?? 0
        }
    }

    /// From a function that was opened.
    public init(_ function: any PCIFunction) throws(PCIError) {
        var sizes: [UInt64] = []
        for bar in 0..<ConfigurationHeader.baseAddressCount {
            sizes.append(try function.barSize(bar))
        }
        self.sizes = sizes
    }

    /// Length of a BAR: 0 when it is absent, `nil` when that is not known.
    public subscript(_ bar: Int) -> UInt64? {
        guard let sizes else { return nil }
        return sizes.indices.contains(bar) ? sizes[bar] : 0
    }

    /// What is wrong with a range of a BAR, `nil` when it lies inside (HI-H6).
    func problem(_ what: String, bar: Int, offset: UInt64, length: UInt64) -> String? {
        guard bar < ConfigurationHeader.baseAddressCount else {
            return "\(what) is in BAR \(bar), which is a reserved number"
        }
        guard let size = self[bar] else { return nil }
        guard size > 0 else { return "\(what) is in BAR \(bar), which is not there" }
        guard offset <= size, length <= size - offset else {
            return "\(what) reaches past BAR \(bar) of \(size) bytes:"
                + " \(length) bytes at 0x\(String(offset, radix: 16))"
        }
        return nil
    }
}
