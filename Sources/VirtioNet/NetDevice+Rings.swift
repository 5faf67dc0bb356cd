internal import GuestMemory
internal import HostSystem
internal import Virtio
internal import VirtioSpec
internal import Virtqueue

// Rings: into the host's hands, and out of them.
extension NetDevice {
    /// Hands over the rings of the active pairs, where they can be reached. At DRIVER_OK they must be
    /// (HI-H15); after a change of the driver's memory they are waited for.
    func attach(isStarting: Bool = false) {
        guard let context, connection == nil, stuck == nil, !hasFailed else { return }
        let memory = context.memory
        guard !failForLoss(of: memory) else { return }
        let rings: [PeerRingSetup]
        do throws(DeviceFault) {
            rings = try usableRings(context, memory)
        } catch {
            return isStarting ? fail(error) : wait(error, memory)
        }
        endPatience()
        guard !rings.isEmpty else { return }
        generation &+= 1
        let connection = PeerConnection(
            memory: memory,
            features: context.features,
            rings: rings,
            generation: generation
        )
        do throws(PeerConnectionFailure) {
            try host?.peerConnected(connection)
        } catch {
            return handOverFailed(error)
        }
        self.connection = connection
        failure = nil
        report?(.attached(rings: rings.count))
    }

    /// Not the driver's fault: its link goes down, and the rings are handed over again with the next
    /// change, or after a while.
    private func handOverFailed(_ reason: PeerConnectionFailure) {
        if failure != reason { report?(.refused(id: reason.id, detail: reason.detail)) }
        failure = reason
        patience = loop.after(milliseconds: Self.handOverMilliseconds) { [weak self] in
            self?.patience = nil
            self?.attach()
        }
    }

    /// Takes the rings back: when this returns true no thread works on them.
    ///
    /// A thread that does not let go in time keeps the memory that it works on from being unmapped,
    /// and nothing is handed over until it has.
    @discardableResult
    func detach() -> Bool {
        endPatience()
        guard let connection else { return stuck == nil }
        self.connection = nil
        let limit = Self.quiesceMilliseconds
        guard host?.peerDisconnecting(milliseconds: limit) ?? true else {
            report?(
                .refused(
                    id: "net/in-use",
                    detail: "a thread works on the rings \(limit) ms after their end"
                )
            )
            stuck = (connection, scheduleRetry())
            return false
        }
        keepPositions(of: connection)
        report?(.detached)
        return true
    }

    /// Lets threads go on in the driver's memory as it is now, where the rings are still in it: a driver
    /// behind an IOMMU changes it with every packet. True when they do, and use nothing of what it was.
    func followMemory() -> Bool {
        guard let context, let moved = connection?.moved(to: context.memory) else { return false }
        guard
            host?.peerMemoryChanged(moved.memory, milliseconds: Self.quiesceMilliseconds / 2)
                == true
        else { return false }
        connection = moved
        return true
    }

    private func usableRings(
        _ context: any DeviceContext,
        _ memory: MemoryTable
    ) throws(DeviceFault) -> [PeerRingSetup] {
        var rings: [PeerRingSetup] = []
        for queue in 0..<2 * activePairs {
            guard var configuration = context.queue(queue) else { continue }
            configuration.nextAvailable = positions[queue] ?? 0
            do throws(QueueError) {
                try configuration.check(in: memory, maximumSize: options.ringSize)
            } catch {
                throw DeviceFault(
                    error.rawValue,
                    queue: queue,
                    address: error == .area ? configuration.descriptorArea : nil
                )
            }
            rings.append(
                PeerRingSetup(
                    index: queue,
                    isPeerTransmit: queue % 2 == 1,
                    isEnabled: true,
                    isStarted: true,
                    configuration: configuration,
                    doorbell: Doorbell(eventDescriptor: bells[queue].descriptor.rawValue),
                    wakeup: queue % 2 == 1 ? wakeups[queue / 2] : nil
                )
            )
        }
        return rings
    }

    /// Buffers are returned in order and none is out once the threads let go, so the used index is
    /// where a ring goes on, if it is still where it was. The index is the driver's to write: one that
    /// it spoils breaks its ring.
    private func keepPositions(of connection: PeerConnection) {
        for ring in connection.rings {
            guard let now = context?.queue(ring.index),
                now.deviceArea == ring.configuration.deviceArea
            else { continue }
            let (address, overflow) = ring.configuration.deviceArea.addingReportingOverflow(2)
            guard !overflow, let bytes = connection.memory.read(address, 2) else { continue }
            positions[ring.index] = UInt16(bytes[0]) | UInt16(bytes[1]) << 8
        }
    }

    // MARK: looking

    /// A ring that its driver broke rests until a reset, and only the device can say so. Memory that
    /// was cut reads as zeros to whoever works on it: he does not know.
    func scheduleCheck() {
        guard check == nil, !hasFailed else { return }
        check = loop.after(milliseconds: Self.checkMilliseconds) { [weak self] in self?.look() }
    }

    func endCheck() {
        if let check { loop.remove(check) }
        check = nil
    }

    private func look() {
        check = nil
        guard let context else { return }
        // A ring of zeros is a broken one as well: what it lies in is looked at after it, and named
        // before it.
        let broken = connection == nil ? nil : host?.brokenPairs.min { $0.key < $1.key }
        guard !failForLoss(of: context.memory) else { return }
        guard let broken else { return scheduleCheck() }
        fail(DeviceFault(broken.value, queue: 2 * broken.key))
    }

    /// True when there is nothing to work on any more, since somebody cut the driver's memory
    /// (HI-I11).
    private func failForLoss(of memory: MemoryTable) -> Bool {
        guard let loss = memory.loss else { return false }
        report?(
            .refused(
                id: MemoryLoss.id,
                detail: "\(loss); map memory that stays as long as it is, and reset the device"
            )
        )
        fail(DeviceFault(MemoryLoss.id, address: loss.first))
        return true
    }

    // MARK: waiting

    /// Memory that is gone altogether comes back or does not, as with bus mastering switched off; of
    /// memory that is there without the rings so much time is given to be completed.
    private func wait(_ fault: DeviceFault, _ memory: MemoryTable) {
        guard fault.id == QueueError.area.rawValue else { return fail(fault) }
        report?(.waiting(fault))
        guard !memory.all.isEmpty else { return }
        patience = loop.after(milliseconds: Self.patienceMilliseconds) { [weak self] in
            self?.patience = nil
            self?.attach(isStarting: true)
        }
    }

    private func endPatience() {
        if let patience { loop.remove(patience) }
        patience = nil
    }

    private func scheduleRetry() -> EventLoop.Source {
        loop.after(milliseconds: Self.retryMilliseconds) { [weak self] in self?.retry() }
    }

    private func retry() {
        guard let connection = stuck?.connection else { return }
        guard host?.peerDisconnecting(milliseconds: 0) != false else {
            stuck = (connection, scheduleRetry())
            return
        }
        stuck = nil
        // Of a driver that has gone meanwhile nothing is kept.
        if connection.generation == generation { keepPositions(of: connection) }
        report?(.detached)
        attach()
    }
}
