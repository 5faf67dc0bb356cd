internal import GuestMemory
internal import PCI
internal import Virtio
internal import VirtioSpec
internal import Virtqueue

// From the device's words to something that threads can work on.
extension VhostPCINetDriver {
    /// Maps the window, in every BAR that it lies in, and builds the table (VPN-M-06).
    func map(_ table: RegionTable) {
        do throws(VirtioError) {
            var views: [BARWindow] = []
            for window in table.windows {
                let view = try transport.mapPeerWindow(
                    bar: window.bar,
                    offset: window.offset,
                    size: window.size
                )
                guard view.size >= window.size else {
                    throw .configurationRange("a window of \(view.size) bytes")
                }
                views.append(view)
            }
            memory = try translation(table, in: views)
            self.views = views
            feed(.mapped)
        } catch {
            if case .deviceGone = error { return feed(.deviceGone) }
            feed(.mappingFailed(Refusal("vpci/bar", "\(error)")))
        }
    }

    private func translation(
        _ table: RegionTable,
        in views: [BARWindow]
    ) throws(VirtioError) -> MemoryTable {
        var regions: [MemoryRegion] = []
        for region in table.regions where !region.flags.contains(.dirtyLog) {
            var access: MemoryAccess = []
            if region.flags.contains(.readable) { access.insert(.read) }
            if region.flags.contains(.writable) { access.insert(.write) }
            let index = table.window(of: region)
            let offset = Int(region.barOffset - table.windows[index].offset)
            // Safety: the table was checked to lie in the windows, and the views are as long as those.
            let entry = unsafe MemoryRegion(
                start: region.guestAddress,
                size: region.size,
                host: views[index].address + offset,
                access: access
            )
            if let entry { regions.append(entry) }
        }
        do throws(MemoryTable.Problem) {
            return try MemoryTable(regions, owners: views.map(\.owner))
        } catch {
            throw .configurationRange("\(error)")
        }
    }

    /// Tells the device where the window is, and by that which table we know.
    func acknowledge(_ generation: UInt32) {
        guard let view = views.first else { return }
        let address = UInt64(UInt(bitPattern: unsafe view.address))
        send(.windowAddress(address, generation: generation))
    }

    /// Hands over what can be used. A pair with a ring that cannot be is left out, and said
    /// (HI-G6); a ring that the peer has not started is handed over as such.
    func connect(
        _ table: RegionTable,
        _ queues: [PeerQueueInformation.Queue],
        _ features: FeatureBits
    ) {
        var rings: [PeerRingSetup] = []
        for pair in pairs(queues) {
            do throws(Refusal) {
                for queue in pair { rings.append(try ring(queue, QueueFeatures(features))) }
            } catch {
                rings.removeAll { $0.index / 2 == Int(pair[0].index) / 2 }
                host?.driverReport(.refused(error))
            }
        }
        do throws(PeerConnectionFailure) {
            try host?.peerConnected(
                PeerConnection(
                    memory: memory,
                    features: features,
                    rings: rings,
                    generation: table.generation
                )
            )
            host?.driverReport(.connected(rings: rings.count, generation: table.generation))
        } catch {
            feed(.connectionFailed(Refusal(error.id, error.detail)))
        }
    }

    /// The queues two by two; the odd one out is the peer's control queue, which is not for us
    /// (VPN-M-07).
    private func pairs(
        _ queues: [PeerQueueInformation.Queue]
    ) -> [[PeerQueueInformation.Queue]] {
        stride(from: 0, to: queues.count - queues.count % 2, by: 2).map {
            Array(queues[$0..<$0 + 2])
        }
    }

    private func ring(
        _ queue: PeerQueueInformation.Queue,
        _ features: QueueFeatures
    ) throws(Refusal) -> PeerRingSetup {
        let index = Int(queue.index)
        let isStarted = queue.flags.contains(.started)
        let configuration = QueueConfiguration(
            size: queue.size,
            descriptorArea: queue.descriptorArea,
            driverArea: queue.driverArea,
            deviceArea: queue.deviceArea,
            nextAvailable: queue.nextAvailable,
            features: features
        )
        // What the flags say of direction must be what the index says.
        guard queue.flags.contains(.peerTransmit) == (index % 2 == 1) else {
            throw Refusal("vpci/order", "queue \(index) has the wrong direction")
        }
        if isStarted { try check(configuration, queue) }
        return PeerRingSetup(
            index: index,
            isPeerTransmit: index % 2 == 1,
            isEnabled: queue.flags.contains(.enabled),
            isStarted: isStarted,
            configuration: configuration,
            doorbell: isStarted ? try doorbell(queue) : .none,
            wakeup: index % 2 == 1 && index / 2 < wakeups.count ? wakeups[index / 2] : nil
        )
    }

    private func check(
        _ configuration: QueueConfiguration,
        _ queue: PeerQueueInformation.Queue
    ) throws(Refusal) {
        guard !queue.flags.contains(.packed) else {
            throw Refusal("ring/size", "not supported: packed ring \(queue.index)")
        }
        do throws(QueueError) {
            _ = try SplitDeviceQueue(configuration, memory: memory)
        } catch {
            throw Refusal(error.rawValue, "queue \(queue.index)")
        }
    }

    private func doorbell(_ queue: PeerQueueInformation.Queue) throws(Refusal) -> Doorbell {
        do throws(VirtioError) {
            return try transport.peerDoorbell(slot: queue.notifyIndex)
        } catch {
            throw Refusal("notify/index", "queue \(queue.index): \(error)")
        }
    }
}
