/// Class (upper half) and command (lower half) of the virtual-device dialect. Classes 0 to 5 are the
/// proposal's; 0x80 and up within class VDEV, and classes from 0x100, are this project's extension.
public enum VirtualDeviceOpcode: UInt32, Sendable, CaseIterable {
    /// Asks for the capability mask.
    case capabilityGet = 0x0000_0000

    /// Creates a virtual device.
    case create = 0x0002_0000
    /// Destroys the virtual device in the header.
    case destroy = 0x0002_0001
    /// Lists ids.
    case list = 0x0002_0080
    /// Describes a virtual device.
    case information = 0x0002_0081

    /// Features offered.
    case deviceFeaturesGet = 0x0003_0000
    /// The driver's choice.
    case driverFeaturesSet = 0x0003_0001
    /// Features accepted by both sides.
    case driverFeaturesGet = 0x0003_0002

    /// Writes the status byte.
    case statusSet = 0x0004_0000
    /// Reads the status byte.
    case statusGet = 0x0004_0001

    /// Reads the configuration generation.
    case generationGet = 0x0005_0000

    /// Reads configuration space.
    case configurationGet = 0x0100_0000
    /// Writes configuration space.
    case configurationSet = 0x0100_0001

    /// How many vectors there are and what they can do.
    case interruptInformation = 0x0101_0000
    /// Masks a vector and sets its message.
    case vectorSet = 0x0101_0001
    /// Reads a vector back.
    case vectorGet = 0x0101_0002
    /// Binds configuration changes to a vector.
    case bindConfiguration = 0x0101_0003
    /// Binds a queue to a vector.
    case bindQueue = 0x0101_0004

    /// A queue's limits and settings.
    case queueInformation = 0x0102_0000
    /// Sets a queue's size.
    case queueSizeSet = 0x0102_0001
    /// Sets a queue's three addresses.
    case queueAddressesSet = 0x0102_0002
    /// Enables a queue.
    case queueEnable = 0x0102_0003
    /// Resets one queue.
    case queueReset = 0x0102_0004
    /// Notifies a queue.
    case queueKick = 0x0102_0005
    /// Reads a queue's ring indices.
    case queueStateGet = 0x0102_0006
    /// Sets a queue's ring indices.
    case queueStateSet = 0x0102_0007

    /// Limits of the device MMU.
    case mmuInformation = 0x0103_0000
    /// Adds a mapping.
    case map = 0x0103_0001
    /// Removes the mappings of a range.
    case unmap = 0x0103_0002
    /// Removes all mappings.
    case unmapAll = 0x0103_0003
    /// Asks for the mapping of an address.
    case mappingQuery = 0x0103_0004
    /// Reads the first fault.
    case faultGet = 0x0103_0005

    /// Chooses which events are sent.
    case subscribe = 0x0104_0000

    /// The opcode of a header; `nil` when it is unknown (AVQ-D-217).
    public init?(_ header: VirtualDeviceHeader) {
        self.init(rawValue: UInt32(header.commandClass) << 16 | UInt32(header.command))
    }

    /// The class.
    public var commandClass: UInt16 { UInt16(truncatingIfNeeded: rawValue >> 16) }

    /// The command within the class.
    public var command: UInt16 { UInt16(truncatingIfNeeded: rawValue) }

    /// Capabilities without which the command fails (AVQ-D-216, AVQ-D-327); empty for CAP_GET, which
    /// is always served (AVQ-D-202).
    public var requiredCapabilities: AdminCapabilities {
        switch commandClass {
        case 0: []
        case 2: command < 0x80 ? .virtualDevices : [.virtualDevices, .staticDevices]
        case 3...5: .virtualDevices
        case 0x100: .configuration
        case 0x101: .interrupts
        case 0x102: .virtqueues
        case 0x103: .deviceMMU
        default: .events
        }
    }

    /// True when the header must name id 0, false when it must name a virtual device (AVQ-D-203,
    /// AVQ-D-204, AVQ-D-205, AVQ-D-207, AVQ-D-210, AVQ-D-211).
    public var isForManagementDevice: Bool {
        switch self {
        case .capabilityGet, .create, .list, .subscribe: true
        default: false
        }
    }

    /// Argument bytes that must be there; what follows them is reserved or optional (AVQ-D-304).
    public var minimumArguments: Int {
        switch self {
        case .create: 4
        case .list: 12
        case .driverFeaturesSet: 8
        case .statusSet: 1
        case .configurationGet, .configurationSet: 8
        case .vectorSet: 16
        case .vectorGet, .bindConfiguration: 2
        case .bindQueue: 4
        case .queueInformation, .queueReset, .queueStateGet: 2
        case .queueSizeSet, .queueEnable: 4
        case .queueAddressesSet: 32
        case .queueKick, .queueStateSet: 8
        case .map: 28
        case .unmap: 16
        case .mappingQuery: 8
        case .subscribe: 4
        default: 0
        }
    }

    /// Result bytes without which a count or an id would be lost (AVQ-D-304).
    public var minimumResult: Int {
        switch self {
        case .create, .list: 8
        default: 0
        }
    }

    /// The name for people: class and command.
    public var name: String {
        switch self {
        case .capabilityGet: "CAP GET"
        case .create: "VDEV CREATE"
        case .destroy: "VDEV DESTROY"
        case .list: "VDEV LIST"
        case .information: "VDEV INFO"
        case .deviceFeaturesGet: "FEAT DEVICE_GET"
        case .driverFeaturesSet: "FEAT DRIVER_SET"
        case .driverFeaturesGet: "FEAT DRIVER_GET"
        case .statusSet: "STATUS SET"
        case .statusGet: "STATUS GET"
        case .generationGet: "GENERATION GET"
        case .configurationGet: "CONFIG GET"
        case .configurationSet: "CONFIG SET"
        case .interruptInformation: "IRQ INFO"
        case .vectorSet: "IRQ VECTOR_SET"
        case .vectorGet: "IRQ VECTOR_GET"
        case .bindConfiguration: "IRQ BIND_CONFIG"
        case .bindQueue: "IRQ BIND_VQ"
        case .queueInformation: "VQ INFO"
        case .queueSizeSet: "VQ SIZE_SET"
        case .queueAddressesSet: "VQ ADDR_SET"
        case .queueEnable: "VQ ENABLE"
        case .queueReset: "VQ RESET"
        case .queueKick: "VQ KICK"
        case .queueStateGet: "VQ STATE_GET"
        case .queueStateSet: "VQ STATE_SET"
        case .mmuInformation: "MMU INFO"
        case .map: "MMU MAP"
        case .unmap: "MMU UNMAP"
        case .unmapAll: "MMU UNMAP_ALL"
        case .mappingQuery: "MMU QUERY"
        case .faultGet: "MMU FAULT_GET"
        case .subscribe: "EVENT SUBSCRIBE"
        }
    }
}
