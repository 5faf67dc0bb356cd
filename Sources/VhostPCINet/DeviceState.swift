/// The connection between one peer and one driver, as the device sees it: what happened, and what
/// must therefore be done. A value: no socket, no memory, no time; deadlines come in as events.
///
/// Three rules shape it. The driver touches peer memory between ON and its answer to OFF, so nothing
/// new is placed in the window, and no peer message that would move memory or rings is let through,
/// in between. A peer is never made to wait longer than `Timer.drain` for a driver: at that limit the
/// window becomes zero pages, which takes the memory away without the driver's help. And a driver is
/// not hurried: while it posts no buffers, the connection rests (VPN-D-20, HI-G33).
public struct DeviceState: Sendable, Equatable {
    /// Where the connection stands.
    public enum Phase: String, Sendable {
        /// No driver, no peer.
        case reset
        /// A peer, and no driver yet: the peer may negotiate, its rings are not worked on.
        case waitDriver = "wait-driver"
        /// A driver, and no peer with memory and a started ring.
        case waitPeer = "wait-peer"
        /// Both are up; the driver is being told what there is.
        case info
        /// The driver was told ON.
        case connected
        /// The driver was told OFF while the peer stays.
        case draining
        /// The peer went; the driver was told OFF.
        case gone
    }

    /// What happened.
    public enum Event: Sendable, Equatable {
        /// DRIVER_OK.
        case driverReady
        /// The driver reset the device, or broke it so that only a reset helps (HI-G34).
        case driverGone
        /// A front-end connected.
        case peerConnected
        /// The front-end's next message moves memory or rings: stop using them, then let it through.
        case peerQuiesce
        /// The front-end said something new; `usable` when there is memory and a started ring.
        case peerChanged(usable: Bool)
        /// The front-end went.
        case peerGone
        /// The window holds the newest table.
        case placed
        /// The newest table cannot be placed (VPN-D-26).
        case placementFailed(String)
        /// The driver took a message from queue 0.
        case delivered(Notice)
        /// The driver mapped the window of that table, or of the newest when it names none.
        case acknowledged(generation: UInt32?)
        /// The driver said OFF.
        case driverOff
        /// A timer ran out.
        case expired(Timer)
    }

    /// What a message to the driver is about.
    public enum Notice: Sendable, Hashable {
        /// PEER_MEM_INFO.
        case memory
        /// PEER_VIRTQ_INFO, all parts.
        case queues
        /// PEER_CONNECTION ON.
        case on
        /// PEER_CONNECTION OFF.
        case off
    }

    /// The deadlines.
    public enum Timer: Sendable, Hashable, CaseIterable {
        /// A front-end sends its rings one by one; that long after the last change they are told to
        /// the driver together.
        case settle
        /// A driver that does not acknowledge the window gets ON nevertheless.
        case acknowledgement
        /// The longest that a front-end waits for the driver's OFF.
        case drain
        /// A driver that took OFF and does not answer counts as having answered (HI-G35).
        case off

        /// Its length.
        public var milliseconds: UInt64 {
            switch self {
            case .settle: 10
            case .acknowledgement, .drain, .off: 1000
            }
        }
    }

    /// What must be done, in order.
    public enum Action: Sendable, Equatable {
        /// Start a timer anew.
        case start(Timer)
        /// Forget a timer.
        case cancel(Timer)
        /// Put the peer's memory into the window; answer `placed` or `placementFailed`.
        case place
        /// Replace the window by zero pages.
        case clearWindow
        /// Connect doorbells and kicks.
        case connectRings
        /// Disconnect doorbells and kicks.
        case disconnectRings
        /// Read how far the rings were worked, and wake the peer for what it was not told.
        case recordProgress
        /// Queue a message to the driver.
        case send(Notice)
        /// Take messages back that the driver has not seen; OFF stays.
        case withdraw
        /// Let the front-end's message through.
        case resumePeer
        /// Close the connection to the front-end.
        case disconnectPeer(String)
    }

    /// What stands between an OFF to the driver and the driver's answer.
    private enum Off: Sendable {
        case none
        case queued
        case delivered
        /// Our OFF was itself an answer: the next OFF from the driver only confirms it.
        case answered
    }

    /// Where the connection stands.
    public private(set) var phase = Phase.reset
    /// Number of the newest table (VPN-D-18).
    public private(set) var generation: UInt32 = 0

    private var isDriverReady = false
    private var isPeerPresent = false
    private var isPeerUsable = false
    private var isPeerWaiting = false
    private var isAnnounced = false
    private var isMemoryDelivered = false
    private var isRevoked = false
    private var off = Off.none

    /// Starts without driver and peer.
    public init() {}

    /// Takes one event in.
    public mutating func handle(_ event: Event) -> [Action] {
        switch event {
        case .driverReady: driverReady()
        case .driverGone: driverGone()
        case .peerConnected: peerConnected()
        case .peerQuiesce: peerQuiesce()
        case .peerChanged(let usable): peerChanged(usable)
        case .peerGone: peerGone()
        case .placed: placed()
        case .placementFailed(let why): placementFailed(why)
        case .delivered(let notice): delivered(notice)
        case .acknowledged(let generation): acknowledged(generation)
        case .driverOff: driverOff()
        case .expired(let timer): expired(timer)
        }
    }
}

// MARK: driver

extension DeviceState {
    private mutating func driverReady() -> [Action] {
        guard !isDriverReady else { return [] }
        isDriverReady = true
        return evaluate()
    }

    private mutating func driverGone() -> [Action] {
        guard isDriverReady else { return [] }
        isDriverReady = false
        off = .none
        var actions = Timer.allCases.map { Action.cancel($0) }
        actions += [.withdraw, .disconnectRings]
        if phase == .connected || (phase == .draining && !isRevoked) {
            actions.append(.recordProgress)
        }
        actions += resume()
        if isPeerPresent { actions.append(.disconnectPeer("the driver reset the device")) }
        isAnnounced = false
        isRevoked = false
        return actions + evaluate()
    }

    private mutating func acknowledged(_ generation: UInt32?) -> [Action] {
        guard phase == .info, isAnnounced, isMemoryDelivered,
            (generation ?? self.generation) == self.generation
        else { return [] }
        return announceConnection()
    }

    private mutating func announceConnection() -> [Action] {
        phase = .connected
        isAnnounced = false
        // Whatever the driver had to confirm, it did so before it turned to this table.
        off = .none
        return [.cancel(.acknowledgement), .send(.queues), .connectRings, .send(.on)]
    }

    private mutating func driverOff() -> [Action] {
        guard isDriverReady else { return [] }
        switch off {
        case .queued:
            // The two OFFs crossed: ours, still on its way, answers the driver's.
            off = .answered
            return drained()
        case .delivered:
            off = .none
            return [.cancel(.off)] + drained()
        case .answered:
            off = .none
            return []
        case .none:
            return driverAsksForOff()
        }
    }

    /// VPN-D-15: first the rings, then the peer, then the answer.
    private mutating func driverAsksForOff() -> [Action] {
        off = .answered
        var actions: [Action] = [.withdraw]
        if phase == .connected { actions += [.disconnectRings, .recordProgress] }
        if phase == .connected || phase == .info {
            actions += [.cancel(.settle), .cancel(.acknowledgement)]
            actions.append(.disconnectPeer("the driver asked for it"))
            isAnnounced = false
            isPeerUsable = false
            phase = .waitPeer
        }
        return actions + [.send(.off)]
    }

    private mutating func delivered(_ notice: Notice) -> [Action] {
        switch notice {
        case .memory where phase == .info && isAnnounced:
            isMemoryDelivered = true
            return [.start(.acknowledgement)]
        case .off where off == .queued:
            off = .delivered
            return [.start(.off)]
        default:
            return []
        }
    }
}

// MARK: peer

extension DeviceState {
    private mutating func peerConnected() -> [Action] {
        isPeerPresent = true
        isPeerUsable = false
        return evaluate()
    }

    private mutating func peerQuiesce() -> [Action] {
        isPeerWaiting = true
        switch phase {
        case .connected: return stop()
        case .draining where !isRevoked: return []
        case .info: return unannounce() + resume() + [.start(.settle)]
        default: return resume()
        }
    }

    private mutating func peerChanged(_ usable: Bool) -> [Action] {
        isPeerUsable = usable && isPeerPresent
        switch phase {
        case .connected: return stop()
        case .info: return unannounce() + evaluate()
        case .waitPeer: return evaluate()
        default: return []
        }
    }

    private mutating func peerGone() -> [Action] {
        guard isPeerPresent else { return [] }
        isPeerPresent = false
        isPeerUsable = false
        isPeerWaiting = false
        isRevoked = false
        var actions: [Action] = [.cancel(.settle), .cancel(.acknowledgement), .cancel(.drain)]
        actions += [.disconnectRings, .clearWindow]
        if phase == .connected || (phase == .info && isAnnounced && isMemoryDelivered) {
            actions += [.withdraw, .send(.off)]
            off = .queued
            phase = .gone
        } else if phase == .draining {
            phase = .gone
        } else {
            actions.append(.withdraw)
        }
        isAnnounced = false
        return actions + evaluate()
    }

    private mutating func placed() -> [Action] {
        guard phase == .info, !isAnnounced else { return [] }
        isAnnounced = true
        isMemoryDelivered = false
        generation &+= 1
        return [.send(.memory)]
    }

    private mutating func placementFailed(_ why: String) -> [Action] {
        guard phase == .info else { return [] }
        isPeerUsable = false
        phase = .waitPeer
        return [.clearWindow, .disconnectPeer(why)]
    }
}

// MARK: transitions

extension DeviceState {
    private mutating func expired(_ timer: Timer) -> [Action] {
        switch timer {
        case .settle: return phase == .info && !isAnnounced ? [.place] : []
        case .acknowledgement: return phase == .info && isAnnounced ? announceConnection() : []
        case .drain: return phase == .draining ? revoke() : []
        case .off:
            guard off == .delivered else { return [] }
            off = .none
            return (phase == .draining ? revoke() : []) + drained()
        }
    }

    /// CONNECTED to DRAINING: the driver must let go before anything moves.
    private mutating func stop() -> [Action] {
        phase = .draining
        isRevoked = false
        off = .queued
        return [.disconnectRings, .withdraw, .send(.off), .start(.drain)]
    }

    /// The driver did not let go in time: the memory is taken away under it.
    private mutating func revoke() -> [Action] {
        guard !isRevoked else { return [] }
        isRevoked = true
        return [.recordProgress, .clearWindow] + resume()
    }

    /// Back to the start of INFO. The driver was not told ON, so it touches nothing.
    private mutating func unannounce() -> [Action] {
        isAnnounced = false
        return [.cancel(.settle), .cancel(.acknowledgement), .withdraw]
    }

    /// The driver let go.
    private mutating func drained() -> [Action] {
        guard phase == .draining else { return evaluate() }
        var actions: [Action] = [.cancel(.drain)]
        if !isRevoked { actions.append(.recordProgress) }
        isRevoked = false
        phase = .waitPeer
        return actions + resume() + evaluate()
    }

    private mutating func resume() -> [Action] {
        guard isPeerWaiting else { return [] }
        isPeerWaiting = false
        return [.resumePeer]
    }

    private mutating func evaluate() -> [Action] {
        guard isDriverReady else {
            phase = isPeerPresent ? .waitDriver : .reset
            return []
        }
        // Nothing new while the driver may still work on what it was told before.
        if off == .queued || off == .delivered { return [] }
        guard isPeerUsable else {
            phase = .waitPeer
            return []
        }
        phase = .info
        return [.start(.settle)]
    }
}
