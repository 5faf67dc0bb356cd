internal import Virtio
internal import VirtioSpec

/// The virtual devices of a management device, whichever dialect asks (AVQ-D-904): ids, limits,
/// creation and destruction.
final class DeviceObjectModel {
    /// All that commands can change; compared before and after one that failed (AVQ-D-305).
    struct Snapshot: Equatable {
        let nextID: UInt64
        let devices: [UInt64: VirtualDeviceState]
    }

    private let limits: ManagementDevice.Limits
    private let factory: any VirtualDeviceFactory
    private unowned let host: any VirtualDeviceHost
    private var devices: [UInt64: VirtualDevice] = [:]
    /// Ids only grow, also over a reset: none is ever given twice (HI-F64).
    private var nextID: UInt64 = 1

    init(
        limits: ManagementDevice.Limits,
        factory: any VirtualDeviceFactory,
        host: any VirtualDeviceHost
    ) {
        self.limits = limits
        self.factory = factory
        self.host = host
    }

    var snapshot: Snapshot {
        Snapshot(nextID: nextID, devices: devices.mapValues(\.state))
    }

    /// Living ids, ascending.
    var ids: [UInt64] { devices.keys.sorted() }

    /// The living device with that id.
    func device(_ id: UInt64) throws(AdminError) -> VirtualDevice {
        guard let device = devices[id] else { throw AdminError(.noSuchDevice) }
        return device
    }

    /// Creates a virtual device; the error tells apart what was wrong (AVQ-D-307).
    func create(
        type: DeviceType,
        attributes bytes: [UInt8],
        isStatic: Bool = false
    ) throws(AdminError) -> UInt64 {
        guard devices.count < limits.maximumDevices, nextID < .max else { throw .noRoom }
        let attributes = try DeviceAttributes(bytes)
        try check(attributes)
        let device = try factory.makeDevice(type: type, attributes: attributes, id: nextID)
        do throws(AdminError) {
            try check(attributes, against: device)
        } catch {
            factory.discard(device)
            throw error
        }
        let id = nextID
        nextID += 1
        devices[id] = VirtualDevice(
            id: id,
            device: device,
            isStatic: isStatic,
            attributes: attributes,
            limits: limits,
            host: host
        )
        host.send(
            AdminEvent(.deviceAdded, virtualDeviceID: id, data: UInt64(device.type.rawValue))
        )
        return id
    }

    /// Destroys a virtual device; one in use is stopped first (AVQ-D-310).
    func destroy(_ id: UInt64) throws(AdminError) {
        let device = try device(id)
        guard !device.isStatic else { throw AdminError(.staticDevice) }
        remove(device)
        host.send(
            AdminEvent(
                .deviceRemoved,
                virtualDeviceID: id,
                data: UInt64(device.device.type.rawValue)
            )
        )
    }

    /// At most `limit` ids above `after`.
    func list(after: UInt64, limit: Int) -> DeviceList {
        let rest = ids.filter { $0 > after }
        return DeviceList(ids: Array(rest.prefix(limit)), hasMore: rest.count > limit)
    }

    /// Reset of the management device: created devices go, pre-made ones start anew without a
    /// mapping and keep their ids (AVQ-D-308, AVQ-D-309).
    func reset() {
        for id in ids {
            guard let device = devices[id] else { continue }
            if device.isStatic {
                device.reset()
                _ = device.unmapAll()
            } else {
                remove(device)
            }
        }
    }

    private func remove(_ device: VirtualDevice) {
        device.reset()
        devices[device.id] = nil
        factory.discard(device.device)
    }

    /// What no device type could meet.
    private func check(_ attributes: DeviceAttributes) throws(AdminError) {
        if let size = attributes.maximumQueueSize, size == 0 || size & (size - 1) != 0 {
            throw .attribute(at: attributes.offset(of: .maximumQueueSize))
        }
        if let count = attributes.vectorCount, count > limits.maximumVectors {
            throw .attribute(at: attributes.offset(of: .vectorCount))
        }
    }

    /// No attribute is passed over in silence: what was asked for is what the device shows.
    private func check(
        _ attributes: DeviceAttributes,
        against device: any VirtioDevice
    ) throws(AdminError) {
        if let count = attributes.queueCount, Int(count) != device.queueLimits.count {
            throw .attribute(at: attributes.offset(of: .queueCount))
        }
        if let bytes = attributes.configuration, !device.configuration.starts(with: bytes) {
            throw .attribute(at: attributes.offset(of: .configuration))
        }
        if let features = attributes.features {
            let possible = FeatureNegotiation.offer(of: device).subtracting(.adminQueue)
            guard features.isSubset(of: possible), features.contains(.version1) else {
                throw .features
            }
        }
    }
}
