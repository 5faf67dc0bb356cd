internal import PCI
internal import VirtioSpec

/// The structures of a virtio PCI function as its driver found them: every one lies inside its BAR.
struct PCIStructures {
    let common: VirtioCapability
    let notify: VirtioCapability
    let device: VirtioCapability?
    let peerNotify: VirtioCapability?
    /// Shared memory by id, the first of each.
    let sharedMemory: [UInt8: VirtioCapability]

    /// Walks the capability list and takes the first usable capability of each type (HI-H7); those
    /// of unknown type or outside their BAR are skipped (HI-H6, VPN-M-15).
    init(_ function: any PCIFunction) throws(PCIError) {
        var found: [VirtioCapabilityType: VirtioCapability] = [:]
        var shared: [UInt8: VirtioCapability] = [:]
        for entry in try CapabilityList(function).entries
        where entry.identifier == VirtioCapability.identifier {
            guard let capability = try Self.read(entry.offset, function),
                try Self.isUsable(capability, function)
            else { continue }
            if capability.type == .sharedMemory {
                shared[capability.id] = shared[capability.id] ?? capability
            } else {
                found[capability.type] = found[capability.type] ?? capability
            }
        }
        guard let common = found[.common] else {
            throw .capability("no usable common configuration")
        }
        guard let notify = found[.notify] else { throw .capability("no usable notification") }
        try Self.checkMultiplier(notify)
        if let peer = found[.peerNotify] { try Self.checkMultiplier(peer) }
        self.common = common
        self.notify = notify
        device = found[.device]
        peerNotify = found[.peerNotify]
        sharedMemory = shared
    }

    /// Offset of the notify address `index` of a structure, `nil` when a 16-bit store there does
    /// not fit into it (HI-H8).
    static func notifyOffset(_ index: UInt16, of capability: VirtioCapability) -> UInt64? {
        let at = UInt64(index) * UInt64(capability.multiplier)
        guard capability.length >= 2, at <= capability.length - 2 else { return nil }
        return capability.offset + at
    }

    private static func read(
        _ offset: Int,
        _ function: any PCIFunction
    ) throws(PCIError) -> VirtioCapability? {
        // What lies past the end of configuration space would read as ones: not part of it.
        let longest = VirtioCapabilityType.sharedMemory.length
        var bytes: [UInt8] = []
        for at in offset..<min(offset + longest, EmulatedConfigSpace.length) {
            let byte = try function.readConfiguration(at, .byte)
            bytes.append(UInt8(truncatingIfNeeded: byte))
        }
        return VirtioCapability(bytes: bytes)
    }

    private static func isUsable(
        _ capability: VirtioCapability,
        _ function: any PCIFunction
    ) throws(PCIError) -> Bool {
        guard let need = need(capability.type),
            Int(capability.bar) < ConfigurationHeader.baseAddressCount
        else { return false }
        let size = try function.barSize(Int(capability.bar))
        return capability.length >= need.length && capability.offset % need.alignment == 0
            && capability.offset <= size && capability.length <= size - capability.offset
    }

    // Least length and alignment of the structures that this driver uses (virtio 1.3 §4.1.4).
    private static func need(
        _ type: VirtioCapabilityType
    ) -> (length: UInt64, alignment: UInt64)? {
        switch type {
        case .common: (UInt64(CommonConfiguration.leastLength), 4)
        case .notify, .peerNotify: (2, 2)
        case .device: (1, 4)
        case .sharedMemory: (1, 1)
        default: nil
        }
    }

    private static func checkMultiplier(_ capability: VirtioCapability) throws(PCIError) {
        let multiplier = capability.multiplier
        guard multiplier == 0 || (multiplier >= 2 && multiplier & (multiplier - 1) == 0) else {
            throw .notifyRange(queue: 0)
        }
    }
}
