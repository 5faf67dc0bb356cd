internal import Virtio
internal import VirtioSpec

/// The virtual-device dialect on the device's side: bytes in, bytes out, the object model between.
///
/// Checks come in this order, and the first that fails answers: room for the acknowledgement, header,
/// class and command with its capability, addressing, arguments, room for an id or a count, the
/// virtual device, then whatever the command itself demands. Nothing has changed until all passed
/// (AVQ-D-305).
struct VirtualDeviceDialect {
    /// What CAP_GET answers.
    let capabilities: AdminCapabilities
    let model: DeviceObjectModel
    /// Carries out EVENT SUBSCRIBE.
    let subscribe: (AdminEventMask) throws(AdminError) -> Void

    /// Executes one command; what comes back is written from the first writable byte on. Nothing
    /// comes back, and nothing was executed, without room for an acknowledgement (AVQ-D-303, HI-F3).
    func execute(_ readable: [UInt8], room: Int) -> [UInt8] {
        guard room >= 1 else { return [] }
        do throws(AdminError) {
            let result = try result(of: readable, room: room - 1)
            return [AdminAcknowledgement.ok.rawValue] + result.prefix(room - 1)
        } catch {
            let record =
                capabilities.contains(.errorRecord) ? AdminErrorRecord(error).bytes : []
            return [AdminAcknowledgement.error.rawValue] + record.prefix(room - 1)
        }
    }

    private func result(of readable: [UInt8], room: Int) throws(AdminError) -> [UInt8] {
        guard let header = VirtualDeviceHeader(readable) else {
            throw .shortBuffer(needed: VirtualDeviceHeader.size)
        }
        guard let opcode = VirtualDeviceOpcode(header),
            capabilities.isSuperset(of: opcode.requiredCapabilities)
        else { throw AdminError(.invalidOpcode) }
        guard opcode.isForManagementDevice == (header.virtualDeviceID == 0) else {
            throw AdminError(.invalidMember)
        }
        let command = try VirtualDeviceCommand(
            opcode,
            arguments: Array(readable.dropFirst(VirtualDeviceHeader.size))
        )
        guard room >= opcode.minimumResult else {
            throw .shortBuffer(needed: 1 + opcode.minimumResult)
        }
        guard header.virtualDeviceID != 0 else { return try manage(command, room: room) }
        if command == .destroy {
            try model.destroy(header.virtualDeviceID)
            return []
        }
        return try execute(command, on: model.device(header.virtualDeviceID))
    }

    /// Commands for the management device itself.
    private func manage(
        _ command: VirtualDeviceCommand,
        room: Int
    ) throws(AdminError) -> [UInt8] {
        switch command {
        case .capabilityGet:
            return little(capabilities.rawValue)
        case .create(let type, let attributes):
            return little(try model.create(type: type, attributes: attributes))
        case .list(let after, let maximum):
            let fitting = (room - DeviceList.headerSize) / 8
            return model.list(after: after, limit: min(Int(maximum), fitting)).bytes
        case .subscribe(let mask):
            try subscribe(mask)
            return []
        default:
            throw AdminError(.invalidOpcode)
        }
    }

    private func execute(
        _ command: VirtualDeviceCommand,
        on device: VirtualDevice
    ) throws(AdminError) -> [UInt8] {
        switch command.opcode.commandClass {
        case 0x101: return try interrupt(command, device)
        case 0x102: return try queue(command, device)
        case 0x103: return try mmu(command, device)
        default: break
        }
        switch command {
        case .information:
            return device.information.bytes
        case .deviceFeaturesGet:
            return little(device.offeredFeatures.rawValue)
        case .driverFeaturesSet(let features):
            try device.setDriverFeatures(features)
        case .driverFeaturesGet:
            return little(device.acceptedFeatures.rawValue)
        case .statusSet(let status):
            try device.setStatus(status)
        case .statusGet:
            return [device.state.status.status.rawValue]
        case .generationGet:
            return little(device.generation())
        case .configurationGet(let offset, let size):
            let read = try device.readConfiguration(offset, size)
            return little(read.generation) + read.bytes
        case .configurationSet(let offset, let bytes):
            try device.writeConfiguration(offset, bytes)
        default:
            throw AdminError(.invalidOpcode)
        }
        return []
    }

    private func interrupt(
        _ command: VirtualDeviceCommand,
        _ device: VirtualDevice
    ) throws(AdminError) -> [UInt8] {
        switch command {
        case .vectorSet(let record):
            try device.setVector(record)
            return []
        case .vectorGet(let vector):
            return try device.state.interrupts.record(vector).bytes
        case .bindConfiguration(let vector):
            return little(try device.bind(.configuration, to: vector))
        case .bindQueue(let queue, let vector):
            return little(try device.bind(.queue(queue), to: vector))
        default:
            return InterruptInformation(
                vectorCount: UInt16(clamping: device.state.interrupts.count),
                flags: [.maskable, .byEventQueue]
            ).bytes
        }
    }

    private func queue(
        _ command: VirtualDeviceCommand,
        _ device: VirtualDevice
    ) throws(AdminError) -> [UInt8] {
        switch command {
        case .queueInformation(let queue):
            return try device.queueInformation(queue).bytes
        case .queueSizeSet(let queue, let size):
            try device.setQueueSize(queue, size)
        case .queueAddressesSet(let queue, let addresses):
            try device.setQueueAddresses(queue, addresses)
        case .queueEnable(let queue, let value):
            try device.enableQueue(queue, value: value)
        case .queueReset(let queue):
            try device.resetQueue(queue)
        case .queueKick(let queue, _):
            try device.kick(queue)
        case .queueStateGet(let queue):
            return try device.state.queues.indices(queue).bytes + [0, 0, 0, 0]
        case .queueStateSet(let queue, let indices):
            try device.setQueueIndices(queue, indices)
        default:
            throw AdminError(.invalidOpcode)
        }
        return []
    }

    private func mmu(
        _ command: VirtualDeviceCommand,
        _ device: VirtualDevice
    ) throws(AdminError) -> [UInt8] {
        switch command {
        case .map(let record):
            try device.map(record)
            return []
        case .unmap(let first, let last):
            return little(try device.unmap(first: first, last: last))
        case .unmapAll:
            return little(device.unmapAll())
        case .mappingQuery(let address):
            return try device.state.mmu.mapping(of: address).bytes
        case .faultGet:
            return device.state.mmu.fault.bytes
        default:
            return device.state.mmu.information.bytes
        }
    }

    private func little(_ value: some FixedWidthInteger) -> [UInt8] {
        var writer = WireWriter()
        writer.integer(value)
        return writer.bytes
    }
}
