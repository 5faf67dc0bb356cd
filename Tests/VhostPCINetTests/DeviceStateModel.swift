import Testing
import VhostPCINet

/// A back-end, an outbox and a driver around the state, to check what must always hold.
struct DeviceStateModel {
    var state = DeviceState()
    var outbox: [DeviceState.Notice] = []
    var isDriverOn = false
    var isPeerThere = false
    var isPeerWaiting = false
    var isWindowCurrent = false
    var isDriverReady = false
    var owesOff = 0
    var timers: Set<DeviceState.Timer> = []

    mutating func step(using generator: inout SystemRandomNumberGenerator) {
        switch Int.random(in: 0..<14, using: &generator) {
        case 0 where !isDriverReady:
            isDriverReady = true
            feed(.driverReady)
        case 1 where Bool.random() && isDriverReady:
            isDriverReady = false
            isDriverOn = false
            owesOff = 0
            feed(.driverGone)
        case 2 where !isPeerThere:
            isPeerThere = true
            feed(.peerConnected)
        case 3 where isPeerThere && Bool.random():
            isPeerThere = false
            isPeerWaiting = false
            feed(.peerGone)
        case 4, 5:
            if isPeerThere && !isPeerWaiting {
                isPeerWaiting = true
                feed(.peerQuiesce)
            }
        case 6, 7:
            if isPeerThere && !isPeerWaiting {
                feed(.peerChanged(usable: Int.random(in: 0..<4) > 0))
            }
        case 8, 9, 10: deliver()
        case 11:
            // The answer to an OFF; now and then a driver asks of its own accord.
            if owesOff > 0 || (isDriverReady && Int.random(in: 0..<8) == 0) {
                owesOff = max(0, owesOff - 1)
                isDriverOn = false
                feed(.driverOff)
            }
        case 12:
            if let timer = timers.randomElement() {
                timers.remove(timer)
                if timer == .off { isDriverOn = false }
                feed(.expired(timer))
            }
        default:
            if isDriverReady && !isDriverOn { feed(.acknowledged(generation: nil)) }
        }
        // A peer that waits has a timer running for it.
        #expect(!isPeerWaiting || timers.contains(.drain) || timers.contains(.off))
        #expect(outbox.count <= 4)
    }

    private mutating func deliver() {
        guard isDriverReady, !outbox.isEmpty else { return }
        let notice = outbox.removeFirst()
        if notice == .on { isDriverOn = true }
        if notice == .off { owesOff += 1 }
        feed(.delivered(notice))
    }

    private mutating func feed(_ event: DeviceState.Event) {
        for action in state.handle(event) { perform(action) }
    }

    private mutating func perform(_ action: DeviceState.Action) {
        switch action {
        case .start(let timer): timers.insert(timer)
        case .cancel(let timer): timers.remove(timer)
        case .place:
            #expect(!isDriverOn, "a table was placed under a driver that works")
            isWindowCurrent = true
            feed(.placed)
        case .clearWindow: isWindowCurrent = false
        case .send(let notice):
            outbox.removeAll { notice == .off && $0 == .off }
            outbox.append(notice)
        case .withdraw: outbox.removeAll { $0 != .off }
        case .resumePeer:
            #expect(isPeerWaiting, "a peer was resumed that does not wait")
            #expect(!isDriverOn || !isWindowCurrent, "a peer was resumed under a driver that works")
            isPeerWaiting = false
        case .disconnectPeer:
            guard isPeerThere else { break }
            isPeerThere = false
            isPeerWaiting = false
            feed(.peerGone)
        case .connectRings, .disconnectRings, .recordProgress: break
        }
    }
}
