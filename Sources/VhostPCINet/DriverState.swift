internal import VirtioSpec

/// The connection as the driver sees it: messages in, actions out. A value: no transport, no window,
/// no time. Whatever the device sends, peer memory is touched between an ON that makes sense and the
/// next OFF, and at no other time (VPN-M-03, VPN-M-04).
struct DriverState: Sendable, Equatable {
    /// Where the connection stands.
    enum Phase: String, Sendable {
        /// Nothing is known of a peer.
        case idle
        /// The window is being mapped.
        case mapping
        /// The window is mapped; queues may be known in part.
        case informed
        /// ON.
        case connected
        /// We asked for OFF and wait for the device's (VPN-M-05).
        case stopping
        /// Not driven.
        case stopped
        /// The device is dead (VPN-M-18).
        case dead
    }

    /// What happened.
    enum Event: Sendable, Equatable {
        /// DRIVER_OK was written.
        case started
        /// A buffer of queue 0 came back with these bytes.
        case frame([UInt8])
        /// The window was mapped.
        case mapped
        /// The window could not be mapped.
        case mappingFailed(Refusal)
        /// The host works no ring that it was handed.
        case connectionFailed(Refusal)
        /// We want to let go of the device.
        case stop
        /// The device's OFF did not come in time (HI-G8).
        case offTimeout
        /// The status shows DEVICE_NEEDS_RESET.
        case needsReset
        /// The status, or the vendor id, reads all ones.
        case deviceGone
    }

    /// What must be done, in order.
    enum Action: Sendable, Equatable {
        /// Map the window; answer `mapped` or `mappingFailed`.
        case map(RegionTable)
        /// Tell the device where the window is mapped.
        case acknowledge(generation: UInt32)
        /// Hand the connection to the host: the table, the queues, and what the peer agreed to.
        case connect(RegionTable, [PeerQueueInformation.Queue], FeatureBits)
        /// Make every thread let go of the window; bounded.
        case quiesce
        /// Forget window and table.
        case release
        /// Send OFF.
        case sendOff
        /// Start waiting for the device's OFF.
        case startTimer
        /// Stop waiting.
        case cancelTimer
        /// Reset the device.
        case reset
        /// Say so.
        case report(DriverEvent)
    }

    /// Where the connection stands.
    private(set) var phase = Phase.stopped
    /// Most queues of a peer that we can serve.
    let maximumQueues: Int
    /// What we agreed on with the device: no peer may use more.
    let features: FeatureBits

    private var table: RegionTable?
    private var queues = PeerQueueSet()
    private var hasAskedAgain = false
    /// Our OFF was said unasked; the device's is the answer to it.
    private var awaitsOff = false

    init(maximumQueues: Int, features: FeatureBits) {
        self.maximumQueues = maximumQueues
        self.features = features
    }

    /// Takes one event in.
    mutating func handle(_ event: Event) -> [Action] {
        switch event {
        case .started:
            guard phase == .stopped else { return [] }
            phase = .idle
            return []
        case .frame(let bytes): return frame(bytes)
        case .mapped: return mapped()
        case .mappingFailed(let refusal):
            guard phase == .mapping else { return [] }
            return forget() + [.report(.refused(refusal))]
        case .connectionFailed(let refusal): return connectionFailed(refusal)
        case .stop: return stop()
        case .offTimeout:
            guard phase == .stopping else { return [] }
            let refusal = Refusal("vpci/off-timeout", "the device did not answer OFF")
            return finish() + [.report(.refused(refusal)), .report(.stopped)]
        case .needsReset:
            guard isRunning else { return [] }
            return letGo() + finish() + [.reset, .report(.needsReset)]
        case .deviceGone:
            guard phase != .dead, phase != .stopped else { return [] }
            let actions = letGo()
            _ = finish()
            phase = .dead
            return actions + [.cancelTimer, .report(.deviceGone)]
        }
    }

    private var isRunning: Bool { phase != .stopped && phase != .dead }
}

// MARK: messages

extension DriverState {
    private mutating func frame(_ bytes: [UInt8]) -> [Action] {
        guard isRunning else { return [] }
        let message: DeviceMessage
        do throws(ControlFrameError) {
            message = try DeviceMessage(frame: bytes)
        } catch {
            return badFrame(error)
        }
        if phase == .stopping {
            guard case .connection(isOn: false) = message else { return [] }
            return [.cancelTimer] + finish() + [.report(.stopped)]
        }
        switch message {
        case .connection(isOn: true): return on()
        case .connection(isOn: false): return off()
        case .memory(let information): return memory(information)
        case .queues(let part): return queues(part)
        case .logging: return refuse("log/range", "not supported: dirty page logging")
        }
    }

    /// Nothing of a frame that cannot be read is used. One that was cut held information that is now
    /// missing (HI-G10).
    private mutating func badFrame(_ error: ControlFrameError) -> [Action] {
        switch error {
        case .cut, .layout:
            return askAgain(Refusal(error.id, error.description))
        case .unknown, .direction, .regionCount, .queueCount:
            return refuse(error.id, error.description)
        }
    }

    /// OFF makes the device, and with it the peer, begin again: once, until it made sense again.
    private mutating func askAgain(_ refusal: Refusal) -> [Action] {
        let report = Action.report(.refused(refusal))
        guard !hasAskedAgain, phase == .idle || phase == .mapping || phase == .informed else {
            return [report]
        }
        hasAskedAgain = true
        return forget() + [.sendOff, report]
    }

    private mutating func memory(_ information: PeerMemoryInformation) -> [Action] {
        guard phase != .connected else {
            return refuse("vpci/order", "memory information while ON")
        }
        do throws(Refusal) {
            let checked = try RegionTable(checking: information)
            table = checked
            queues = PeerQueueSet()
            phase = .mapping
            return [.map(checked)]
        } catch {
            return forget() + [.report(.refused(error))]
        }
    }

    private mutating func mapped() -> [Action] {
        guard phase == .mapping, let table else { return [] }
        phase = .informed
        return [
            .acknowledge(generation: table.generation),
            .report(
                .memory(
                    regions: table.regions.count,
                    bytes: table.byteCount,
                    generation: table.generation
                )
            ),
        ]
    }

    private mutating func queues(_ part: PeerQueueInformation) -> [Action] {
        guard phase == .informed else {
            return refuse("vpci/order", "queue information while \(phase.rawValue)")
        }
        do throws(Refusal) {
            try queues.add(part, maximum: maximumQueues)
            return []
        } catch {
            queues = PeerQueueSet()
            return [.report(.refused(error))]
        }
    }

    private mutating func on() -> [Action] {
        guard phase == .informed, let table else {
            return refuse("vpci/order", "ON while \(phase.rawValue)")
        }
        guard queues.isComplete else {
            return refuse(
                "vpci/vq-count",
                "\(queues.queues.count) queues described, \(queues.total ?? 0) announced"
            )
        }
        guard let peerFeatures else {
            return askAgain(Refusal("vpci/features", "the peer uses more than we took"))
        }
        phase = .connected
        hasAskedAgain = false
        awaitsOff = false
        return [.connect(table, queues.queues, peerFeatures)]
    }

    /// What the peer agreed to: one set for all its queues, and no more than we know how to serve
    /// (HI-G12). A device that says nothing of it means what it agreed on with us.
    private var peerFeatures: FeatureBits? {
        let stated = Set(queues.queues.map(\.features))
        guard stated.count == 1, let bits = stated.first else { return nil }
        let agreed = bits == 0 ? features : FeatureBits(rawValue: bits)
        return agreed.isSubset(of: features) ? agreed : nil
    }

    /// The link goes down: the peer comes again and is tried anew. The device's OFF is not answered, it
    /// is the answer.
    private mutating func connectionFailed(_ refusal: Refusal) -> [Action] {
        guard phase == .connected else { return [] }
        awaitsOff = true
        return forget() + [.sendOff, .report(.refused(refusal)), .report(.disconnected)]
    }

    private mutating func off() -> [Action] {
        guard phase == .connected || phase == .informed || phase == .mapping else {
            // Not answered: an answer to a repetition would be answered in turn, for ever.
            guard !awaitsOff, !hasAskedAgain else {
                awaitsOff = false
                return []
            }
            return refuse("vpci/order", "OFF while \(phase.rawValue)")
        }
        return letGo() + forget() + [.sendOff, .report(.disconnected)]
    }

    private func refuse(_ id: String, _ detail: String) -> [Action] {
        [.report(.refused(Refusal(id, detail)))]
    }
}

// MARK: endings

extension DriverState {
    private mutating func stop() -> [Action] {
        switch phase {
        case .connected, .informed, .mapping:
            let actions = letGo() + forget()
            phase = .stopping
            return actions + [.sendOff, .startTimer]
        case .idle: return finish() + [.report(.stopped)]
        case .stopping, .stopped, .dead: return []
        }
    }

    /// Threads first, whatever comes after (VPN-M-04, VPN-M-17, VPN-M-18).
    private func letGo() -> [Action] {
        phase == .connected ? [.quiesce] : []
    }

    private mutating func forget() -> [Action] {
        table = nil
        queues = PeerQueueSet()
        phase = .idle
        return [.release]
    }

    private mutating func finish() -> [Action] {
        let actions = forget()
        phase = .stopped
        hasAskedAgain = false
        awaitsOff = false
        return actions
    }
}
