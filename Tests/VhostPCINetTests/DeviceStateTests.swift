import Testing
import VhostPCINet

@Suite struct DeviceStateTests {
    // MARK: connect

    @Test func `VPN-D-10: a connect is memory, then queues, then ON, each once`() {
        var rig = Rig()
        rig.connect()
        #expect(rig.state.phase == .connected)
        #expect(rig.sent == [.memory, .queues, .on])
        #expect(rig.count(.connectRings) == 1)
    }

    @Test func `nothing is said to a driver before it is ready`() {
        var rig = Rig()
        rig.feed(.peerConnected, .peerChanged(usable: true))
        #expect(rig.state.phase == .waitDriver)
        #expect(rig.actions.isEmpty)
        rig.feed(.driverReady)
        #expect(rig.state.phase == .info)
    }

    @Test func `a peer without memory or a started ring is waited for`() {
        var rig = Rig()
        rig.feed(.driverReady)
        #expect(rig.state.phase == .waitPeer)
        rig.feed(.peerConnected, .peerChanged(usable: false))
        #expect(rig.state.phase == .waitPeer)
        #expect(rig.actions.isEmpty)
    }

    @Test func `rings that start one after another are told together`() {
        var rig = Rig()
        rig.feed(.driverReady, .peerConnected)
        for _ in 0..<8 {
            rig.feed(.peerQuiesce, .peerChanged(usable: true))
        }
        #expect(rig.count(.resumePeer) == 8)
        #expect(rig.count(.place) == 0)
        rig.feed(.expired(.settle))
        #expect(rig.count(.place) == 1)
    }

    @Test func `a driver that does not acknowledge gets ON when its time is over`() {
        var rig = Rig()
        rig.announce()
        rig.feed(.delivered(.memory))
        #expect(rig.state.phase == .info)
        rig.feed(.expired(.acknowledgement))
        #expect(rig.state.phase == .connected)
    }

    @Test func `VPN-D-18: an acknowledgement of an older table counts for nothing`() {
        var rig = Rig()
        rig.connect()
        rig.changeTable()
        rig.feed(.delivered(.off), .driverOff, .expired(.settle), .placed, .delivered(.memory))
        #expect(rig.state.generation == 2)
        rig.feed(.acknowledged(generation: 1))
        #expect(rig.state.phase == .info)
        rig.feed(.acknowledged(generation: 3))
        #expect(rig.state.phase == .info)
        rig.feed(.acknowledged(generation: 2))
        #expect(rig.state.phase == .connected)
    }

    @Test func `an acknowledgement of a table that was not delivered counts for nothing`() {
        var rig = Rig()
        rig.announce()
        rig.feed(.acknowledged(generation: nil))
        #expect(rig.state.phase == .info)
    }

    @Test func `VPN-D-26: a peer that cannot be placed is disconnected before ON`() {
        var rig = Rig()
        rig.feed(.driverReady, .peerConnected, .peerChanged(usable: true), .expired(.settle))
        rig.feed(.placementFailed("mem/window: too big"))
        #expect(rig.actions.contains(.disconnectPeer("mem/window: too big")))
        #expect(rig.sent.isEmpty)
        rig.feed(.peerGone)
        #expect(rig.state.phase == .waitPeer)
        rig.feed(.peerConnected, .peerChanged(usable: true), .expired(.settle), .placed)
        #expect(rig.sent == [.memory])
    }

    // MARK: table change

    @Test func `a table change waits for the driver's OFF, then tells the next generation`() {
        var rig = Rig()
        rig.connect()
        rig.forget()
        rig.feed(.peerQuiesce)
        #expect(rig.state.phase == .draining)
        #expect(rig.sent == [.off])
        #expect(!rig.actions.contains(.resumePeer))
        rig.feed(.delivered(.off), .driverOff)
        #expect(rig.index(.recordProgress) < rig.index(.resumePeer))
        rig.feed(.peerChanged(usable: true), .expired(.settle), .placed, .delivered(.memory))
        rig.feed(.acknowledged(generation: 2))
        #expect(rig.sent == [.off, .memory, .queues, .on])
        #expect(rig.state.generation == 2)
    }

    @Test func `a message that was let through and refused leaves the connection as it was`() {
        var rig = Rig()
        rig.connect()
        rig.feed(.peerQuiesce, .delivered(.off), .driverOff)
        rig.forget()
        rig.feed(.expired(.settle), .placed, .delivered(.memory), .acknowledged(generation: nil))
        #expect(rig.sent == [.memory, .queues, .on])
    }

    @Test func `HI-G35: a driver that does not answer OFF loses the memory, and the peer goes on`()
    {
        var rig = Rig()
        rig.connect()
        rig.forget()
        rig.feed(.peerQuiesce, .expired(.drain))
        #expect(rig.index(.recordProgress) < rig.index(.clearWindow))
        #expect(rig.index(.clearWindow) < rig.index(.resumePeer))
        #expect(rig.state.phase == .draining)
        // Whatever the peer changes meanwhile, it waits for nobody and nothing new is placed.
        rig.feed(.peerChanged(usable: true), .peerQuiesce, .peerChanged(usable: true))
        #expect(rig.count(.resumePeer) == 2)
        #expect(rig.count(.place) == 0)
        rig.feed(.delivered(.off), .expired(.off))
        #expect(rig.state.phase == .info)
    }

    @Test func `VPN-D-20: with no buffers for OFF a new table waits without limit`() {
        var rig = Rig()
        rig.connect()
        rig.feed(.peerQuiesce, .expired(.drain), .peerChanged(usable: true))
        rig.forget()
        rig.feed(.expired(.settle), .expired(.off), .expired(.acknowledgement), .expired(.drain))
        #expect(rig.actions.isEmpty)
        rig.feed(.delivered(.off), .driverOff)
        #expect(rig.state.phase == .info)
    }

    @Test func `an OFF that is answered after the memory was taken away does no more harm`() {
        var rig = Rig()
        rig.connect()
        rig.feed(.peerQuiesce, .delivered(.off), .expired(.drain))
        rig.forget()
        rig.feed(.driverOff)
        #expect(!rig.actions.contains(.recordProgress))
        #expect(!rig.actions.contains(.resumePeer))
    }

    // MARK: peer goes

    @Test func `VPN-D-16: a peer that goes is told at once, whatever the driver does`() {
        var rig = Rig()
        rig.connect()
        rig.forget()
        rig.feed(.peerGone)
        #expect(rig.sent == [.off])
        #expect(rig.state.phase == .gone)
        #expect(rig.actions.contains(.clearWindow))
        #expect(rig.index(.disconnectRings) < rig.index(.clearWindow))
        rig.feed(.delivered(.off), .driverOff)
        #expect(rig.state.phase == .waitPeer)
    }

    @Test func `a new peer waits until the driver let go of the old one`() {
        var rig = Rig()
        rig.connect()
        rig.feed(.peerGone, .peerConnected, .peerChanged(usable: true))
        rig.forget()
        rig.feed(.expired(.settle))
        #expect(rig.state.phase == .gone)
        #expect(rig.count(.place) == 0)
        rig.feed(.delivered(.off), .driverOff, .expired(.settle))
        #expect(rig.count(.place) == 1)
    }

    @Test func `a peer that goes while its message waits is not resumed`() {
        var rig = Rig()
        rig.connect()
        rig.feed(.peerQuiesce)
        rig.forget()
        rig.feed(.peerGone, .delivered(.off), .driverOff, .expired(.drain))
        #expect(!rig.actions.contains(.resumePeer))
        #expect(rig.state.phase == .waitPeer)
    }

    @Test func `a peer that goes before ON leaves no table with the driver`() {
        var rig = Rig()
        rig.announce()
        rig.feed(.delivered(.memory))
        rig.forget()
        rig.feed(.peerGone)
        #expect(rig.sent == [.off])
    }

    @Test func `a peer that goes before anything was delivered is not mentioned`() {
        var rig = Rig()
        rig.announce()
        rig.forget()
        rig.feed(.peerGone)
        #expect(rig.sent.isEmpty)
        #expect(rig.actions.contains(.withdraw))
        #expect(rig.state.phase == .waitPeer)
    }

    // MARK: driver

    @Test func `VPN-D-15: OFF from the driver stops the rings, then the peer, then is answered`() {
        var rig = Rig()
        rig.connect()
        rig.forget()
        rig.feed(.driverOff)
        #expect(rig.index(.disconnectRings) < rig.index(.disconnectPeer(asked)))
        #expect(rig.index(.disconnectPeer(asked)) < rig.index(.send(.off)))
        rig.feed(.peerGone)
        #expect(rig.sent == [.off])
        #expect(rig.state.phase == .waitPeer)
    }

    @Test func `HI-G30: OFF without a peer is answered once and changes nothing`() {
        var rig = Rig()
        rig.feed(.driverReady, .driverOff)
        #expect(rig.sent == [.off])
        #expect(rig.state.phase == .waitPeer)
        // The answer to our answer.
        rig.feed(.delivered(.off), .driverOff)
        #expect(rig.sent == [.off])
    }

    @Test func `an OFF that crosses ours on the way is its answer`() {
        var rig = Rig()
        rig.connect()
        rig.feed(.peerQuiesce)
        rig.forget()
        rig.feed(.driverOff)
        #expect(rig.actions.contains(.resumePeer))
        rig.feed(.delivered(.off), .driverOff)
        #expect(rig.sent.isEmpty)
    }

    @Test func `HI-G34, VPN-D-24: a reset closes the connection and waits for a driver again`() {
        var rig = Rig()
        rig.connect()
        rig.feed(.peerQuiesce)
        rig.forget()
        rig.feed(.driverGone)
        #expect(rig.index(.resumePeer) < rig.index(.disconnectPeer(reset)))
        #expect(rig.sent.isEmpty)
        #expect(rig.state.phase == .waitDriver)
        rig.feed(.peerGone)
        #expect(rig.state.phase == .reset)
        for timer in DeviceState.Timer.allCases {
            #expect(rig.actions.contains(.cancel(timer)))
        }
    }

    @Test func `VPN-D-18: generations rise by one over resets and peers`() {
        var rig = Rig()
        for generation in 1...20 as ClosedRange<UInt32> {
            rig.connect()
            #expect(rig.state.generation == generation)
            rig.feed(.driverGone, .peerGone)
        }
    }

    @Test func `events at the wrong time are ignored`() {
        var rig = Rig()
        rig.feed(.driverGone, .peerGone, .placed, .placementFailed("x"), .driverOff)
        rig.feed(.acknowledged(generation: 0), .delivered(.memory), .delivered(.off))
        for timer in DeviceState.Timer.allCases { rig.feed(.expired(timer)) }
        #expect(rig.actions.isEmpty)
        #expect(rig.state.phase == .reset)
    }

    @Test func `any order of events keeps the driver's memory still and the peer's wait bounded`() {
        var generator = SystemRandomNumberGenerator()
        for _ in 0..<300 {
            var model = DeviceStateModel()
            for _ in 0..<200 {
                model.step(using: &generator)
            }
        }
    }

    private let asked = "the driver asked for it"
    private let reset = "the driver reset the device"
}

/// Feeds events and keeps the actions.
private struct Rig {
    var state = DeviceState()
    var actions: [DeviceState.Action] = []

    var sent: [DeviceState.Notice] {
        actions.compactMap { if case .send(let notice) = $0 { notice } else { nil } }
    }

    mutating func feed(_ events: DeviceState.Event...) {
        for event in events { actions += state.handle(event) }
    }

    mutating func forget() { actions = [] }

    func count(_ action: DeviceState.Action) -> Int { actions.count { $0 == action } }

    /// Position of an action; behind everything when it did not happen.
    func index(_ action: DeviceState.Action) -> Int {
        actions.firstIndex(of: action) ?? .max
    }

    mutating func announce() {
        feed(.driverReady, .peerConnected, .peerChanged(usable: true), .expired(.settle), .placed)
    }

    mutating func connect() {
        announce()
        feed(.delivered(.memory), .acknowledged(generation: state.generation))
    }

    mutating func changeTable() {
        feed(.peerQuiesce, .peerChanged(usable: true))
    }
}
