extension VirtualDeviceCommand {
    /// Class and command.
    public var opcode: VirtualDeviceOpcode {
        switch self {
        case .capabilityGet: .capabilityGet
        case .create: .create
        case .destroy: .destroy
        case .list: .list
        case .information: .information
        case .deviceFeaturesGet: .deviceFeaturesGet
        case .driverFeaturesSet: .driverFeaturesSet
        case .driverFeaturesGet: .driverFeaturesGet
        case .statusSet: .statusSet
        case .statusGet: .statusGet
        case .generationGet: .generationGet
        case .configurationGet: .configurationGet
        case .configurationSet: .configurationSet
        case .interruptInformation: .interruptInformation
        case .vectorSet: .vectorSet
        case .vectorGet: .vectorGet
        case .bindConfiguration: .bindConfiguration
        case .bindQueue: .bindQueue
        case .queueInformation: .queueInformation
        case .queueSizeSet: .queueSizeSet
        case .queueAddressesSet: .queueAddressesSet
        case .queueEnable: .queueEnable
        case .queueReset: .queueReset
        case .queueKick: .queueKick
        case .queueStateGet: .queueStateGet
        case .queueStateSet: .queueStateSet
        case .mmuInformation: .mmuInformation
        case .map: .map
        case .unmap: .unmap
        case .unmapAll: .unmapAll
        case .mappingQuery: .mappingQuery
        case .faultGet: .faultGet
        case .subscribe: .subscribe
        }
    }

    /// The complete readable part: header and arguments, reserved bytes zero.
    public func bytes(for virtualDeviceID: UInt64) -> [UInt8] {
        VirtualDeviceHeader(virtualDeviceID: virtualDeviceID, opcode).bytes + arguments
    }

    /// What follows the header.
    public var arguments: [UInt8] {
        var writer = WireWriter()
        switch self {
        case .create(let type, let attributes):
            writer.integer(type.rawValue)
            writer.append(attributes)
        case .list(let after, let maximum):
            writer.integer(after)
            writer.integer(maximum)
            writer.zeros(4)
        case .driverFeaturesSet(let features):
            writer.integer(features.rawValue)
        case .statusSet(let status):
            writer.integer(status.rawValue)
        case .configurationGet(let offset, let size):
            writer.integer(offset)
            writer.integer(size)
        case .configurationSet(let offset, let bytes):
            writer.integer(offset)
            writer.integer(UInt32(clamping: bytes.count))
            writer.append(bytes)
        case .subscribe(let mask):
            writer.integer(mask.rawValue)
            writer.zeros(4)
        default:
            return interruptArguments ?? queueArguments ?? mmuArguments ?? []
        }
        return writer.bytes
    }

    private var interruptArguments: [UInt8]? {
        var writer = WireWriter()
        switch self {
        case .vectorSet(let record):
            return record.bytes
        case .vectorGet(let vector), .bindConfiguration(let vector):
            writer.integer(vector)
            writer.zeros(6)
        case .bindQueue(let queue, let vector):
            writer.integer(queue)
            writer.integer(vector)
            writer.zeros(4)
        default:
            return nil
        }
        return writer.bytes
    }

    private var queueArguments: [UInt8]? {
        var writer = WireWriter()
        switch self {
        case .queueInformation(let queue), .queueReset(let queue), .queueStateGet(let queue):
            writer.integer(queue)
            writer.zeros(6)
        case .queueSizeSet(let queue, let value), .queueEnable(let queue, let value):
            writer.integer(queue)
            writer.integer(value)
            writer.zeros(4)
        case .queueAddressesSet(let queue, let addresses):
            writer.integer(queue)
            writer.zeros(6)
            writer.append(addresses.bytes)
        case .queueKick(let queue, let notification):
            writer.integer(queue)
            writer.zeros(2)
            writer.integer(notification)
        case .queueStateSet(let queue, let indices):
            writer.integer(queue)
            writer.zeros(2)
            writer.append(indices.bytes)
        default:
            return nil
        }
        return writer.bytes
    }

    private var mmuArguments: [UInt8]? {
        var writer = WireWriter()
        switch self {
        case .map(let record):
            return record.bytes
        case .unmap(let first, let last):
            writer.integer(first)
            writer.integer(last)
        case .mappingQuery(let address):
            writer.integer(address)
            writer.zeros(8)
        default:
            return nil
        }
        return writer.bytes
    }
}
