/// Rights and reasons of the device MMU, as bits on the wire.
public struct MMUFlags: OptionSet, Hashable, Sendable {
    /// The bits as sent.
    public let rawValue: UInt32

    /// Takes the bits as they are.
    public init(rawValue: UInt32) {
        self.rawValue = rawValue
    }

    /// The device may read, or tried to.
    public static let read = MMUFlags(rawValue: 1)
    /// The device may write, or tried to.
    public static let write = MMUFlags(rawValue: 2)
    /// The target is device registers, not memory.
    public static let mmio = MMUFlags(rawValue: 4)
    /// A fault's address is known.
    public static let addressValid = MMUFlags(rawValue: 0x100)
}

/// The result of MMU INFO (32 bytes).
public struct MMUInformation: Hashable, Sendable {
    /// Bit n set: pages of 2^n bytes; the lowest bit is what ranges are aligned to.
    public var pageSizeMask: UInt64
    /// First address that can be mapped.
    public var first: UInt64
    /// Last address that can be mapped.
    public var last: UInt64
    /// Most mappings.
    public var maximumMappings: UInt32

    /// Length on the wire.
    public static let size = 32

    /// Describes an MMU.
    public init(pageSizeMask: UInt64, first: UInt64, last: UInt64, maximumMappings: UInt32) {
        self.pageSizeMask = pageSizeMask
        self.first = first
        self.last = last
        self.maximumMappings = maximumMappings
    }

    /// Reads a result.
    public init(_ fields: WireFields) {
        pageSizeMask = fields[0]
        first = fields[8]
        last = fields[16]
        maximumMappings = fields[24]
    }

    /// The result on the wire.
    public var bytes: [UInt8] {
        var writer = WireWriter()
        writer.integer(pageSizeMask)
        writer.integer(first)
        writer.integer(last)
        writer.integer(maximumMappings)
        writer.zeros(4)
        return writer.bytes
    }
}

/// One mapping: argument of MMU MAP, result of QUERY (32 bytes).
public struct MappingRecord: Hashable, Sendable {
    /// First address, in the virtual device's space.
    public var first: UInt64
    /// Last address; it belongs to the mapping.
    public var last: UInt64
    /// Where `first` is, in the management device's DMA space.
    public var target: UInt64
    /// Rights.
    public var flags: MMUFlags

    /// Describes a mapping.
    public init(first: UInt64, last: UInt64, target: UInt64, flags: MMUFlags) {
        self.first = first
        self.last = last
        self.target = target
        self.flags = flags
    }

    /// Reads a record.
    public init(_ fields: WireFields) {
        first = fields[0]
        last = fields[8]
        target = fields[16]
        flags = MMUFlags(rawValue: fields[24])
    }

    /// The record on the wire.
    public var bytes: [UInt8] {
        var writer = WireWriter()
        writer.integer(first)
        writer.integer(last)
        writer.integer(target)
        writer.integer(flags.rawValue)
        writer.zeros(4)
        return writer.bytes
    }
}

/// The first access that did not translate: result of MMU FAULT_GET (24 bytes).
public struct FaultRecord: Hashable, Sendable {
    /// What was wrong with the access.
    public enum Reason: UInt8, Sendable {
        /// There was no fault.
        case none = 0
        /// No mapping covers the address, or its target is no memory.
        case unmapped = 1
        /// The mapping does not allow it.
        case permission = 2
    }

    /// What was wrong.
    public var reason: Reason
    /// What was tried, and whether the address is known.
    public var flags: MMUFlags
    /// The address, in the virtual device's space.
    public var address: UInt64
    /// The queue whose buffer or ring it was; 0xffff when it was none.
    public var queue: UInt16

    /// Length on the wire.
    public static let size = 24

    /// No fault.
    public static let none = FaultRecord(reason: .none, flags: [], address: 0, queue: 0)

    /// Describes a fault.
    public init(reason: Reason, flags: MMUFlags, address: UInt64, queue: UInt16) {
        self.reason = reason
        self.flags = flags
        self.address = address
        self.queue = queue
    }

    /// Reads a result; a reason that is reserved counts as unmapped.
    public init(_ fields: WireFields) {
        reason = Reason(rawValue: fields[0]) ?? .unmapped
        flags = MMUFlags(rawValue: fields[4])
        address = fields[8]
        queue = fields[16]
    }

    /// The result on the wire.
    public var bytes: [UInt8] {
        var writer = WireWriter()
        writer.integer(reason.rawValue)
        writer.zeros(3)
        writer.integer(flags.rawValue)
        writer.integer(address)
        writer.integer(queue)
        writer.zeros(6)
        return writer.bytes
    }
}
