internal import GuestMemory
public import Virtqueue

extension Engine {
    /// Adds a network device that we drive as a port, and attaches it at once.
    ///
    /// The device is enabled and its rings are empty; from here on a worker owns them, and gives the
    /// device its receive buffers. `detach` ends that; before the device is attached again it must
    /// be reset and set up anew.
    @discardableResult
    public func addDevice(
        _ name: String,
        pairs: [PacketPairConfiguration]
    ) throws(EngineError) -> PortID {
        let id = try addPort(name: name, kind: .device)
        do {
            try attach(id, device: pairs)
        } catch {
            try removePort(id)
            throw error
        }
        return id
    }

    /// Gives a device's port its queue pairs, as `addDevice` does, after a reset of the device.
    public func attach(
        _ id: PortID,
        device pairs: [PacketPairConfiguration]
    ) throws(EngineError) {
        let port = try detachedPort(id, kind: .device, else: "only a device is driven")
        guard (1...PortPairs.limit).contains(pairs.count) else {
            throw .pairCount(pairs.count, limit: PortPairs.limit)
        }
        let node = pairs.first.flatMap { Engine.node(of: $0.memory) }
        let worker = pickWorker(memoryNode: node)
        let attachment = try PortAttachment(
            port: id,
            device: pairs,
            memoryNode: node,
            workerNode: worker.node
        )
        try begin(port, attachment, on: worker)
    }
}
