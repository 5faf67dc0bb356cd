/// What `device show` tells of one device, in the form `vhost-pci.device-show/1`
/// (docs/device-json.md). The text view has the same facts.
struct DeviceReport: Codable, Equatable {
    struct Identity: Codable, Equatable {
        var vendor: UInt16
        var device: UInt16
        var subsystemVendor: UInt16
        var subsystemDevice: UInt16
        var classCode: UInt32
        var revision: UInt8
        var name: String?
        var className: String?

        enum CodingKeys: String, CodingKey {
            case vendor, device, revision, name
            case subsystemVendor = "subsystem_vendor"
            case subsystemDevice = "subsystem_device"
            case classCode = "class"
            case className = "class_name"
        }
    }

    struct Member: Codable, Equatable {
        var address: String
        var driver: String?
        var classCode: UInt32
        var isInTheWay: Bool

        enum CodingKeys: String, CodingKey {
            case address, driver
            case classCode = "class"
            case isInTheWay = "in_the_way"
        }
    }

    struct Group: Codable, Equatable {
        var number: Int
        var type: String?
        var members: [Member]
    }

    struct Host: Codable, Equatable {
        var driver: String?
        var driverOverride: String?
        var group: Group?
        var node: Int?
        var localCPUs: String?
        var resetMethods: [String]
        var powerState: String?
        var linkSpeed: String?
        var linkWidth: Int?
        var maximumLinkSpeed: String?
        var maximumLinkWidth: Int?
        var physicalFunction: String?
        var virtualFunctions: [String]?
        var maximumVirtualFunctions: Int?
        var interfaces: [String]
        var disks: [String]
        var allocatedVectors: Int?

        enum CodingKeys: String, CodingKey {
            case driver, interfaces, disks
            case driverOverride = "driver_override"
            case group = "iommu_group"
            case node = "numa_node"
            case localCPUs = "local_cpus"
            case resetMethods = "reset_methods"
            case powerState = "power_state"
            case linkSpeed = "link_speed"
            case linkWidth = "link_width"
            case maximumLinkSpeed = "maximum_link_speed"
            case maximumLinkWidth = "maximum_link_width"
            case physicalFunction = "physical_function"
            case virtualFunctions = "virtual_functions"
            case maximumVirtualFunctions = "maximum_virtual_functions"
            case allocatedVectors = "allocated_vectors"
        }
    }

    struct BAR: Codable, Equatable {
        var number: Int
        var address: UInt64?
        var size: UInt64
        var kind: String

        enum CodingKeys: String, CodingKey {
            case address, size, kind
            case number = "bar"
        }
    }

    struct CapabilityEntry: Codable, Equatable {
        var id: UInt16
        var isExtended: Bool
        var offset: Int
        var version: UInt8?
        var name: String?
        var fields: [String: JSONValue]
        var problems: [String]

        enum CodingKeys: String, CodingKey {
            case id, offset, version, name, fields, problems
            case isExtended = "extended"
        }
    }

    struct Feature: Codable, Equatable {
        var bit: UInt8
        var name: String?
    }

    struct Queue: Codable, Equatable {
        var index: Int
        var size: UInt16
    }

    struct Field: Codable, Equatable {
        var name: String
        var value: String
    }

    struct Virtio: Codable, Equatable {
        var type: UInt32
        var typeName: String
        var isTransitional: Bool
        var status: String?
        /// All that the device offers; only of an opened device.
        var offered: [Feature]?
        /// What the kernel's driver negotiated; only while it drives the device.
        var negotiated: [Feature]?
        var queueCount: Int?
        var queues: [Queue]?
        var firstAdminQueue: Int?
        var adminQueueCount: Int?
        var configuration: [Field]?

        enum CodingKeys: String, CodingKey {
            case type, status, queues, configuration
            case typeName = "type_name"
            case isTransitional = "transitional"
            case offered = "offered_features"
            case negotiated = "negotiated_features"
            case queueCount = "queue_count"
            case firstAdminQueue = "first_admin_queue"
            case adminQueueCount = "admin_queue_count"
        }
    }

    struct Note: Codable, Equatable {
        var id: String
        var text: String
        var remedy: String?
    }

    var schema = "vhost-pci.device-show/1"
    var target: String
    var identity: Identity
    var host: Host?
    var bars: [BAR]
    var messageVectors: Int?
    var capabilities: [CapabilityEntry]
    var virtio: Virtio?
    var notes: [Note]

    enum CodingKeys: String, CodingKey {
        case schema, target, identity, host, bars, capabilities, virtio, notes
        case messageVectors = "msix_vectors"
    }
}
