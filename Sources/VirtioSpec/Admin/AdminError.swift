/// What exactly was wrong with an admin command. Values below 0x100 are those of virtio 1.3 §2.12.1;
/// the others are this project's.
public enum AdminQualifier: UInt16, Sendable, CaseIterable {
    /// The command is not valid, with nothing more precise to say.
    case invalidCommand = 1
    /// The class, or the command within it, is not served.
    case invalidOpcode = 2
    /// A field has a value that is not allowed.
    case invalidField = 3
    /// The header names a device that this command cannot be addressed to.
    case invalidMember = 5
    /// A table is full.
    case noResource = 6
    /// Not now.
    case tryAgain = 7
    /// No living virtual device has that id.
    case noSuchDevice = 0x100
    /// No more virtual devices can be created.
    case noRoomForDevice = 0x101
    /// Devices of that type cannot be created here.
    case badDeviceType = 0x102
    /// A creation attribute is malformed, unknown, or cannot be met.
    case badAttribute = 0x103
    /// Features that are not offered.
    case badFeatures = 0x104
    /// The virtual device is pre-made and stays.
    case staticDevice = 0x105
    /// Not in this state.
    case badState = 0x106
    /// There is no such queue.
    case badQueue = 0x107
    /// A range that is inverted, misaligned, or wraps.
    case badAddress = 0x108
    /// A range that overlaps or would cut a mapping.
    case rangeOverlap = 0x109
    /// Nothing is mapped there.
    case noMapping = 0x10a
    /// There is no such interrupt vector.
    case badVector = 0x10b
    /// The readable or the writable part is too short.
    case shortBuffer = 0x10c
    /// Outside the configuration space.
    case badOffset = 0x10d

    /// The errno value that goes with it.
    public var code: UInt16 {
        switch self {
        case .noSuchDevice, .noMapping: 6
        case .tryAgain: 11
        case .badState: 16
        case .rangeOverlap: 17
        case .noRoomForDevice, .noResource: 28
        default: 22
        }
    }

    /// The name for people.
    public var name: String {
        switch self {
        case .invalidCommand: "INVALID_COMMAND"
        case .invalidOpcode: "INVALID_OPCODE"
        case .invalidField: "INVALID_FIELD"
        case .invalidMember: "INVALID_MEMBER"
        case .noResource: "NORESOURCE"
        case .tryAgain: "TRYAGAIN"
        case .noSuchDevice: "NO_SUCH_DEVICE"
        case .noRoomForDevice: "NO_ROOM_FOR_DEVICE"
        case .badDeviceType: "BAD_DEVICE_TYPE"
        case .badAttribute: "BAD_ATTRIBUTE"
        case .badFeatures: "BAD_FEATURES"
        case .staticDevice: "STATIC_DEVICE"
        case .badState: "BAD_STATE"
        case .badQueue: "BAD_QUEUE"
        case .badAddress: "BAD_ADDRESS"
        case .rangeOverlap: "RANGE_OVERLAP"
        case .noMapping: "NO_MAPPING"
        case .badVector: "BAD_VECTOR"
        case .shortBuffer: "SHORT_BUFFER"
        case .badOffset: "BAD_OFFSET"
        }
    }
}

/// Why a management device refuses a command; nothing has changed when it is thrown (AVQ-D-305).
public struct AdminError: Error, Hashable, Sendable, CustomStringConvertible {
    /// What was wrong.
    public let qualifier: AdminQualifier
    /// Where, or how much is needed; 0 when there is nothing to tell.
    public let detail: UInt32

    /// Names what was wrong.
    public init(_ qualifier: AdminQualifier, detail: UInt32 = 0) {
        self.qualifier = qualifier
        self.detail = detail
    }

    /// No more virtual devices can be created (AVQ-D-307).
    public static let noRoom = AdminError(.noRoomForDevice)
    /// Devices of that type cannot be created (AVQ-D-307).
    public static let deviceType = AdminError(.badDeviceType)
    /// The wanted features cannot be offered (AVQ-D-307).
    public static let features = AdminError(.badFeatures)

    /// The attribute at `offset` of the creation data cannot be met (AVQ-D-307).
    public static func attribute(at offset: UInt32) -> AdminError {
        AdminError(.badAttribute, detail: offset)
    }

    /// The readable or writable part should have had `needed` bytes (AVQ-D-303, AVQ-D-304).
    public static func shortBuffer(needed: Int) -> AdminError {
        AdminError(.shortBuffer, detail: UInt32(clamping: needed))
    }

    /// The name and the detail.
    public var description: String {
        detail == 0 ? qualifier.name : "\(qualifier.name) (\(detail))"
    }
}

/// The result of a failed command: 8 bytes at writable offset 1 (AVQ-D-302).
public struct AdminErrorRecord: Hashable, Sendable, CustomStringConvertible {
    /// An errno value, as sent.
    public let code: UInt16
    /// What was wrong, as sent.
    public let qualifier: UInt16
    /// Where, or how much is needed.
    public let detail: UInt32

    /// Length on the wire.
    public static let size = 8

    /// The record of an error of ours.
    public init(_ error: AdminError) {
        code = error.qualifier.code
        qualifier = error.qualifier.rawValue
        detail = error.detail
    }

    /// Reads a record; bytes that were not sent count as zero (HI-F91).
    public init(zeroExtending bytes: some Collection<UInt8>) {
        let fields = WireFields(bytes)
        code = fields[0]
        qualifier = fields[2]
        detail = fields[4]
    }

    /// The record on the wire.
    public var bytes: [UInt8] {
        var writer = WireWriter()
        writer.integer(code)
        writer.integer(qualifier)
        writer.integer(detail)
        return writer.bytes
    }

    /// The qualifier; one that is reserved counts as INVALID_COMMAND (HI-F90).
    public var meaning: AdminQualifier {
        AdminQualifier(rawValue: qualifier) ?? .invalidCommand
    }

    /// The device asks for the same command later (EAGAIN).
    public var asksForRetry: Bool { code == AdminQualifier.tryAgain.code }

    /// Name and numbers; numbers alone for reserved values (HI-F90).
    public var description: String {
        let known = AdminQualifier(rawValue: qualifier)
        let name = known?.name ?? "reserved qualifier, read as INVALID_COMMAND"
        return
            "\(name) (code \(code), qualifier 0x\(String(qualifier, radix: 16)), detail \(detail))"
    }
}
