/// A command of the virtual-device dialect with its arguments; which device it is for stands in the
/// header. Bits and numbers are as sent: the device checks them.
public enum VirtualDeviceCommand: Hashable, Sendable {
    /// CAP GET.
    case capabilityGet
    /// VDEV CREATE: `attributes` as `DeviceAttributes` lays them out.
    case create(type: DeviceType, attributes: [UInt8])
    /// VDEV DESTROY.
    case destroy
    /// VDEV LIST: ids above `after`, at most `maximum` of them.
    case list(after: UInt64, maximum: UInt32)
    /// VDEV INFO.
    case information
    /// FEAT DEVICE_GET.
    case deviceFeaturesGet
    /// FEAT DRIVER_SET.
    case driverFeaturesSet(FeatureBits)
    /// FEAT DRIVER_GET.
    case driverFeaturesGet
    /// STATUS SET.
    case statusSet(DeviceStatus)
    /// STATUS GET.
    case statusGet
    /// GENERATION GET.
    case generationGet
    /// CONFIG GET.
    case configurationGet(offset: UInt32, size: UInt32)
    /// CONFIG SET.
    case configurationSet(offset: UInt32, bytes: [UInt8])
    /// IRQ INFO.
    case interruptInformation
    /// IRQ VECTOR_SET.
    case vectorSet(VectorRecord)
    /// IRQ VECTOR_GET.
    case vectorGet(vector: UInt16)
    /// IRQ BIND_CONFIG: 0xffff binds to nothing.
    case bindConfiguration(vector: UInt16)
    /// IRQ BIND_VQ: 0xffff binds to nothing.
    case bindQueue(queue: UInt16, vector: UInt16)
    /// VQ INFO.
    case queueInformation(queue: UInt16)
    /// VQ SIZE_SET.
    case queueSizeSet(queue: UInt16, size: UInt16)
    /// VQ ADDR_SET.
    case queueAddressesSet(queue: UInt16, QueueAddresses)
    /// VQ ENABLE: `value` must be 1.
    case queueEnable(queue: UInt16, value: UInt16)
    /// VQ RESET.
    case queueReset(queue: UInt16)
    /// VQ KICK.
    case queueKick(queue: UInt16, notification: UInt32)
    /// VQ STATE_GET.
    case queueStateGet(queue: UInt16)
    /// VQ STATE_SET.
    case queueStateSet(queue: UInt16, QueueIndices)
    /// MMU INFO.
    case mmuInformation
    /// MMU MAP.
    case map(MappingRecord)
    /// MMU UNMAP: `last` belongs to the range.
    case unmap(first: UInt64, last: UInt64)
    /// MMU UNMAP_ALL.
    case unmapAll
    /// MMU QUERY.
    case mappingQuery(address: UInt64)
    /// MMU FAULT_GET.
    case faultGet
    /// EVENT SUBSCRIBE.
    case subscribe(AdminEventMask)
}

extension VirtualDeviceCommand {
    /// Reads the arguments that follow the header: missing reserved bytes count as zero, surplus is
    /// ignored, anything else missing is SHORT_BUFFER (AVQ-D-304, HI-F8).
    public init(_ opcode: VirtualDeviceOpcode, arguments: [UInt8]) throws(AdminError) {
        let needed = opcode.minimumArguments
        guard arguments.count >= needed else {
            throw .shortBuffer(needed: VirtualDeviceHeader.size + needed)
        }
        let fields = WireFields(arguments)
        switch opcode.commandClass {
        case 0x100: self = try Self.configuration(opcode, fields)
        case 0x101: self = Self.interrupt(opcode, fields)
        case 0x102: self = Self.queue(opcode, fields)
        case 0x103: self = Self.mmu(opcode, fields)
        default: self = Self.device(opcode, fields)
        }
    }

    private static func device(
        _ opcode: VirtualDeviceOpcode,
        _ fields: WireFields
    ) -> VirtualDeviceCommand {
        switch opcode {
        case .create: .create(type: DeviceType(fields[0]), attributes: fields.tail(from: 4))
        case .destroy: .destroy
        case .list: .list(after: fields[0], maximum: fields[8])
        case .information: .information
        case .deviceFeaturesGet: .deviceFeaturesGet
        case .driverFeaturesSet: .driverFeaturesSet(FeatureBits(rawValue: fields[0]))
        case .driverFeaturesGet: .driverFeaturesGet
        case .statusSet: .statusSet(DeviceStatus(rawValue: fields[0]))
        case .statusGet: .statusGet
        case .generationGet: .generationGet
        case .subscribe: .subscribe(AdminEventMask(rawValue: fields[0]))
        default: .capabilityGet
        }
    }

    private static func configuration(
        _ opcode: VirtualDeviceOpcode,
        _ fields: WireFields
    ) throws(AdminError) -> VirtualDeviceCommand {
        let offset: UInt32 = fields[0]
        let size: UInt32 = fields[4]
        guard opcode == .configurationSet else {
            return .configurationGet(offset: offset, size: size)
        }
        let bytes = fields.tail(from: 8)
        guard bytes.count >= size else {
            throw .shortBuffer(needed: VirtualDeviceHeader.size + 8 + Int(size))
        }
        return .configurationSet(offset: offset, bytes: Array(bytes.prefix(Int(size))))
    }

    private static func interrupt(
        _ opcode: VirtualDeviceOpcode,
        _ fields: WireFields
    ) -> VirtualDeviceCommand {
        switch opcode {
        case .vectorSet: .vectorSet(VectorRecord(fields))
        case .vectorGet: .vectorGet(vector: fields[0])
        case .bindConfiguration: .bindConfiguration(vector: fields[0])
        case .bindQueue: .bindQueue(queue: fields[0], vector: fields[2])
        default: .interruptInformation
        }
    }

    private static func queue(
        _ opcode: VirtualDeviceOpcode,
        _ fields: WireFields
    ) -> VirtualDeviceCommand {
        let queue: UInt16 = fields[0]
        switch opcode {
        case .queueSizeSet: return .queueSizeSet(queue: queue, size: fields[2])
        case .queueAddressesSet: return .queueAddressesSet(queue: queue, QueueAddresses(fields, 8))
        case .queueEnable: return .queueEnable(queue: queue, value: fields[2])
        case .queueReset: return .queueReset(queue: queue)
        case .queueKick: return .queueKick(queue: queue, notification: fields[4])
        case .queueStateGet: return .queueStateGet(queue: queue)
        case .queueStateSet: return .queueStateSet(queue: queue, QueueIndices(fields, 4))
        default: return .queueInformation(queue: queue)
        }
    }

    private static func mmu(
        _ opcode: VirtualDeviceOpcode,
        _ fields: WireFields
    ) -> VirtualDeviceCommand {
        switch opcode {
        case .map: .map(MappingRecord(fields))
        case .unmap: .unmap(first: fields[0], last: fields[8])
        case .unmapAll: .unmapAll
        case .mappingQuery: .mappingQuery(address: fields[0])
        case .faultGet: .faultGet
        default: .mmuInformation
        }
    }
}
