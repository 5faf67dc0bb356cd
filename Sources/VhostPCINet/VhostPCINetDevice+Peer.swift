internal import GuestMemory
public import HostSystem
public import VhostUser
internal import VirtioSpec

// The peer's side: a vhost-user front-end.
extension VhostPCINetDevice: BackendDelegate {
    /// A front-end connected.
    public func backendConnected(_ backend: Backend) {
        report?(.peerConnected)
        post(.peerConnected)
    }

    /// Memory or rings are about to change.
    public func backend(_ backend: Backend, quiesce resume: @escaping () -> Void) {
        self.resume = resume
        post(.peerQuiesce)
    }

    /// Memory, rings or features are different.
    public func backend(_ backend: Backend, changed description: PeerDescription) {
        // After a quiesce the front-end's positions count; else rings that go on know better.
        if hasHandedPositionsOver { progress.clear() }
        hasHandedPositionsOver = false
        self.description = description
        mirror.peer = description.features.intersection(FeatureMirror.supported)
        let usable = !description.regions.isEmpty && description.rings.contains(where: \.isStarted)
        // Regions may come one by one, but all of them before a ring is started: a client that saw a
        // part of them would keep the rest out.
        if usable {
            do throws(Refusal) {
                try layOutWindows(for: description.regions)
            } catch {
                report?(.refused(error))
                return backend.disconnect("\(error)")
            }
            // Whoever presents the device may have reset it meanwhile, and the peer is gone for that.
            guard self.description != nil else { return }
        }
        if phase == .connected, let announced, description.isSameWork(as: announced) {
            self.announced = description
            return watchKicks()
        }
        post(.peerChanged(usable: usable))
    }

    /// A ring's call descriptor was replaced; the back-end signals the new one (VU-B-14).
    public func backend(
        _ backend: Backend,
        callChanged ring: Int,
        to call: FileDescriptor?
    ) {
        description?.setCall(ring, call)
        announced?.setCall(ring, call)
        refuse { () throws(Refusal) in try notify.replace(ring, with: call) }
    }

    /// The front-end went: nothing of it is used any more once this returns.
    public func backend(_ backend: Backend, disconnected reason: DisconnectReason) {
        resume = nil
        disconnectRings()
        notify.forget()
        clearWindow()
        progress.clear()
        description = nil
        announced = nil
        mirror.peer = nil
        hasHandedPositionsOver = false
        report?(.peerGone(reason.description))
        post(.peerGone)
    }

    /// Where a ring goes on.
    public func backend(_ backend: Backend, nextAvailableOf ring: Int) -> UInt16? {
        progress.nextAvailable(ring)
    }

    /// A front-end's request was refused.
    public func backend(_ backend: Backend, refused violation: Violation) {
        report?(.refused(Refusal(violation.id.rawValue, violation.detail)))
    }

    // MARK: what the driver is told

    /// PEER_MEM_INFO names the BAR: the device knows no address of the driver's (VPN-D-11).
    var memoryInformation: DeviceMessage {
        .memory(
            PeerMemoryInformation(
                location: .bar(UInt64(window.slice.bar)),
                windowOffset: UInt64(window.slice.offset),
                windowSize: UInt64(window.slice.size),
                flags: window.slices.count > 1 ? .splitWindow : [],
                generation: generation,
                regions: window.regions
            )
        )
    }

    /// PEER_VIRTQ_INFO: whole pairs up to the last ring that the peer has set up, each index once
    /// (VPN-D-14). A ring that is not set up yet is there without addresses, neither enabled nor
    /// started.
    var queueInformation: [DeviceMessage] {
        guard let announced else { return [] }
        let last = announced.rings.map(\.index).max() ?? 0
        let count = min(last / 2 + 1, queuePairs) * 2
        let features = mirror.agreed ?? []
        let queues = (0..<count).map { index in
            let ring = announced.rings.first { $0.index == index }
            return PeerQueueInformation.Queue(
                index: UInt16(index),
                size: ring?.size ?? 0,
                flags: flags(index, ring),
                notifyIndex: UInt16(notify.slot(ofRing: index)),
                nextAvailable: progress.nextAvailable(index) ?? ring?.nextAvailable ?? 0,
                descriptorArea: ring?.descriptorArea ?? 0,
                driverArea: ring?.driverArea ?? 0,
                deviceArea: ring?.deviceArea ?? 0,
                features: features.rawValue
            )
        }
        return PeerQueueInformation.parts(of: queues).map { .queues($0) }
    }

    private func flags(_ index: Int, _ ring: PeerRing?) -> PeerQueueInformation.QueueFlags {
        var flags: PeerQueueInformation.QueueFlags = index % 2 == 1 ? .peerTransmit : []
        if ring?.isEnabled == true { flags.insert(.enabled) }
        if ring?.isStarted == true { flags.insert(.started) }
        return flags
    }

    /// The used index of a ring, from the peer's memory; `nil` when the table does not cover it
    /// (VPN-D-25).
    func usedIndex(of ring: PeerRing) -> UInt16? {
        let (address, overflow) = ring.deviceArea.addingReportingOverflow(2)
        guard !overflow, let bytes = window.memory.read(address, 2) else { return nil }
        return UInt16(bytes[0]) | UInt16(bytes[1]) << 8
    }
}

extension PeerDescription {
    /// Call descriptors by ring.
    var calls: [Int: FileDescriptor] {
        Dictionary(rings.compactMap { ring in ring.call.map { (ring.index, $0) } }) { $1 }
    }

    /// Kick descriptors of started transmit rings.
    var transmitKicks: [Int: FileDescriptor] {
        let kicking = rings.filter { $0.index % 2 == 1 && $0.isStarted }
        return Dictionary(kicking.compactMap { ring in ring.kick.map { (ring.index, $0) } }) { $1 }
    }

    mutating func setCall(_ index: Int, _ call: FileDescriptor?) {
        for position in rings.indices where rings[position].index == index {
            rings[position].call = call
        }
    }

    /// True when a driver that works on `other` has nothing new to learn.
    func isSameWork(as other: PeerDescription) -> Bool {
        features == other.features && regions.count == other.regions.count
            && rings.count == other.rings.count
            && zip(regions, other.regions).allSatisfy { $0.isSameMemory(as: $1) }
            && zip(rings, other.rings).allSatisfy { $0.isSameWork(as: $1) }
    }
}

extension PeerRing {
    fileprivate func isSameWork(as other: PeerRing) -> Bool {
        index == other.index && size == other.size && isStarted == other.isStarted
            && isEnabled == other.isEnabled && descriptorArea == other.descriptorArea
            && driverArea == other.driverArea && deviceArea == other.deviceArea
    }
}
