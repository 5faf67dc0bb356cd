/// What a virtio capability points to (`cfg_type`, virtio 1.3 §4.1.4).
public struct VirtioCapabilityType: RawRepresentable, Hashable, Sendable {
    /// The byte.
    public let rawValue: UInt8

    /// Takes the byte as it is.
    public init(rawValue: UInt8) {
        self.rawValue = rawValue
    }

    /// Common configuration.
    public static let common = VirtioCapabilityType(rawValue: 1)
    /// Queue notification.
    public static let notify = VirtioCapabilityType(rawValue: 2)
    /// Interrupt status.
    public static let interruptStatus = VirtioCapabilityType(rawValue: 3)
    /// Device configuration.
    public static let device = VirtioCapabilityType(rawValue: 4)
    /// Access to BARs through configuration space.
    public static let configurationAccess = VirtioCapabilityType(rawValue: 5)
    /// Shared memory; offset and length have 64 bits.
    public static let sharedMemory = VirtioCapabilityType(rawValue: 8)
    /// Vendor specific.
    public static let vendor = VirtioCapabilityType(rawValue: 9)
    /// Notification of a peer's queues (vhost-pci-net RFC 2016 names it without a number). Ours:
    /// far from the assigned ones; drivers that do not know it skip it.
    public static let peerNotify = VirtioCapabilityType(rawValue: 0xf0)

    /// Length of the capability in bytes, as far as it is known here.
    public var length: Int {
        switch self {
        case .notify, .configurationAccess, .peerNotify: 20
        case .sharedMemory: 24
        default: 16
        }
    }

    var hasMultiplier: Bool { self == .notify || self == .peerNotify }
}

/// A virtio capability in PCI configuration space: a structure's place in a BAR.
public struct VirtioCapability: Hashable, Sendable {
    /// Capability id of all of them: vendor specific.
    public static let identifier: UInt8 = 0x09
    /// Where the `next` pointer stands.
    public static let nextOffset = 1
    /// Fields of the configuration-access capability that its user writes, as byte offsets.
    public static let accessBAR = 4
    /// Offset in the BAR, 32 bits.
    public static let accessOffset = 8
    /// Length of the access, 32 bits.
    public static let accessLength = 12
    /// The bytes read or to be written, 32 bits.
    public static let accessBytes = 16

    /// What it points to.
    public let type: VirtioCapabilityType
    /// BAR 0 … 5; higher numbers are reserved.
    public let bar: UInt8
    /// Tells structures of one type apart (shared memory id).
    public let id: UInt8
    /// Offset in the BAR.
    public let offset: UInt64
    /// Length of the structure.
    public let length: UInt64
    /// Bytes between two notify addresses; 0 for types that have none.
    public let multiplier: UInt32

    /// Describes a structure.
    public init(
        _ type: VirtioCapabilityType,
        bar: UInt8 = 0,
        id: UInt8 = 0,
        offset: UInt64 = 0,
        length: UInt64 = 0,
        multiplier: UInt32 = 0
    ) {
        self.type = type
        self.bar = bar
        self.id = id
        self.offset = offset
        self.length = length
        self.multiplier = multiplier
    }

    /// Takes a capability apart; `nil` when its id is another, or it is shorter than its type
    /// demands (HI-H6). Longer is fine (HI-H7).
    public init?(bytes: some Collection<UInt8>) {
        var reader = WireReader(bytes)
        guard reader.integer(UInt8.self) == Self.identifier, reader.skip(1),
            let stated = reader.integer(UInt8.self),
            let type = reader.integer(UInt8.self).map(VirtioCapabilityType.init(rawValue:)),
            Int(stated) >= type.length,
            let bar = reader.integer(UInt8.self),
            let id = reader.integer(UInt8.self), reader.skip(2),
            let offset = reader.integer(UInt32.self),
            let length = reader.integer(UInt32.self)
        else { return nil }
        var high: (offset: UInt32, length: UInt32) = (0, 0)
        var multiplier: UInt32 = 0
        if type == .sharedMemory {
            guard let offsetHigh = reader.integer(UInt32.self),
                let lengthHigh = reader.integer(UInt32.self)
            else { return nil }
            high = (offsetHigh, lengthHigh)
        } else if type.hasMultiplier {
            guard let stride = reader.integer(UInt32.self) else { return nil }
            multiplier = stride
        }
        self.init(
            type,
            bar: bar,
            id: id,
            offset: UInt64(high.offset) << 32 | UInt64(offset),
            length: UInt64(high.length) << 32 | UInt64(length),
            multiplier: multiplier
        )
    }

    /// The bytes in configuration space; `next` is where the following capability stands, 0 for
    /// the last.
    public func encoded(next: UInt8 = 0) -> [UInt8] {
        var writer = WireWriter()
        writer.append([
            Self.identifier, next, UInt8(truncatingIfNeeded: type.length), type.rawValue, bar, id,
            0, 0,
        ])
        writer.integer(UInt32(truncatingIfNeeded: offset))
        writer.integer(UInt32(truncatingIfNeeded: length))
        if type == .sharedMemory {
            writer.integer(UInt32(truncatingIfNeeded: offset >> 32))
            writer.integer(UInt32(truncatingIfNeeded: length >> 32))
        } else if type.hasMultiplier || type == .configurationAccess {
            writer.integer(multiplier)
        }
        return writer.bytes
    }
}
